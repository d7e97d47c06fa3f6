from experiments.bench_page import lead, page
from uets_jax.report import markup

UETS = {
    "arm": "uets",
    "track": "clean",
    "mode": None,
    "t2_arm": "b2m",
    "flops_ratio_b0": None,
    "flops_ratio_b0_ci_low": 64.0,
    "flops_ratio_b2m": 8.0,
    "flops_ratio_b2m_ci_low": 7.0,
    "flops_ratio_b2m_t_low": 6.0,
    "flops_ratio_b2m_t_high": 10.0,
    "bits_per_byte_u0.25": 1.65,
    "blimp_accuracy": 0.55,
}
B0 = {"arm": "b0", "track": "clean", "mode": None, "flops_ratio_b0": 1.0}
RUNS = [
    {"arm": arm, "track": "clean", "mode": "", "budget_units": budget}
    | {"bits_per_byte": 2.0 - budget, "total_flops": budget * 1e12}
    for arm in ("b0", "uets")
    for budget in (0.125, 0.25)
]


def test_the_page_shows_ratios_bounds_and_curves():
    made = page([B0, UETS], RUNS, 1e12)
    [section] = made.sections
    html = markup.section(section)
    assert section.title == "clean"
    assert html.count("<svg") == 1
    assert "&gt; 64" in html
    assert "[6, 10]" in html
    assert "1.650" in html


def test_the_lead_says_what_uets_needs():
    said = "".join(lead([B0, UETS]))
    assert said.startswith("On clean uets needs 8 [6, 10] times fewer FLOPs than b2m")
    assert "over 64 times" in said
    assert lead([B0]) == ["No run of uets is on record."]


def test_each_mode_of_a_track_has_a_section_with_the_shared_baselines():
    rows = [B0 | {"track": "mixture"}]
    rows += [UETS | {"track": "mixture", "mode": m} for m in ("target", "blind")]
    made = page(rows, [], 1e12)
    assert [s.title for s in made.sections] == [
        "mixture, mode target",
        "mixture, mode blind",
    ]
    for section in made.sections:
        names = [row[0].text for row in section.blocks[-1].rows]
        assert names == ["b0", "uets"]
