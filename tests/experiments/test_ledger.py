import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxpr_as_fun

from experiments import ledger
from experiments.records import read_record
from uets_jax.measure.jaxpr import count
from uets_jax.measure.work import Cost

MATMULS = tuple(ledger.matmul_cases())


@pytest.mark.parametrize("name", MATMULS)
def test_matmul_programs_agree_with_xla_and_their_closed_form(name):
    [row] = ledger.rows(steps=(), matmuls=(name,))
    assert row["kind"] == "matmul"
    assert row["matmul_error_closed_form"] == 0
    assert abs(row["total_error_cost_analysis"]) < 0.01
    assert row["total_flops"] > 1e5


@pytest.mark.parametrize("name", ["modern tiny lion", "gpt2 tiny adamw remat"])
def test_whole_steps_agree_with_xla(name):
    [row] = ledger.rows(steps=(name,), matmuls=())
    assert row["kind"] == "step"
    assert row["matmul_error_closed_form"] == 0
    assert abs(row["total_error_lowered"]) < 0.01
    assert abs(row["total_error_cost_analysis"]) < 0.05
    assert abs(row["elementwise_error_cost_analysis"]) < 0.3


def test_the_table_is_as_large_as_was_promised():
    assert len(MATMULS) >= 5
    assert len(ledger.STEPS) >= 6
    words = " ".join(ledger.STEPS)
    for word in ("modern", "gpt2", "adamw", "muon", "lion", "remat", "tiny", "nano"):
        assert word in words


def test_xla_counts_a_loop_once_and_its_unrolled_form_fully():
    case = ledger.matmul_cases()["scan of 10 matmuls"]
    traced = jax.make_jaxpr(case.function)(*case.arguments)
    assert case.closed_form is not None
    rolled = jax.jit(case.function).lower(*case.arguments).cost_analysis()
    assert rolled is not None
    assert rolled["flops"] < 0.2 * case.closed_form
    flat = jax.jit(jaxpr_as_fun(ledger.unrolled(traced)))
    found = flat.lower(*case.arguments).cost_analysis()
    assert found is not None
    assert found["flops"] == case.closed_form


def test_unrolling_changes_no_value_and_no_count():
    def step(c, w):
        inner = jax.checkpoint(lambda c: jnp.tanh(c @ w))
        return jax.lax.scan(lambda c, _: (inner(c), None), c, length=2)[0], c.sum()

    function = jax.grad(lambda x, ws: jax.lax.scan(step, x, ws)[0].sum(), argnums=1)
    args = jnp.ones((3, 4)), jnp.full((5, 4, 4), 0.3)
    traced = jax.make_jaxpr(function)(*args)
    flat = ledger.unrolled(traced)
    assert count(flat) == count(traced)
    [value] = jaxpr_as_fun(flat)(*args)
    assert jnp.allclose(value, function(*args), rtol=1e-5)


def test_the_record_holds_every_program(tmp_path, monkeypatch, capsys):
    row = ledger.row("a", "matmul", ledger.matmul_cases()["matmul"])
    monkeypatch.setattr(ledger, "rows", lambda: [row])
    assert ledger.main(["--out", str(tmp_path)]) == 0
    record = read_record("foundation.ledger", tmp_path)
    assert record["rows"] == [row]
    assert record["command"] == f"python -m experiments.ledger --out {tmp_path}"
    assert "+0.0000" in capsys.readouterr().out


def test_a_cost_sums_to_what_the_row_says():
    case = ledger.matmul_cases()["convolution"]
    cost = count(jax.make_jaxpr(case.function)(*case.arguments)).total()
    whole = sum(cost.values(), start=Cost())
    assert ledger.row("a", "matmul", case)["total_flops"] == whole.total
