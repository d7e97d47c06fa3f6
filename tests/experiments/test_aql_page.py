import numpy as np
import pytest

from experiments import aql_page
from experiments.page import write
from experiments.records import write_record
from uets_jax.curriculum.stages import STAGES
from uets_jax.data.mixture import KINDS
from uets_jax.errors import UserError

POINT = {"method": "laplace", "features": "final", "score": "reliability"}
POINT |= {"group": "target", "confidence": 0.5, "accuracy": 0.25, "predictions": 4}
SCORES = {
    "target": {1: np.array([0.0, 1.0, -4.5e6]), 9: np.arange(3.0)},
    "blind": {1: np.full(3, -np.inf)},
}
STAGE = {f"share_{name}": 0.25 for name in STAGES} | {"stage_high": 0.5}
STAGE |= {f"threshold_{name}": 0.5 for name in STAGES[1:]} | {"difficulty": 0.2}
METRICS = [{f"curriculum_{name}": value for name, value in STAGE.items()}]


def shares(mode, tenth, unique):
    found = {f"{kind}_share": 0.1 for kind in KINDS} | {"unique_share": unique}
    found |= {"windows": 10, "repeated_share": 0.0, "copied_share": 0.25}
    return {"mode": mode, "tenth": tenth, **found}


ROWS = [shares(None, None, 0.1)]
ROWS += [shares(mode, t, 0.5) for mode in ("target", "blind") for t in (1, 2, None)]


def test_the_page_holds_all_and_loads_nothing(tmp_path):
    page = aql_page.page(ROWS, SCORES, METRICS, [POINT])
    text = write(page, tmp_path / "runs" / "report.html", "make me").read_text("utf-8")
    for title in ("Kinds of text", "Scores in the", "Stages of a", "Calibration of"):
        assert f"<h2>{title}" in text
    assert text.count("<svg") == 2 + 2 + 2 + 1
    assert "http://www.w3.org/2000/svg" in text
    assert "<script" not in text
    assert " src=" not in text
    assert (
        "<strong>10%</strong> of the pool, <strong>50%</strong> of what mode target"
        in (text)
    )


def test_what_was_not_measured_is_not_there(tmp_path):
    text = write(aql_page.page(ROWS, {}, [], []), tmp_path / "x", "make me").read_text()
    assert "Scores in the buffer" not in text
    assert "Stages of a curriculum" not in text
    assert "aql.uncertainty holds no reliability" in text


def test_diagrams_are_read_from_the_record(tmp_path):
    assert aql_page.diagrams(tmp_path) == []
    rows = [{"method": "laplace", "score": "bald", "features": "final"}, POINT]
    write_record("aql.uncertainty", rows, "a command", {}, out=tmp_path)
    assert aql_page.diagrams(tmp_path) == [POINT]
    (tmp_path / "aql.uncertainty.json").write_text("{")
    with pytest.raises(UserError, match=r"aql\.uncertainty\.json"):
        aql_page.diagrams(tmp_path)
