"""The method cards: all headings, real settings with their defaults, no typed figure.

Their code, commands, links and tables are checked with those of the README.
"""

import dataclasses
import fnmatch
import re
import tomllib

import pytest

from experiments.tables import CARDS, ROOT
from uets_jax.config import ExperimentConfig
from uets_jax.flags import flag_types, value_at

METHODS = {
    "auto_tuning",
    "averaged_weights",
    "backoff",
    "curriculum",
    "experts",
    "frozen_blocks",
    "growth",
    "growth_policy",
    "learned_directions",
    "learned_optimizer",
    "ngram_tables",
    "pruning",
    "selection",
    "start_from_counts",
    "stopping",
    "update_rules",
}
GROUNDS = {"baselines", "house"}  # what the methods are measured against, and live in
HOW = "How it was measured"
OF_METHODS = (
    "What it is",
    "Use it",
    "Effect",
    "Extra FLOPs and memory",
    "Settings",
    "When it hurts",
    HOW,  # where the effect is a table
    "Source",
)
OF_GROUNDS = ("What it is", "Use it", "Figures", HOW, "Limits")
# told by tables and words alone; how it was measured has figures of its own: trials,
# sizes, goals
MEASURED = ("Effect", "Extra FLOPs and memory", "When it hurts", "Figures", "Limits")
LONGEST = 120  # lines that are not empty, code and tables of records apart
WIDEST = 88

ROOMS = "|".join(
    field.name
    for field in dataclasses.fields(ExperimentConfig)
    if dataclasses.is_dataclass(field.default)
)
# --room.field, or room.field that is no part of a longer path and no page
SETTING = re.compile(rf"(?<![\w./])((?:{ROOMS})(?:\.(?!md\b)[a-z][\w-]*)+)")
ROW = re.compile(r"^\| `([\w.]+)` \| (`[^`]+`|empty) \| \S.* \|$")
TABLE = re.compile(r"<!-- results:.*?<!-- /results -->\n", re.DOTALL)
FENCED = re.compile(r"^```.*?^```\n", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`]*`", re.DOTALL | re.MULTILINE)
CARD = {path.stem: path.read_text("utf-8") for path in CARDS.glob("*.md")}


def written(page: str) -> str:
    """The page without its tables of records."""
    return TABLE.sub("", page)


def sections(page: str) -> dict[str, str]:
    """Text by heading."""
    parts = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def settings(page: str) -> set[str]:
    """The dotted paths of the settings that a page names."""
    return {m[1].replace("-", "_") for m in SETTING.finditer(written(page))}


def wrong_rows(section: str) -> list[str]:
    """Rows of a table of settings that don't say a field's default."""
    wrong = []
    for row in section.strip().splitlines()[2:]:
        if not row.startswith("|"):
            break
        found, default = ROW.match(row), None
        if found and found[1] in flag_types(ExperimentConfig):
            value = str(value_at(ExperimentConfig(), found[1]))
            default = f"`{value}`" if value else "empty"
        if default is None or found[2] != default:
            wrong.append(row)
    return wrong


def typed_figures(page: str) -> list[str]:
    """Numbers where what was measured is told, outside code and tables of records."""
    parts = sections(CODE.sub("", written(page)))
    told = "\n".join(parts.get(heading, "") for heading in MEASURED)
    return re.findall(r"(?<![\w.])\d[\d.,]*", told)


def headings(name: str) -> tuple[str, ...]:
    """Those that a card has to have."""
    if name in GROUNDS:
        return OF_GROUNDS
    measured = TABLE.search(sections(CARD[name])["Effect"])
    return tuple(h for h in OF_METHODS if h != HOW or measured)


def test_every_method_has_a_card():
    assert set(CARD) == METHODS | GROUNDS


@pytest.mark.parametrize("name", sorted(CARD))
def test_a_card_has_all_headings_in_order_and_is_short(name):
    page = written(CARD[name])
    assert page.startswith("# ")
    assert (*sections(page),) == headings(name)
    assert all(text.strip() for text in sections(CARD[name]).values())
    assert max(map(len, page.splitlines())) <= WIDEST
    lines = [line for line in FENCED.sub("", page).splitlines() if line]
    assert len(lines) <= LONGEST


@pytest.mark.parametrize("name", sorted(CARD))
def test_what_a_card_names_is_a_setting(name):
    found = settings(CARD[name])
    assert found or name in GROUNDS
    assert not found - flag_types(ExperimentConfig).keys()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_card_tells_the_defaults(name):
    assert not wrong_rows(sections(CARD[name])["Settings"])


@pytest.mark.parametrize("name", sorted(CARD))
def test_no_figure_is_typed_by_hand(name):
    assert not typed_figures(CARD[name])


@pytest.mark.parametrize("name", sorted(GROUNDS))
def test_figures_are_tables(name):
    assert TABLE.search(sections(CARD[name])["Figures"])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_effect_is_a_table_or_not_on_record(name):
    effect = sections(CARD[name])["Effect"]
    assert TABLE.search(effect) or "ot on record yet" in effect


def test_the_cards_ship_with_the_package():
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = built["tool"]["setuptools"]["package-data"]["uets_jax"]
    for path in CARDS.iterdir():
        inside = path.relative_to(ROOT / "uets_jax").as_posix()
        assert any(fnmatch.fnmatch(inside, pattern) for pattern in patterns)


# The checkers themselves, on a small card

SMALL = """\
# A small card

## Effect

`a 7` of b2m, 3 seeds, U, 1.5 times, T2 and 12 %.
<!-- results:growth.target columns=a -->
| 8 |
<!-- /results -->

## Extra FLOPs and memory

## Settings

| name | default | meaning |
| --- | --- | --- |
| `train.steps` | `400` | right |
| `train.steps` | `401` | wrong |
| `data.cache` | empty | right |
| `train.stepps` | `400` | wrong |

## When it hurts

`uets_jax.optim.rules`, ../growth/plan.py, --model.head-dim and `optim.avrage`; see
[growth](growth.md).
"""


def test_the_checkers_find_figures_settings_and_defaults():
    assert typed_figures(SMALL) == ["3", "1.5", "12"]
    unknown = settings(SMALL) - flag_types(ExperimentConfig).keys()
    assert unknown == {"train.stepps", "optim.avrage"}
    assert "model.head_dim" in settings(SMALL)
    rows = wrong_rows(sections(SMALL)["Settings"])
    assert [row[:15] for row in rows] == ["| `train.steps`", "| `train.stepps"]
