"""HTML that nothing can break out of."""

from html import unescape
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.report import markup


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_escaped_text_is_well_formed_in_elements_and_attributes(text):
    safe = markup.escape(text)
    element = ElementTree.fromstring(f'<p title="{safe}">{safe}</p>'.encode())
    assert (element.text or "") == unescape(safe)
    assert not {"<", ">", '"', "'"} & set(safe)


@pytest.mark.parametrize("char", ["\0", "\x1b", "\x7f", "\x9f", "\ud800"])
def test_what_cannot_be_written_is_replaced(char):
    assert markup.escape(f"a{char}b") == "a\ufffdb"
    assert markup.escape("a\r\nb\rc\td") == "a\nb\nc\td"


def test_a_table_has_a_head_and_row_heads():
    shown = ElementTree.fromstring(markup.table(["run", "x"], [["a", "1"], ["b", "2"]]))
    assert [cell.text for cell in shown.iter("th")] == ["run", "x", "a", "b"]
    assert [cell.text for cell in shown.iter("td")] == ["1", "2"]


def test_a_section_without_content_is_left_out():
    assert markup.section("title", "", "") == ""
    assert "<h2>title</h2>\nx\ny\n" in markup.section("title", "x", "", "y")


def test_notes_and_codes_are_escaped():
    assert markup.note("a < b") == '<p class="note">a &lt; b</p>'
    assert markup.code("<x>") == "<code>&lt;x&gt;</code>"
