"""Strict numerics, eight virtual devices and one TINY config for every test."""

import functools
import importlib.util
import mmap
import os
import pathlib
import tempfile


def known_to_xla(flag: str) -> bool:
    """Whether the installed jaxlib has the flag: an unknown one ends the process."""
    spec = importlib.util.find_spec("jaxlib")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for path in (p for f in folders for p in pathlib.Path(f).glob("*.so*")):
        if path.stat().st_size > 1 << 26:
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library,
            ):
                if library.find(flag.encode()) >= 0:
                    return True
    return False


os.environ.setdefault("JAX_PLATFORMS", "cpu")
CACHE = pathlib.Path(tempfile.gettempdir(), f"uets_jax_tests_{os.getuid()}")
os.environ.setdefault("UETS_CACHE", str(CACHE))
# each program runs but a few times, so most of a test is its compilation
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
if "XLA_FLAGS" not in os.environ:  # workers and subprocesses inherit it
    quick = {
        "xla_cpu_use_fusion_emitters": "false",  # four times as fast to compile
        "xla_cpu_parallel_codegen_split_count": "1",
    }
    os.environ["XLA_FLAGS"] = " ".join(
        f"--{flag}={value}" for flag, value in quick.items() if known_to_xla(flag)
    )

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.build import build, initial_state
from uets_jax.config import (
    DataConfig,
    ExperimentConfig,
    MeshConfig,
    OptimConfig,
    TrainConfig,
)
from uets_jax.models.presets import model_config
from uets_jax.types import IGNORED, Batch

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_compilation_cache_dir", os.environ["UETS_CACHE"] + "/xla")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# The machine may be busy: properties are checked without a stop-watch.
hypothesis.settings.register_profile("calm", deadline=None)
hypothesis.settings.load_profile("calm")

VOCAB = 64
TINY = ExperimentConfig(
    name="tiny",
    data=DataConfig(tokenizer="bytes", valid_fraction=0.1),
    model=model_config("modern", "tiny", vocab=VOCAB),
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
        mesh=MeshConfig(data=1),
    ),
)


@pytest.fixture(scope="module", autouse=True)
def few_programs_at_once():
    """Lets go of a module's programs: each keeps an MLIR context alive, and the more
    there are, the longer it takes to make another.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    """The root of all randomness of a test."""
    return jax.random.key(0)


@pytest.fixture(scope="session")
def tiny() -> ExperimentConfig:
    """The one small config that tests share, so that they share executables."""
    return TINY


@pytest.fixture(scope="session")
def program(tiny):
    """TINY's program."""
    return build(tiny)


@pytest.fixture
def state(tiny, program):
    """TINY's state before the first step."""
    return jax.jit(functools.partial(initial_state, tiny, program))()


@pytest.fixture(scope="session")
def batch() -> Batch:
    """Eight rows of 32 random tokens; the last target of each row is ignored."""
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, VOCAB, (8, 33)), jnp.int32)
    targets = tokens[:, 1:].at[:, -1].set(IGNORED)
    segments = jnp.asarray(np.arange(32) // 20, jnp.int32)[None, :].repeat(8, 0)
    return Batch(tokens[:, :-1], targets, jnp.arange(8, dtype=jnp.int32), segments)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> pathlib.Path:
    """A folder with a small text corpus of 40 documents."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "and",
        "the",
        "dog",
        "ran",
        "to",
        "the",
        "red",
        "house",
        "by",
        "the",
        "sea",
    ]
    for number in range(40):
        text = " ".join(rng.choice(words, 200))
        (folder / f"{number:02d}.txt").write_text(f"Document {number}. {text}.\n")
    return folder
