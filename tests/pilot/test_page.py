import copy

import pytest

from uets_jax.pilot.page import interval, lead, page, ratio, verdict, write


def row(method, value, low, high, helps=False):
    return {
        "method": method,
        "told": "what it is",
        "flops_ratio": value,
        "flops_ratio_ci_low": low,
        "flops_ratio_ci_high": high,
        "interval": "t",
        "helps": helps,
        "bits_per_byte": 2.0,
        "plain_bits_per_byte": 2.1,
        "leads": [0.05, 0.1],
        "start_flops": 2e7,
        "flops": [1e8, 2e8],
        "losses": [2.2, 2.0],
    }


FOUND = {
    "name": "a <b>",
    "source": "files:x",
    "share": 0.01,
    "full": {"flops": 1e10, "steps": 5000},
    "plain": {
        "method": "plain",
        "bits_per_byte": 2.1,
        "flops": [1e8, 2e8],
        "losses": [2.3, 2.1],
    },
    "methods": [
        row("selection", 1.52, 1.2, 1.9, True),
        row("growth", 0.9, 0.0, 1.1),
        row("learned", 0.7, 0.6, 0.8),
        row("start", None, 4.0, None, True),
        row("together", 3.1, 2.8, 3.5, True),
    ],
    "skipped": {"other": "it | can't"},
    "recipe": {
        "methods": ["selection", "start"],
        "command": "uets train --data.source files:x",
        "why": "",
        "notes": ["Each was measured alone."],
    },
    "warnings": ["This is an extrapolation."],
    "cost": {"flops": 2.6e9, "of_full": 0.26, "seconds": 9.0, "runs": 45},
}


def test_both_pages_say_what_helps_and_what_it_is_worth(tmp_path):
    html, markdown = (p.read_text("utf-8") for p in write(FOUND, tmp_path))
    for text in (html, markdown.replace("\\", "")):
        for said in (
            "1.52",
            "[1.2, 1.9]",
            "costs more",
            "no sure gain",
            "uets train --data.source files:x",
            "Each was measured alone.",
            "This is an extrapolation.",
            "26.0%",
            "45 runs",
            "of 4 tried",
            "+0.050 to +0.100",
        ):
            assert said in text
    assert "<svg" in html
    assert "a &lt;b&gt;" in html
    assert "<script" not in html
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pilot.html", "pilot.md"]


def test_the_lead_names_the_recipe():
    times = "\N{MULTIPLICATION SIGN}"
    assert lead(FOUND)[1] == f"selection with start 3.1{times}"
    one = copy.deepcopy(FOUND)
    one["recipe"]["methods"] = ["selection"]
    assert lead(one)[1] == f"selection 1.52{times}"
    assert "measured at 1.00% of the budget" in lead(FOUND)[-1]
    none = copy.deepcopy(FOUND)
    none["recipe"]["methods"] = []
    assert "".join(lead(none)).startswith("No method helps for sure")


def test_without_a_command_the_page_says_why():
    broken = copy.deepcopy(FOUND)
    broken["recipe"] |= {"command": None, "why": "they don't fit"}
    [_, recipe, *_] = page(broken).sections
    assert recipe.blocks[0] == ("they don't fit",)


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (1.5, 1.2, 1.9, ("1.5", "[1.2, 1.9]")),
        (None, 4.0, None, ("> 4", "[4, \N{EN DASH}]")),
        (None, 0.0, 0.25, ("< 0.25", "[\N{EN DASH}, 0.25]")),
    ],
)
def test_ratios_and_bounds(value, low, high, said):
    one = row("m", value, low, high)
    assert (ratio(one).rstrip("\N{MULTIPLICATION SIGN}"), interval(one)) == said


def test_verdicts():
    assert [verdict(one) for one in FOUND["methods"]] == [
        "helps",
        "no sure gain",
        "costs more",
        "helps",
        "helps",
    ]
