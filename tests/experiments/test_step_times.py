import dataclasses
import json

import jax
import pytest

from experiments import step_times
from experiments.step_times import StepTime, step_time, timed
from uets_jax.errors import UserError
from uets_jax.models.presets import from_dict


@pytest.fixture
def uncached():
    """No executable comes from the disk, as in the process of its own."""
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", True)


@pytest.mark.usefixtures("uncached")
def test_a_step_is_timed_and_compiled(tiny, corpus):
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(tiny.model, vocab=263)  # no other test compiles it
    found = timed(dataclasses.replace(tiny, data=data, model=model))
    assert 0 < found.step_seconds < found.compile_seconds
    assert found.peak_bytes > 0


def test_a_process_of_its_own_has_no_cache_and_gets_the_config(tiny, monkeypatch):
    started = []

    def run(command, env, stdout):
        started.append(env["JAX_ENABLE_COMPILATION_CACHE"])
        with open(command[-1]) as stream:
            assert from_dict(json.load(stream)) == tiny
        found = {"step_seconds": 1.0, "compile_seconds": 2.0, "peak_bytes": 3}
        said = f"said before\n{json.dumps(found)}\n".encode()
        return step_times.subprocess.CompletedProcess(command, len(started) - 1, said)

    monkeypatch.setattr(step_times.subprocess, "run", run)
    assert step_time(tiny) == StepTime(1.0, 2.0, 3)
    assert started == ["false"]
    with pytest.raises(UserError, match="its step could not be timed"):
        step_time(tiny)
