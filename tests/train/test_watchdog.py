import time

from uets_jax.train.watchdog import Watchdog


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_silence_ends_the_process_with_124_and_one_line(capsys):
    ended = []
    with Watchdog(0.1, end=ended.append) as dog:
        dog.beat("training after step 7")
        assert wait_for(lambda: ended)
    assert ended == [124]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no progress for 0.1 s while training after step 7" in said


def test_beats_keep_it_quiet():
    ended, clock = [], [0.0]
    with Watchdog(0.2, end=ended.append, now=lambda: clock[0]) as dog:
        for _ in range(10):
            clock[0] += 0.15
            dog.beat("training")
            time.sleep(0.06)
    assert ended == []


def test_nothing_is_watched_after_the_end_or_without_a_limit():
    ended, clock = [], [0.0]
    with Watchdog(0.1, end=ended.append, now=lambda: clock[0]):
        pass
    with Watchdog(0, end=ended.append, now=lambda: clock[0]):
        clock[0] = 1e9
        time.sleep(0.15)
    assert ended == []
