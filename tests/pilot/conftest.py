"""Plans without tracing, and runs without training."""

import types

import pytest

from uets_jax.config import replace_from_dict
from uets_jax.errors import NonFiniteLossError
from uets_jax.pilot import plan, recipe, runs
from uets_jax.train.budget import Spending
from uets_jax.validation import validate

STEP, STATISTICS, COUNTS = 10**6, 2 * 10**7, 5 * 10**7


@pytest.fixture(scope="session")
def given(tiny, corpus):
    """A full run of 1,000 steps with Muon on the small corpus."""
    values = {
        "data": {"source": f"files:{corpus}/*.txt"},
        "model": {"vocab": 257},
        "optim": {"name": "muon", "warmup": 100},
        "train": {"steps": 1000},
    }
    return replace_from_dict(tiny, values)


def start_of(config) -> int:
    return STATISTICS * (config.select.method == "aql") + COUNTS * (
        config.train.start == "counts"
    )


@pytest.fixture
def free(monkeypatch):
    """A step costs `step` FLOPs; nothing is read or traced."""

    def session(config):
        store = types.SimpleNamespace(fingerprint="corpus")
        return types.SimpleNamespace(config=validate(config), store=store)

    def spending(config):
        return Spending(start_of(validate(config)), STEP * config.train.steps)

    steps = lambda config, flops: int((flops - start_of(config)) / STEP)
    monkeypatch.setattr(plan, "open_session", session)
    monkeypatch.setattr(plan, "spending", spending)
    monkeypatch.setattr(plan, "steps_for", steps)
    monkeypatch.setattr(recipe, "steps_for", steps)
    return types.SimpleNamespace(step=STEP, statistics=STATISTICS, counts=COUNTS)


@pytest.fixture
def planted(monkeypatch):
    """Instead of training: losses by a law of the config; `calls` has the folders.

    `law` may be replaced: (config) -> bits per byte, None: diverges.
    """

    class Planted:
        calls: list = []  # noqa: RUF012
        law = staticmethod(lambda config: 3.0)

    def train(config, out, resume=False):
        Planted.calls.append((out, resume))
        bits = Planted.law(config)
        (out / "checkpoints").mkdir(parents=True)
        print("what a run says")
        if bits is None:
            line = '{"step": 1, "flops": 7, "seconds": 0.5}\n'
            (out / "metrics.jsonl").write_text(line)
            raise NonFiniteLossError(f"{out}: loss is nan")
        steps = STEP * config.train.steps
        flops = {"forward_backward": steps, "statistics": start_of(config)}
        summary = {
            "bits_per_byte": bits,
            "steps": config.train.steps,
            "tokens": 0,
            "flops": {**flops, "evaluation": 11},
            "seconds": {"train": steps / 1e8, "compile": 1.0},
            "params_sha256": "p",
        }
        return types.SimpleNamespace(summary=summary)

    Planted.calls = []
    monkeypatch.setattr(runs.loop, "train", train)
    return Planted
