import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import bench_counts
from experiments.bench_again import find
from experiments.bench_counts import ARMS, row, rows
from experiments.bench_plan import Options
from uets_jax.evaluate.perplexity import target_bytes
from uets_jax.models.backoff import Backoff, backoff_tables
from uets_jax.train.counting import counted_text
from uets_jax.train.session import open_session
from uets_jax.types import IGNORED

PLACE = ("clean", "")


@pytest.fixture
def options(tiny, corpus, tmp_path, monkeypatch):
    """Of a ladder whose every rung is a tiny model with counts."""
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(
        tiny.model, vocab=0, backoff_order=4, backoff_pairs=1 << 12
    )
    train = dataclasses.replace(tiny.train, start="counts")
    config = dataclasses.replace(tiny, data=data, model=model, train=train)
    monkeypatch.setattr(bench_counts, "configure", lambda *_: config)
    found = Options(tmp_path, {PLACE: (2.0, 1.7)}, ("clean",), unit=1e12)
    return found, config


def test_a_row_is_the_loss_of_the_counts_alone(options, tmp_path):
    """By the chances that the tables give, place by place."""
    options, config = options
    found = row(find("clean/+ backoff"), options, tmp_path)
    session = open_session(config)
    text = counted_text(session.windows, 0)
    tables = jax.tree.map(jnp.asarray, backoff_tables(session.config.model, text))
    counts = Backoff(session.config.model)
    chances = jax.jit(
        lambda batch: counts.apply({"params": tables}, batch.tokens, batch.segments).at(
            batch.targets
        )
    )
    bits = 0.0
    for batch in session.evaluation("valid"):
        told = batch.targets != IGNORED
        bits -= np.log2(np.asarray(chances(batch))[told]).sum()
    token_bytes = session.store.tokenizer.token_bytes
    size = target_bytes(session.evaluation("valid"), token_bytes)
    assert found["bits_per_byte"] == pytest.approx(bits / size, rel=1e-4)
    assert found["t2_bits_per_byte"] == 1.7
    assert found["tokens_counted"] == len(session.store.tokens("train")) - 1
    assert found["units"] == found["statistics_flops"] / 1e12 > 0
    assert found["blimp_accuracy"] is None


def test_every_text_of_the_tracks_has_a_row(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_counts, "row", lambda rung, *_: {"path": rung.path})
    both = Options(tmp_path, {}, ("clean", "mixture"))
    asked = [path for paths in ARMS.values() for path in paths]
    assert [r["path"] for r in rows(both, tmp_path)] == asked
    assert len(rows(Options(tmp_path, {}, ("clean",)), tmp_path)) == 1
