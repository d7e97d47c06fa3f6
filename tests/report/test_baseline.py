import json

import pytest

from uets_jax.config import ExperimentConfig, OptimConfig, to_json
from uets_jax.errors import UserError
from uets_jax.report.baseline import baseline_of

SUMMARY = {
    "name": "b2m",
    "corpus_sha256": "c",
    "tokenizer_sha256": "t",
    "machine": "cpu-2",
    "bytes": {"step_peak": 1000},
}


def stored(folder, steps, schedule="wsd", **summary):
    """The folder of a run whose rate falls after its third step."""
    config = ExperimentConfig(optim=OptimConfig(schedule=schedule))
    (folder / "config.json").write_text(to_json(config))
    (folder / "summary.json").write_text(json.dumps({**SUMMARY, **summary}))
    records = [
        {
            "step": n,
            "loss": 5.0 - n,
            "learning_rate": 0.02 if n < 4 else 0.01,
            "tokens": 10 * n,
            "flops": 1000 * n,
            "seconds": 0.5 * n,
        }
        for n in range(1, steps + 1)
    ]
    lines = "".join(json.dumps(r) + "\n" for r in records)
    (folder / "metrics.jsonl").write_text(lines)
    return folder


def test_it_is_what_came_before_the_decay(tmp_path):
    found = baseline_of(stored(tmp_path, 4))
    assert (found.name, found.peak_bytes, found.valid) == ("b2m", 1000, None)
    assert found.train is not None
    assert len(found.train.quality) == 3
    assert found.train.quality[0] == 4.0
    assert found.setting.machine == "cpu-2"
    assert found.setting.length == ExperimentConfig().model.context
    assert baseline_of(tmp_path, "other").name == "other"


WRONG = [
    ({"steps": 4, "schedule": "cosine"}, "schedule cosine has no undecayed part"),
    ({"steps": 1}, "fewer than two losses"),
    ({"steps": 4, "corpus_sha256": None}, "no corpus_sha256; finish the run"),
]


@pytest.mark.parametrize(("how", "why"), WRONG)
def test_a_run_that_can_not_be_one_is_refused(how, why, tmp_path):
    with pytest.raises(UserError, match=why):
        baseline_of(stored(tmp_path, **how))
