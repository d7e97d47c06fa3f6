from experiments.baseline_sentence import sentence
from experiments.records import read_record
from experiments.tables import README


def row(arm, track, mode, ratio, low=None, high=None):
    return {
        "arm": arm,
        "track": track,
        "mode": mode,
        "flops_ratio_b0": ratio,
        "flops_ratio_b0_ci_low": 27.9,
        "flops_ratio_b0_t_low": low,
        "flops_ratio_b0_t_high": high,
    }


def target(name, arm, track, mode, bits):
    return {
        "target": name,
        "arm": arm,
        "track": track,
        "mode": mode,
        "bits_per_byte": bits,
    }


def test_every_t2_is_told_with_its_factor_over_b0():
    baselines = [
        row("b0", "clean", None, 1.0),
        row("b2m", "clean", None, 12.34, 11.5, 13.2),
        row("b3", "mixture", "blind", None),
    ]
    targets = [
        target("T1", "b0", "clean", None, 2.0),
        target("T2", "b2m", "clean", None, 1.6616),
        target("T2", "b3", "mixture", "blind", 1.8),
    ]
    said = sentence(baselines, targets)
    known = "1.662 bits per byte on clean by `b2m`, which needs 12.3 [11.5, 13.2] times"
    assert known in said
    assert "on mixture by `b3` (blind), which needs over 27 times fewer" in said
    assert "2.000" not in said


def test_the_readme_says_what_the_records_say():
    rows = [
        read_record(f"foundation.{name}")["rows"] for name in ("baselines", "targets")
    ]
    page = " ".join(README.read_text("utf-8").split())
    assert " ".join(sentence(*rows).split()) in page
