"""A tracker that fails, hangs or is slow never stops a run and never slows it."""

import importlib.util
import threading
import time

import pytest

from uets_jax.errors import UserError
from uets_jax.report import trackers
from uets_jax.report.trackers import Trackers, Worker, open_trackers

WRITES = 1000


class Memory:
    """A sink that keeps its records."""

    def __init__(self):
        self.records, self.closed, self.threads = [], 0, set()

    def write(self, record):
        self.threads.add(threading.current_thread())
        self.records.append(record)

    def close(self):
        self.closed += 1


class Failing(Memory):
    """Raises at its third record."""

    def write(self, record):
        super().write(record)
        if len(self.records) == 3:
            raise OSError("disk\nfull")


class Blocked(Memory):
    """Waits until it is let go."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def write(self, record):
        self.go.wait(60)
        super().write(record)


class Slow(Memory):
    """Takes 50 ms for a record."""

    def write(self, record):
        time.sleep(0.05)
        super().write(record)


def start(*sinks):
    """Trackers over these sinks, their workers, and the warnings so far."""
    told = []
    workers = [Worker(f"s{i}", lambda _, s=s: s) for i, s in enumerate(sinks)]
    return Trackers(workers, told.append), workers, told


def seconds_per_write(opened, count=WRITES):
    begin = time.perf_counter()
    for step in range(count):
        opened.write({"step": step, "loss": 1.0})
    return (time.perf_counter() - begin) / count


def closing_seconds(opened):
    begin = time.perf_counter()
    opened.close()
    return time.perf_counter() - begin


def test_records_arrive_in_order_in_another_thread():
    sinks = Memory(), Memory()
    opened, workers, told = start(*sinks)
    with opened:
        record = {"step": 1, "loss": 2.0}
        opened.write(record)
        record["loss"] = 9.0
        opened.write({"event": "growth"})
        opened.write({"step": 2, "loss": 3.0})
    wanted = [
        {"step": 1, "loss": 2.0},
        {"event": "growth", "step": 1},
        {"step": 2, "loss": 3.0},
    ]
    for sink, worker in zip(sinks, workers, strict=True):
        assert sink.records == wanted
        assert sink.closed == 1
        assert threading.current_thread() not in sink.threads
        assert not worker._thread.is_alive()
    opened.close()
    assert [sink.closed for sink in sinks] == [1, 1]
    assert told == []


def test_a_failing_sink_is_switched_off_with_one_line_and_the_others_go_on():
    bad, good = Failing(), Memory()
    opened, workers, told = start(bad, good)
    assert seconds_per_write(opened) < 1e-3
    opened.close()
    assert len(bad.records) == 3
    assert len(good.records) == WRITES
    assert told == ["s0: switched off after OSError: disk full"]
    assert not workers[0].alive


def test_a_sink_that_cannot_be_opened_is_one_line():
    def fail(_):
        raise RuntimeError("no")

    told, abandoned = [], []
    worker = Worker("x", fail, lambda: abandoned.append(1))
    worker._thread.join(10)
    opened = Trackers([worker], told.append)
    opened.write({"step": 1})
    assert told == ["x: switched off after RuntimeError: no"]
    assert abandoned == [1]
    opened.close()
    assert len(told) == 1


def test_a_blocked_sink_costs_nothing_and_is_given_up(monkeypatch):
    monkeypatch.setattr(trackers, "CLOSE_SECONDS", 0.3)
    monkeypatch.setattr(trackers, "QUEUE", 50)
    blocked, good, told, abandoned = Blocked(), Memory(), [], []
    first = Worker("hung", lambda _: blocked, lambda: abandoned.append(1))
    opened = Trackers([first, Worker("good", lambda _: good)], told.append)
    assert seconds_per_write(opened) < 1e-3
    assert closing_seconds(opened) < 2
    assert not first.alive
    assert abandoned == [1]
    dropped = WRITES - 50 - 1
    assert first.dropped in (dropped, dropped + 1)
    assert told[0].startswith("hung: not done in time, 50 records left")
    assert "were dropped, it was too slow" in told[1]
    blocked.go.set()
    first._thread.join(10)
    assert blocked.closed == 1
    assert len(blocked.records) == 1
    assert good.closed == 1


def test_a_slow_sink_drops_what_it_cannot_take(monkeypatch):
    monkeypatch.setattr(trackers, "CLOSE_SECONDS", 0.4)
    monkeypatch.setattr(trackers, "QUEUE", 20)
    slow = Slow()
    opened, [worker], told = start(slow)
    assert seconds_per_write(opened) < 1e-3
    assert closing_seconds(opened) < 2
    assert worker.dropped >= WRITES - 25
    assert any(f"{worker.dropped} records were dropped" in line for line in told)
    worker._thread.join(10)


def test_a_full_queue_is_still_emptied_at_the_end(monkeypatch):
    monkeypatch.setattr(trackers, "QUEUE", 5)
    blocked = Blocked()
    opened, [worker], _ = start(blocked)
    for step in range(20):
        opened.write({"step": step})
    threading.Timer(0.1, blocked.go.set).start()
    opened.close()
    assert len(blocked.records) == 20 - worker.dropped
    assert blocked.closed == 1


def test_a_thread_never_warns_by_itself():
    told = []
    worker = Worker("x", lambda tell: tell("offline") or Memory())
    opened = Trackers([worker], lambda s: told.append((s, threading.current_thread())))
    opened.close()
    assert told == [("offline", threading.current_thread())]


def test_no_name_is_no_thread(tmp_path):
    before = threading.active_count()
    with open_trackers("", tmp_path, {}, "run", pytest.fail) as opened:
        opened.write({"step": "nonsense"})
        assert threading.active_count() == before
    assert not any(tmp_path.iterdir())


def test_tensorboard_is_written_in_the_folder_of_the_run(tmp_path):
    with open_trackers(" tensorboard,", tmp_path, {}, "run", pytest.fail) as opened:
        opened.write({"step": 1, "loss": 2.0})
    [path] = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in path.read_bytes()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "tensorboard").write_text("")
    told = []
    with open_trackers("tensorboard", tmp_path, {}, "run", told.append) as opened:
        opened.write({"step": 1, "loss": 2.0})
    [line] = told
    assert line.startswith("tensorboard: switched off after ")


def test_an_unknown_name_is_named_with_the_nearest(tmp_path):
    with pytest.raises(UserError, match="no tracker 'tensorbord': did you mean 'tens"):
        open_trackers("tensorbord", tmp_path, {}, "run", pytest.fail)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_with_the_mend(tmp_path, monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"isn't installed; pip install \"uets_jax\[tr"):
        open_trackers(name, tmp_path, {}, "run", pytest.fail)
