"""HTML that nothing can break out of."""

from html import unescape
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.report import markup
from uets_jax.report.blocks import (
    Cell,
    Fold,
    Heading,
    Note,
    Pair,
    Picture,
    Sample,
    Section,
    Table,
    Tile,
)

ANY = st.text(st.characters(exclude_categories=["Cs"]))


@given(ANY)
def test_escaped_text_is_well_formed_in_elements_and_attributes(text):
    safe = markup.escape(text)
    element = ElementTree.fromstring(f'<p title="{safe}">{safe}</p>'.encode())
    assert (element.text or "") == unescape(safe)
    assert not {"<", ">", '"', "'"} & set(safe)


@given(ANY)
def test_every_block_is_well_formed_for_any_text(text):
    cell = Cell(text, text, code=True, color=3, share=0.5)
    table = Table(text, [text], [[cell, cell._replace(share=None)]], "shares")
    blocks = [table, Note(text), Heading(text), Sample(text, text)]
    blocks += [Picture(lambda: "<svg/>", text, [table]), Pair([Note(text)])]
    shown = markup.section(Section(text, [Fold(text, blocks, False)]))
    shown += markup.tile(Tile(text, text, text)) + markup.lead([text, text])
    body = ElementTree.fromstring(f"<body>{shown}</body>".encode())
    assert body[0].tag == "section"  # and nothing in it broke out
    assert len(body) == 3


def test_a_table_has_a_name_a_head_and_row_heads():
    rows = [[Cell("a"), Cell("1")], [Cell("b"), Cell("2", "0.5")]]
    shown = ElementTree.fromstring(markup.render(Table("t", ["run", "x"], rows)))
    assert shown.get("aria-label") == "t"
    assert [cell.text for cell in shown.iter("th")] == ["run", "x", "a", "b"]
    assert [cell.text for cell in shown.iter("td")] == ["1", "2"]
    assert [cell.text for cell in shown.iter("small")] == ["0.5"]


def test_cells_show_code_swatches_and_bars():
    shown = lambda cell: markup.render(Table("t", ["x"], [[cell]]))
    assert "<code>a</code>" in shown(Cell("a", code=True))
    assert '<span class="swatch c1"></span>a' in shown(Cell("a", color=9))
    assert 'class="bar c2"><i style="width:12.5%"' in shown(
        Cell("a", color=2, share=0.125)
    )
    assert "width:100.0%" in shown(Cell("a", share=7.0))


def test_figures_under_a_chart_are_folded_and_not_printed():
    picture = Picture(lambda: "<svg/>", "words", [Note("n")])
    shown = markup.render(picture)
    assert shown.startswith('<svg/>\n<details class="unprinted">')
    assert "words" not in shown
    assert markup.render(picture._replace(figures=())) == "<svg/>"


def test_a_section_without_content_is_left_out():
    assert markup.section(Section("title", [])) == ""
    assert markup.section(Section("title", [Picture(str)])) == ""
    assert "<h2>title</h2>\n<h3>x</h3>\n" in markup.section(
        Section("title", [Heading("x"), Heading("y")])
    )


@pytest.mark.parametrize("pieces", [["a"], ["a", "b", "c"]])
def test_every_second_piece_of_the_lead_is_stressed(pieces):
    assert markup.lead(pieces).count("<strong>") == len(pieces) // 2
