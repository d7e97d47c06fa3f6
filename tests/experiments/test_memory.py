import pytest

from experiments import memory
from experiments.records import read_record
from uets_jax.config import to_dict


def rows(*errors, kind="tuned"):
    return [{"program": f"p{e}", "kind": kind, "error": e} for e in errors]


def test_the_grid_is_as_large_as_was_promised():
    tuned, held_out = memory.tuned(), memory.held_out()
    assert len(tuned) >= 24
    assert len(held_out) >= 6
    assert not tuned.keys() & held_out.keys()
    words = " ".join(tuned)
    for word in ("modern", "gpt2", "adamw", "muon", "tiny", "nano", "14M", "remat"):
        assert word in words
    words = " ".join(held_out)
    for word in ("lion", "swiglu", "kv_heads", "mask_documents", "bfloat16"):
        assert word in words


def test_a_name_says_what_the_config_is():
    [(name, config)] = memory.step(
        "gpt2", "tiny", "lion", 8, 2, remat=True, mask_documents=False
    ).items()
    assert name == "gpt2 tiny lion 8/2 remat=True"
    model = config.model
    assert (model.preset, model.size, model.remat) == ("gpt2", "tiny", True)
    assert (model.vocab, config.optim.name) == (257, "lion")
    assert (config.train.batch, config.train.microbatches) == (8, 2)


def test_a_row_has_both_figures(tiny):
    found = memory.row("a", "tuned", tiny)
    ratio = found["estimate_bytes"] / found["compiled_bytes"]
    assert found["error"] == pytest.approx(ratio - 1)
    assert abs(found["error"]) < 0.25
    params = 4 * 28_000  # of which a step keeps three copies at least
    assert min(found["estimate_bytes"], found["compiled_bytes"]) > 3 * params


def test_the_summary_has_median_and_worst_of_each_kind():
    found = memory.summary([*rows(0.1, -0.3, 0.2), *rows(-0.01, kind="held out")])
    assert found[0] == {
        "kind": "tuned",
        "programs": 3,
        "median_error": 0.2,
        "worst_error": -0.3,
        "worst_program": "p-0.3",
    }
    assert [r["kind"] for r in found] == ["tuned", "held out"]
    assert found[1]["worst_error"] == -0.01
    assert [r["kind"] for r in memory.summary(rows(0.1))] == ["tuned"]


def test_the_record_holds_every_program(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "tuned", lambda: {"first": tiny})
    monkeypatch.setattr(memory, "held_out", lambda: {"second": tiny})
    monkeypatch.setattr(memory, "step_memory", lambda config, device: {"all": 90})
    monkeypatch.setattr(memory, "compiled_bytes", lambda config: 100)
    assert memory.main(["--out", str(tmp_path)]) == 0
    record = read_record("foundation.memory", tmp_path)
    kinds = [(r["program"], r["kind"]) for r in record["rows"]]
    assert kinds == [("first", "tuned"), ("second", "held out")]
    assert record["rows"][0]["error"] == pytest.approx(-0.1)
    assert record["config"]["second"] == to_dict(tiny)["model"]
    short = read_record("foundation.memory_summary", tmp_path)["rows"]
    assert short[1]["worst_program"] == "second"
    assert short[1]["worst_error"] == pytest.approx(-0.1)
    assert "-0.100" in capsys.readouterr().out
