"""Train steps that tests of different walks share, each traced once."""

import dataclasses
import functools

import pytest

from uets_jax.build import build
from uets_jax.config import OptimConfig
from uets_jax.models.presets import model_config
from uets_jax.train.executable import shapes, trace_step
from uets_jax.train.mesh import make_mesh


@pytest.fixture(scope="session")
def step_of(tiny):
    """(config, its traced step) of a preset, a rule and other settings."""

    @functools.cache
    def made(preset, optimizer, rows=8, parts=1, vocab=64, **model):
        config = dataclasses.replace(
            tiny,
            model=model_config(preset, "tiny", vocab=vocab, **model),
            optim=OptimConfig(name=optimizer),
            train=dataclasses.replace(tiny.train, batch=rows, microbatches=parts),
        )
        mesh = make_mesh(config.train.mesh)
        return config, trace_step(build(config), mesh, shapes(config))

    return made
