import json

import pytest

from experiments import (
    aql_overhead,
    aql_shares,
    aql_stream,
    aql_uncertainty,
    aql_v2,
    arms,
)
from experiments.aql_plan import TABLES
from experiments.aql_v2 import ALONE, main

REFERENCE = {"training_flops": 1e9, "flops_per_token": 10.0, "bits_per_byte": 2.5}


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Nothing is trained: a run's bits are those of its budget; calls are kept."""
    calls = {"made": [], "reference": [], "served": [], "pinned": []}
    stores = tmp_path / "stores"
    stores.mkdir()
    for name in ("b3.target.0.15", "b3.blind.0.3"):
        (stores / f"{name}.json").write_text(json.dumps({"statistics_flops": 10**9}))

    def run_queue(plan, runs):
        results = {}
        while left := [job for job in plan(results) if job.name not in results]:
            for job in left:
                budget = dict(job.labels)["budget_units"]
                results[job.name] = {
                    "bits_per_byte": 1.5 + budget**-0.25,
                    "tokens": int(budget * 10**6),
                    "flops": {"forward_backward": int(budget * 10**12)},
                    "config": {"select": {"method": job.config.select.method}
                               | {"candidates": job.config.select.candidates}},
                }  # fmt: skip
        return results

    made = lambda name: lambda *given: calls["made"].append(name)
    monkeypatch.setattr(arms, "step_flops", lambda arm, depth, batch: 10**8 * batch)
    monkeypatch.setattr(aql_v2.tracks, "clean", made("clean"))
    monkeypatch.setattr(aql_v2.tracks, "mixture", made("mixture"))
    monkeypatch.setattr(aql_v2.cleaning, "prepare", made("cleaned"))
    monkeypatch.setattr(aql_v2, "run_queue", run_queue)
    monkeypatch.setattr(aql_v2, "pin", calls["pinned"].append)
    monkeypatch.setattr(aql_v2, "serve", lambda *given: calls["served"].append(given))
    reference = lambda *given: calls["reference"].append(given) or REFERENCE
    monkeypatch.setattr(aql_v2.aql_reference, "reference", reference)
    words = ["--stores", str(stores), "--runs", str(tmp_path / "runs")]
    return [*words, "--out", str(tmp_path / "results")], calls


def records(tmp_path):
    return {path.stem: json.loads(path.read_text())
            for path in (tmp_path / "results").glob("*.json")}  # fmt: skip


def test_every_table_that_is_asked_for_is_written(world, tmp_path):
    words, calls = world
    asked = [x for name in TABLES for x in ("--only", name)]
    assert main([*words, *asked]) == 0
    found = records(tmp_path)
    assert found.keys() == {f"aql.{name}" for name in TABLES}
    assert calls["made"] == ["clean", "mixture", "cleaned"]
    assert len(calls["reference"]) == 1
    rows = {(r["arm"], r["mode"]): r for r in found["aql.mixture"]["rows"]}
    assert rows["uniform", None]["tokens_ratio_uniform"] == pytest.approx(1.0)
    assert {m for name, m in rows if name == "aql_v2"} == {"target", "blind"}
    record = found["aql.parts"]
    assert record["command"].startswith("python -m experiments.aql_v2 --stores")
    assert record["config"]["reference"] == REFERENCE
    assert all(r["difference_to_aql_v2"] == 0 for r in record["rows"][1:])
    assert {r["mode"] for r in found["aql.tables"]["rows"]} == {"target", "blind"}


def test_a_table_alone_is_written_alone_and_without_a_reference(world, tmp_path):
    words, calls = world
    assert main([*words, "--only", "parts", "--seeds", "2"]) == 0
    found = records(tmp_path)
    assert found.keys() == {"aql.parts"}
    rows = {row["arm"]: row for row in found["aql.parts"]["rows"]}
    assert rows["high loss"]["difference_to_aql_v2"] == 0
    assert rows["aql_v2"]["seeds"] == 2
    assert calls["reference"] == []


def test_workers_serve_the_queue(world, tmp_path):
    words, calls = world
    asked = [*words, "--only", "clean", "--workers", "2"]
    assert main(asked) == 0
    assert calls["served"] == [(2, "experiments.aql_v2", asked)]
    assert main([*asked, "--worker", "1"]) == 0
    assert calls["pinned"] == [1]
    assert len(calls["made"]) == 3  # a worker makes no data


def test_scripts_of_their_own_get_the_words_that_they_know(world, monkeypatch):
    words, _ = world
    stores, given = words[1], {}
    scripts = (aql_overhead, aql_uncertainty, aql_stream, aql_shares)
    for script in scripts:
        name = script.__name__.rpartition("aql_")[2]
        keep = lambda words, name=name: given.update({name: words}) or 0
        monkeypatch.setattr(script, "main", keep)
    assert main([*words, *(x for name in ALONE for x in ("--only", name))]) == 0
    assert {*given} == {*ALONE}
    assert str(aql_shares.parser().parse_args(given["shares"]).stores) == stores
    parsed = aql_uncertainty.parser().parse_args(given["uncertainty"])
    assert str(parsed.stores) == stores
    assert f"tokens:{stores}/mixture.a" in given["overhead"]
    assert {w for w in given["stream"] if w.startswith("--")} == {
        "--out", "--runs", "--data-dir"
    }  # fmt: skip
    monkeypatch.setattr(aql_stream, "main", lambda words: 3)
    assert main([*words, "--only", "stream"]) == 2


def test_bad_numbers_end_in_a_line(capsys):
    for word in ("--seeds", "--workers", "--unit"):
        assert main([word, "0"]) == 2
        assert "must be above 0" in capsys.readouterr().err
