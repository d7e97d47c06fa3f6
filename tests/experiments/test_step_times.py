import dataclasses

import jax

from experiments.step_times import step_time


def test_a_step_is_timed_and_compiled_without_a_cache(tiny, corpus):
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(tiny.model, vocab=257)
    before = jax.config.jax_enable_compilation_cache
    found = step_time(dataclasses.replace(tiny, data=data, model=model))
    assert 0 < found.step_seconds < found.compile_seconds
    assert found.peak_bytes > 0
    assert jax.config.jax_enable_compilation_cache == before
