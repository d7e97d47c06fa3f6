"""The queue: with real training where it matters, else with one that is made up."""

import dataclasses
import json
import os
import re
import signal
import sys
import threading
import time
import types

import pytest

from experiments import runner
from experiments.runner import (
    QUIET,
    Job,
    Pace,
    claimed,
    job_flops,
    pin,
    read_result,
    run_job,
    run_queue,
    serve,
)
from uets_jax.config import config_hash, replace_from_dict, to_dict
from uets_jax.errors import NonFiniteLossError, StoppedError, UserError
from uets_jax.measure.flops import train_flops
from uets_jax.train import loop
from uets_jax.train.executable import _executable
from uets_jax.train.interrupts import Interrupts
from uets_jax.train.loop import Result, train

STEPS, BATCH = 4, 6  # a batch of no other test: its executable is compiled here
RATES = (1e-3, 3e-3)


@pytest.fixture(scope="module")
def base(tiny, corpus):
    values = {
        "data": {"source": f"files:{corpus}/*.txt"},
        "model": {"vocab": 257},
        "train": {**QUIET, "steps": STEPS, "batch": BATCH},
    }
    return replace_from_dict(tiny, values)


def job(base, name, measure=None, labels=(), rate=1e-3, **train):
    config = replace_from_dict(base, {"optim": {"learning_rate": rate}, "train": train})
    return Job(name, config, labels, measure)


@pytest.fixture(scope="module")
def grid(base):
    """Two rates and seeds, and a rate that diverges."""
    steps = lambda result: {"steps_of_state": int(result.state.step)}
    jobs = [
        job(base, f"grid/{i}", steps, (("arm", "b0"), ("place", i)), rate, seed=i)
        for i, rate in enumerate(RATES)
    ]
    return [*jobs, job(base, "grid/wild", steps, (("arm", "b0"),), 2e9)]


@pytest.fixture(scope="module")
def served(grid, tmp_path_factory):
    """(records, folder, printed lines, executables that were compiled)."""
    runs, said = tmp_path_factory.mktemp("runs"), []
    before = _executable.cache_info().misses
    results = run_queue(lambda results: grid, runs, said.append)
    return results, runs, said, _executable.cache_info().misses - before


class Training:
    """Instead of `train`: bits per byte by folder; remembers what it was asked for."""

    def __init__(self, outcome=lambda name: 1.0, during=lambda: None):
        self.outcome, self.during, self.calls = outcome, during, []

    def __call__(self, config, out, resume):
        self.calls.append(out.name)
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        self.during()
        bits = self.outcome(out.name)
        if bits is None:
            raise NonFiniteLossError(f"{out}: loss is nan at step 3")
        return Result(config, None, {"bits_per_byte": bits})  # pyright: ignore


@pytest.fixture
def training(monkeypatch):
    made = Training()
    monkeypatch.setattr(runner, "train", made)
    return made


def always(*jobs):
    return lambda results: jobs


def ignore(line):
    pass


# What a queue leaves


def test_every_job_leaves_a_record_of_all_that_was_asked(grid, served):
    results, runs, _, _ = served
    assert {p.stem for p in (runs / "grid").glob("*.json")} == {"0", "1", "wild"}
    for place, one in enumerate(grid[:2]):
        record = json.loads((runs / f"{one.name}.json").read_text())
        assert record == results[one.name]
        assert (record["name"], record["arm"], record["place"]) == (
            one.name,
            "b0",
            place,
        )
        assert record["config"] == to_dict(one.config)
        assert record["config_hash"] == config_hash(one.config)
        assert record["diverged"] is False
        assert 1 < record["bits_per_byte"] < 9
        assert record["steps"] == record["steps_of_state"] == STEPS
        assert record["tokens"] == STEPS * BATCH * 32
        matmuls = record["matmul_flops"]["forward_backward"]
        assert matmuls == record["tokens"] * train_flops(one.config.model, 32)
        assert record["seconds"]["train"] >= 0
        assert {"machine", "versions", "commit", "params_sha256"} <= record.keys()
    assert len({results[j.name]["params_sha256"] for j in grid[:2]}) == 2


def test_a_run_that_diverges_is_a_result(grid, served):
    record = served[0]["grid/wild"]
    assert record["bits_per_byte"] is None
    assert record["diverged"] is True
    assert re.search(r"is (nan|inf|not finite).* step \d", record["why"])
    assert record["config_hash"] == config_hash(grid[2].config)
    assert "steps_of_state" not in record
    assert "diverged" in served[2][2]


def test_runs_that_differ_in_traced_values_share_an_executable(served):
    assert served[3] == 1


def test_no_checkpoint_is_kept(served):
    _, runs, _, _ = served
    assert (runs / "grid" / "0" / "metrics.jsonl").exists()
    assert not [*runs.rglob("checkpoints")]


def test_the_same_queue_again_runs_nothing(grid, served, training):
    results, runs, _, _ = served
    said = []
    assert run_queue(always(*grid), runs, said.append) == results
    assert (training.calls, said) == ([], [])


# Plans


def test_a_plan_is_asked_again_after_every_run(base, training, tmp_path):
    """Doubles a rate until it gets worse; then wants a last run at the best one."""
    bits = {"1": 3.0, "2": 2.0, "4": 2.5, "last_2": 1.0}
    training.outcome = bits.__getitem__
    known = []

    def plan(results):
        known.append(sorted(results))
        jobs, rate = [job(base, "1")], 1
        while (record := results.get(str(rate))) and rate < 4:
            rate *= 2
            jobs.append(job(base, str(rate), seed=rate))
        if record:
            best = min(jobs, key=lambda one: results[one.name]["bits_per_byte"])
            jobs.append(job(base, f"last_{best.name}"))
        return jobs

    results = run_queue(plan, tmp_path, ignore)
    assert training.calls == ["1", "2", "4", "last_2"]
    assert {name: r["bits_per_byte"] for name, r in results.items()} == bits
    assert known[0] == []
    assert known[-1] == sorted(bits)
    assert run_queue(plan, tmp_path, ignore) == results
    assert len(training.calls) == 4


def test_all_that_is_there_is_read_before_anything_is_run(base, training, tmp_path):
    """Three in a row come before another one, also when the same command goes on."""

    def plan(results):
        chain = [job(base, str(i), seed=i) for i in range(1, 4)]
        known = next((i for i in range(3) if chain[i].name not in results), 2)
        return [*chain[: known + 1], job(base, "other", seed=9)]

    run_queue(lambda results: plan(results)[:-1][:2], tmp_path, ignore)
    training.calls.clear()
    run_queue(plan, tmp_path, ignore)
    assert training.calls == ["3", "other"]


def test_an_empty_plan_ends_at_once(tmp_path):
    assert run_queue(always(), tmp_path) == {}


def test_a_search_goes_on_past_what_diverged(base, training, tmp_path):
    training.outcome = {"a": None, "b": 2.0}.get
    wanted = [job(base, "a"), job(base, "b")]
    results = run_queue(
        lambda results: wanted[: 1 + ("a" in results)], tmp_path, ignore
    )
    assert results["a"]["bits_per_byte"] is None
    assert results["b"]["bits_per_byte"] == 2.0


# Stopped, and started again


def stop_at(monkeypatch, step):
    """SIGTERM comes during a step; `train` is called with checkpoints off."""
    real, steps = loop.chain_ids, []

    def chain(previous, ids):
        steps.append(None)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(previous, ids)

    monkeypatch.setattr(loop, "chain_ids", chain)
    return steps


def test_a_stopped_run_goes_on_bit_identical(grid, served, monkeypatch, tmp_path):
    one = grid[1]
    steps = stop_at(monkeypatch, 3)
    with pytest.raises(StoppedError, match="SIGTERM at step 3"):
        run_queue(always(one), tmp_path, ignore)
    assert not (tmp_path / "grid" / "1.json").exists()
    record = run_queue(always(one), tmp_path, ignore)[one.name]
    assert len(steps) == STEPS  # none was taken twice
    for key in ("params_sha256", "data_sha256", "bits_per_byte", "flops", "tokens"):
        assert record[key] == served[0][one.name][key], key
    assert not [*tmp_path.rglob("checkpoints")]


def test_a_run_that_ended_before_its_record_is_not_trained_again(
    grid, served, monkeypatch, tmp_path
):
    train(grid[0].config, tmp_path / "grid" / "0")
    steps = stop_at(monkeypatch, 99)
    record = run_job(grid[0], tmp_path)
    assert steps == []
    assert record["params_sha256"] == served[0]["grid/0"]["params_sha256"]
    assert record["steps_of_state"] == STEPS


# Records that don't fit


def one_line(error):
    return "\n" not in str(error.value)


def test_a_record_of_another_config_is_refused(base, training, tmp_path):
    run_queue(always(job(base, "a")), tmp_path, ignore)
    with pytest.raises(UserError, match=r"a\.json: of another config") as error:
        run_queue(always(job(base, "a", seed=5)), tmp_path, ignore)
    assert one_line(error)
    assert training.calls == ["a"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", "null", "\xff", '{"config_hash": 3'])
def test_a_broken_record_is_refused(base, training, tmp_path, text):
    (tmp_path / "a.json").write_text(text, "latin-1")
    with pytest.raises(UserError, match=r"a\.json: .*delete it to run") as error:
        run_queue(always(job(base, "a")), tmp_path, ignore)
    assert one_line(error)
    assert training.calls == []


def test_a_folder_that_cannot_be_made_is_one_line(base, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory") as error:
        run_queue(always(job(base, "a")), tmp_path / "file", ignore)
    assert one_line(error)


def test_a_job_without_a_record_has_none(base, tmp_path):
    assert read_result(job(base, "a"), tmp_path) is None


# Several workers


def test_a_job_that_another_has_is_left_to_it(base, training, monkeypatch, tmp_path):
    """The other worker ends its run while this one waits."""
    a, b = job(base, "a"), job(base, "b")
    theirs = {"bits_per_byte": 7.0, "config_hash": config_hash(a.config)}
    waits = []

    def sleep(seconds):
        waits.append([*training.calls])
        (tmp_path / "a.json").write_text(json.dumps(theirs))

    clock = types.SimpleNamespace(sleep=sleep, perf_counter=time.perf_counter)
    monkeypatch.setattr(runner, "time", clock)
    with claimed(tmp_path / "a.lock") as mine:
        assert mine
        results = run_queue(always(a, b), tmp_path, ignore)
    assert waits == [["b"]]  # b was done before there was need to wait
    assert training.calls == ["b"]
    assert results["a"] == theirs


def test_a_lock_is_held_once_and_given_back(tmp_path):
    for _ in range(2):
        with claimed(tmp_path / "x" / "a.lock") as first:
            with claimed(tmp_path / "x" / "a.lock") as second:
                assert (first, second) == (True, False)
            with claimed(tmp_path / "x" / "b.lock") as other:
                assert other


def test_the_lock_of_a_run_that_was_stopped_is_free(base, monkeypatch, tmp_path):
    def stopped(config, out, resume):
        raise StoppedError("stopped")

    monkeypatch.setattr(runner, "train", stopped)
    with pytest.raises(StoppedError):
        run_queue(always(job(base, "a")), tmp_path, ignore)
    with claimed(tmp_path / "a.lock") as mine:
        assert mine


def test_what_another_finished_meanwhile_is_read_not_run(
    base, training, monkeypatch, tmp_path
):
    """Its record appears after the look at the folder, before the lock is taken."""
    a, b = job(base, "a"), job(base, "b")
    theirs = {"bits_per_byte": 7.0, "config_hash": config_hash(b.config)}
    real = runner.finished

    def finished(*given):
        found = real(*given)
        (tmp_path / "b.json").write_text(json.dumps(theirs))
        return found

    monkeypatch.setattr(runner, "finished", finished)
    assert run_queue(always(b, a), tmp_path, ignore)["b"] == theirs
    assert training.calls == ["a"]


def test_two_workers_never_run_a_job_twice(base, training, monkeypatch, tmp_path):
    jobs = [job(base, str(i)) for i in range(12)]
    both, found = threading.Barrier(2, timeout=30), {}
    training.during = lambda: time.sleep(0.01)
    monkeypatch.setattr(runner, "WAIT", 0.01)

    def work(name):
        both.wait()
        found[name] = run_queue(always(*jobs), tmp_path, ignore)

    workers = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for one in workers:
        one.start()
    for one in workers:
        one.join(60)
    assert sorted(training.calls) == sorted(one.name for one in jobs)
    assert found["a"] == found["b"]
    assert found["a"].keys() == {one.name for one in jobs}


# Progress


def test_a_line_per_run_tells_the_time_that_is_left(
    base, training, monkeypatch, tmp_path
):
    """A clock that ticks 60 s per run of 4 steps, and 180 s per run of 12."""
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(runner, "time", clock)
    jobs = [job(base, "a"), job(base, "b", steps=3 * STEPS), job(base, "c")]

    def outcome(name):
        now[0] += 180 if name == "b" else 60
        return {"a": 1.23456, "b": 2.0}.get(name)

    training.outcome, said = outcome, []
    run_queue(always(*jobs), tmp_path, said.append)
    assert said == [
        "a  1.2346 bits per byte  [1 done, 2 known to come: 4 min 00 s]",
        "b  2.0000 bits per byte  [2 done, 1 known to come: 1 min 00 s]",
        "c  diverged  [3 done, 0 known to come: 0 s]",
    ]


def test_flops_of_a_job_are_those_of_its_steps(base, served):
    one = job(base, "a")
    matmuls = served[0]["grid/0"]["matmul_flops"]
    known = matmuls["forward_backward"] + matmuls.get("optimizer", 0)
    assert job_flops(one) == known
    assert Pace().seconds([one]) == 0


# Processes

WORKER = """
import pathlib, sys
*words, flag, worker = sys.argv[1:]
pathlib.Path(words[0], worker).write_text(" ".join([*words[1:], flag]))
sys.exit(3 if words[1] == "fail" and worker == "1" else 0)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that notes how it was started."""
    (tmp_path / "trivial_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "trivial_worker"


def test_workers_are_processes_of_the_same_command(module, tmp_path):
    serve(2, module, [str(tmp_path), "well", "--only", "clean"])
    for worker in "01":
        assert (tmp_path / worker).read_text() == "well --only clean --worker"


def test_a_worker_that_fails_is_one_line(module, tmp_path):
    with pytest.raises(UserError, match=r"ended with \[0, 3\]; the same com") as error:
        serve(2, module, [str(tmp_path), "fail"])
    assert one_line(error)
    assert (tmp_path / "0").exists()


def test_no_worker_outlives_an_interrupt(monkeypatch):
    started = []

    class Process:
        def __init__(self, command):
            self.command, self.done = command, []
            started.append(self)

        def wait(self):
            self.done.append("wait")
            if self.done == ["wait"]:
                raise KeyboardInterrupt
            return 0

        def terminate(self):
            self.done.append("terminate")

    monkeypatch.setattr(runner.subprocess, "Popen", Process)
    with pytest.raises(KeyboardInterrupt):
        serve(2, "module", ["word"])
    assert [one.done[-2:] for one in started] == [["terminate", "wait"]] * 2
    assert started[1].command == [
        *(sys.executable, "-m", "module", "word", "--worker", "1"),
    ]


def test_sigterm_ends_the_workers_before_their_parent(monkeypatch):
    ended = []

    class Process:
        def __init__(self, command):
            self.asked = False

        def wait(self):
            if not self.asked:
                os.kill(os.getpid(), signal.SIGTERM)
            ended.append(self)

        def terminate(self):
            self.asked = True

    monkeypatch.setattr(runner.subprocess, "Popen", Process)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="the same command goes on"):
        serve(2, "module", ["word"])
    assert len(set(ended)) == 2
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_worker_keeps_to_one_core():
    """In a thread of its own, as nothing gives the cores back."""
    before, found = sorted(os.sched_getaffinity(0)), []

    def look(worker):
        pin(worker)
        found.append(os.sched_getaffinity(0))

    for worker in range(len(before) + 1):
        thread = threading.Thread(target=look, args=(worker,))
        thread.start()
        thread.join()
    assert found == [{core} for core in (*before, before[0])]
    assert sorted(os.sched_getaffinity(0)) == before


def test_a_job_is_a_value(base):
    one = job(base, "a", labels=(("arm", "b0"),))
    assert one == dataclasses.replace(one)
    assert hash(one) == hash(dataclasses.replace(one))


def test_a_signal_in_the_last_step_of_a_run_ends_the_queue(base, training, tmp_path):
    """The run itself is done by then, and its record is kept."""

    def outcome(name):
        with Interrupts():  # as `train` has one
            signal.raise_signal(signal.SIGTERM)
        return 2.0

    training.outcome = outcome
    jobs = [job(base, "a"), job(base, "b")]
    with pytest.raises(StoppedError, match="stopped by SIGTERM; the same command"):
        run_queue(always(*jobs), tmp_path, ignore)
    assert training.calls == ["a"]
    assert (tmp_path / "a.json").exists()
