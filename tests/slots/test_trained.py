import pytest

from uets_jax.config import replace_from_dict
from uets_jax.measure.baseline import save_baseline
from uets_jax.report.baseline import baseline_of
from uets_jax.slots.trained import Report
from uets_jax.train.loop import train


@pytest.fixture
def config(tiny, corpus):
    """TINY on the small corpus."""
    source = {"source": f"files:{corpus}/*.txt"}
    return replace_from_dict(tiny, {"data": source, "model": {"vocab": 257}})


def test_the_monitor_of_a_report_compares_what_the_run_did(config, tmp_path):
    train(config, tmp_path / "run")
    save_baseline(tmp_path / "b.json", baseline_of(tmp_path / "run"))
    named = replace_from_dict(config, {"train": {"baseline": str(tmp_path / "b.json")}})
    summary = train(named, tmp_path / "again").summary
    report = Report(tmp_path / "again" / "report.html", summary)
    assert "ahead of tiny" in report.monitor().line()
    assert "ahead of tiny" in summary["baseline"]["at_end"]
    assert report._replace(own=("forward",)).monitor().line() == ""
    bare = {k: v for k, v in summary.items() if k != "baseline"}
    assert report._replace(summary=bare).monitor().line() == ""
