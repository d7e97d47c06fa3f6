import dataclasses

import pytest

from experiments.uncertainty_cost import uncertainty_rows
from uets_jax.aql.make import PASSES
from uets_jax.train.session import open_session


@pytest.fixture(scope="module")
def rows(tiny, corpus):
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(tiny.model, vocab=257, dropout=0.1)
    config = dataclasses.replace(tiny, data=data, model=model)
    return {row["arm"]: row for row in uncertainty_rows(open_session(config), 2)}


def test_laplace_costs_a_share_of_mc_dropout(rows, tiny):
    [reference] = [row for name, row in rows.items() if "mc_dropout" in name]
    for name in ("laplace alone", "laplace with a pass alone"):
        row = rows[name]
        ratio = reference["row_flops"] / row["row_flops"]
        assert row["laplace_cheaper_flops"] == pytest.approx(ratio)
        seconds = reference["row_seconds"] / row["row_seconds"]
        assert row["laplace_cheaper_seconds"] == pytest.approx(seconds)
    assert rows["laplace with a pass alone"]["laplace_cheaper_flops"] > PASSES / 2
