"""Strict numerics, eight virtual devices and one TINY config for every test."""

import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("UETS_CACHE", str(pathlib.Path(tempfile.gettempdir(), "uets_jax_tests")))

import jax
import pytest

from uets_jax.config import DataConfig, ExperimentConfig, OptimConfig, TrainConfig
from uets_jax.models.presets import model_config

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

TINY = ExperimentConfig(
    name="tiny",
    data=DataConfig(tokenizer="bytes", valid_fraction=0.1),
    model=model_config("modern", "tiny", vocab=64),
    optim=OptimConfig(name="adamw", learning_rate=3e-3, warmup=5),
    train=TrainConfig(
        steps=8,
        batch=8,
        eval_every=4,
        eval_tokens=2048,
        checkpoint_every=4,
        log_every=4,
        samples=1,
        sample_tokens=8,
    ),
)


@pytest.fixture
def key():
    """The root of all randomness of a test."""
    return jax.random.key(0)


@pytest.fixture
def tiny() -> ExperimentConfig:
    """The one small config that tests share, so that they share executables."""
    return TINY
