import json
from pathlib import Path

import pytest

from experiments.tables import (
    CARDS,
    README,
    cell,
    filled,
    main,
    markdown,
    pages,
    stale,
)
from uets_jax.errors import UserError

RECORD = {
    "table": "topic.small",
    "command": "python -m experiments.x",
    "date": "2026-11-22",
    "machine": "cpu-2",
    "rows": [
        {"arm": "a|b", "tokens": 1_234_567, "train_flops": 1_200_000_000_000},
        {"arm": "c", "tokens": None, "bits_per_byte": 2.34567},
    ],
}
PLACE = "<!-- results:topic.small{} -->\n<!-- /results -->\n"
WHOLE = """\
| arm | tokens | train flops | bits per byte |
| --- | ---: | ---: | ---: |
| a\\|b | 1,234,567 | 1.2e12 | - |
| c | - | - | 2.346 |

Measured on `cpu-2`, 2026-11-22, with `python -m experiments.x`.
"""


@pytest.fixture
def results(tmp_path) -> Path:
    """A folder with one record."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "topic.small.json").write_text(json.dumps(RECORD))
    return folder


def test_all_columns_in_the_order_in_which_they_occur():
    assert markdown(RECORD) == WHOLE


def test_chosen_columns_in_their_own_order():
    table = markdown(RECORD, ["bits_per_byte", "arm"]).splitlines()
    assert table[:4] == [
        "| bits per byte | arm |",
        "| ---: | --- |",
        "| - | a\\|b |",
        "| 2.346 | c |",
    ]


def test_chosen_rows_by_what_they_show():
    table = markdown(RECORD, ["arm", "tokens"], "tokens", ["-"]).splitlines()
    assert table[:4] == ["| arm | tokens |", "| --- | ---: |", "| c | - |", ""]
    both = markdown(RECORD, (), "arm", ["c", "a\\|b"])
    assert both == WHOLE


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("steps", 7, "7"),
        ("tokens", 100_000_000, "100,000,000"),
        ("tokens", -1234, "-1,234"),
        ("flops", 999, "999"),
        ("flops", 4_321_000, "4.321e6"),
        ("total_flops", 6 * 10**23, "6e23"),
        ("total_flops", 1.23456e12, "1.235e12"),
        ("flops_overhead", 0.0213456, "0.02135"),
        ("seconds", 12345.6, "12,346"),
        ("seconds", 123.456, "123.5"),
        ("seconds", 0.0, "0"),
        ("rate", 1e-5, "1e-5"),
        ("rate", -2.5, "-2.5"),
        ("x", 12_345_678.0, "1.235e7"),
        ("ok", True, "yes"),
        ("ok", False, "no"),
        ("arm", "two\nlines", "two lines"),
        ("arm", None, "-"),
    ],
)
def test_cells_are_short_and_plain(column, value, text):
    assert cell(column, value) == text


def test_filling_is_stable_and_leaves_the_rest_alone(results):
    page = (
        f"# Title\n\n{PLACE.format('')}\nbetween\n\n{PLACE.format(' columns=arm')}end"
    )
    once = filled(page, results)
    assert once.startswith("# Title\n\n<!-- results:topic.small -->\n| arm | tokens |")
    assert once.endswith("<!-- /results -->\nend")
    assert WHOLE in once
    assert filled(once, results) == once
    assert stale(once, results) == []
    assert stale(page, results) == ["topic.small"] * 2


def test_a_place_may_name_its_rows(results):
    place = PLACE.format(' columns=arm,bits_per_byte rows="bits_per_byte=2.346|-"')
    once = filled(place, results)
    assert "| a\\|b | - |\n| c | 2.346 |" in once
    once = filled(PLACE.format(' rows="arm=c"'), results)
    assert "| c | - | - | 2.346 |" in once
    assert "a\\|b" not in once
    assert stale(once, results) == []


def test_a_page_without_places_stays(results):
    assert filled("text", results) == "text"


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("<!-- results:a.b -->\n", "a.b: opening and closing"),
        ("<!-- /results -->", "opening and closing"),
        ("<!-- results:a.b -->\n" + PLACE.format(""), "a.b: opening and closing"),
        (PLACE.format("") + "<!-- /results -->", "opening and closing"),
        ("<!-- results:a.b -->\n<!-- /results -->", "a.b.json"),
        (PLACE.format(" columns=arms"), "no column 'arms': did you mean 'arm'"),
        (PLACE.format(' rows="arm=c|d"'), "topic.small: no row with arm=d"),
        (PLACE.format(" rows=arm=c"), "opening and closing"),
    ],
)
def test_a_wrong_page_is_refused(results, page, complaint):
    for function in (filled, stale):
        with pytest.raises(UserError) as error:
            function(page, results)
        assert complaint in str(error.value)


def test_the_command_checks_and_rewrites(tmp_path, results, capsys):
    page = tmp_path / "page.md"
    page.write_text(PLACE.format(""))
    where = ["--page", str(page), "--results", str(results)]
    assert main(["--check", *where]) == 1
    assert "topic.small is stale" in capsys.readouterr().out
    assert page.read_text() == PLACE.format("")
    assert main(where) == 0
    assert WHOLE in page.read_text()
    assert main(["--check", *where]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_pages_are_the_readme_and_all_cards():
    assert pages()[0] == README
    assert set(pages()) == {README, *CARDS.iterdir()}


def test_the_command_takes_several_pages(tmp_path, results, capsys):
    paths = [tmp_path / "a.md", tmp_path / "b.md"]
    for path in paths:
        path.write_text(PLACE.format(""))
    where = ["--page", *map(str, paths), "--results", str(results)]
    assert main(["--check", *where]) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in told] == [*map(str, paths)]
    assert main(where) == 0
    assert all(WHOLE in path.read_text() for path in paths)
    assert main(["--check", *where]) == 0


def test_the_command_refuses_in_one_line(tmp_path, results, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- results:absent.table -->\n<!-- /results -->")
    for argv in (
        ["--page", str(page), "--results", str(results)],
        ["--page", "absent"],
    ):
        assert main(argv) == 2
        assert capsys.readouterr().err.count("\n") == 1
