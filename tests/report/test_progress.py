"""The progress display shows speed and time left, and survives its terminal."""

import io
import math

import pytest

from uets_jax.report.progress import Progress


class Clock:
    """Seconds that pass by 0.5 at each look."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        self.seconds += 0.5
        return self.seconds


def test_plain_lines_show_loss_speed_and_time_left():
    stream = io.StringIO()
    with Progress(400, log_every=20, stream=stream, now=Clock()) as progress:
        for step in range(1, 121):
            progress.update(step, 3.214, step * 1000)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[-1] == "step 120/400  loss 3.214  2k tok/s  eta 2:20"


def test_a_resumed_run_measures_its_own_speed_only():
    stream = io.StringIO()
    progress = Progress(100, initial=90, log_every=5, stream=stream, now=Clock())
    for step in range(91, 101):
        progress.update(step, None, step * 10)
    first, end = stream.getvalue().splitlines()
    assert first == "step 95/100  20 tok/s  eta 0:02"
    assert end.startswith("step 100/100")
    assert end.endswith("eta 0:00")


def test_ten_thousand_steps_stay_far_below_a_megabyte():
    stream = io.StringIO()
    progress = Progress(10_000, stream=stream)
    for step in range(1, 10_001):
        progress.update(step, math.nan, step)
    assert len(stream.getvalue()) < 50_000
    assert stream.getvalue().count("\n") == 500


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_that_starts_at_the_resumed_step():
    stream = Terminal()
    with Progress(100, initial=90, stream=stream) as progress:
        progress.update(91, 3.25, 1000)
        progress.note("valid_loss 3.1")
        progress.update(100, 3.125, 2000)
    assert "90/100" in stream.getvalue()
    assert "100/100" in stream.getvalue()
    assert "loss 3.125" in stream.getvalue()
    assert "valid_loss 3.1" in stream.getvalue()


def test_a_run_may_end_earlier_than_was_thought():
    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        with Progress(400, log_every=20, stream=stream, now=Clock()) as progress:
            progress.update(20, 1.0, 10)
            progress.ends_at(25)
            progress.update(25, 1.0, 20)
    assert plain.getvalue().splitlines()[-1].startswith("step 25/25")
    assert "25/25" in terminal.getvalue()


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_closed_stream_is_no_trouble(kind, when):
    stream = kind()
    if when == "before":
        stream.close()
    progress = Progress(40, log_every=1, stream=stream)
    stream.close()
    for step in range(1, 41):
        progress.update(step, 1.0, step)
    progress.note("text")
    progress.close()
    assert stream.closed
    progress.close()
