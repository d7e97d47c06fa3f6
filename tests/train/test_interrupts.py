import os
import signal
import threading

import pytest

from uets_jax.train.interrupts import Interrupts


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_noted_and_the_second_acts_as_usual(name):
    number = signal.Signals[name]
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert interrupts.caught is None
        os.kill(os.getpid(), number)
        assert interrupts.caught == name
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_handlers_come_back_when_nothing_happened():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_catches_nothing_and_breaks_nothing():
    seen = []

    def work():
        with Interrupts() as interrupts:
            seen.append(interrupts.caught)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


def test_what_a_run_has_heard_its_queue_knows():
    with Interrupts() as queue:
        with Interrupts() as run:
            signal.raise_signal(signal.SIGTERM)
            assert run.caught == "SIGTERM"
            assert queue.caught is None
        assert queue.caught == "SIGTERM"
    with Interrupts() as queue:
        with Interrupts():
            pass
        assert queue.caught is None
