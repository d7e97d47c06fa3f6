from experiments.bench_tables import sorted_rows
from uets_jax.config import to_dict


def test_rows_of_a_stage_carry_what_finds_them_again(tiny):
    run = {
        "name": "b",
        "stage": "final",
        "diverged": True,
        "bits_per_byte": None,
        "config": to_dict(tiny),
        "config_hash": "x",
    }
    results = {"b": run, "a": {**run, "name": "a"}, "c": {**run, "stage": "trial"}}
    rows = sorted_rows(results, "final")
    assert len(rows) == 2
    assert len({row["settings_hash"] for row in rows}) == 1
    assert all("config" not in row for row in rows)
