import pytest

from experiments import bench_arms
from uets_jax.errors import UserError


@pytest.fixture
def free_steps(monkeypatch):
    """Configs without stores: a step costs 1e9, statistics 2e10 with a start."""

    def steps(config, flops):
        left = flops - (2e10 if config.train.start == "counts" else 0)
        if left < 1e9:
            raise UserError("flops: too few")
        return round(left / 1e9)

    monkeypatch.setattr(bench_arms, "steps_for", steps)
    bench_arms.steps_of.cache_clear()
