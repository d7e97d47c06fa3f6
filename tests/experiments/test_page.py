from experiments.page import write
from uets_jax.report.blocks import Note, Page, Section


def test_a_page_is_one_file_that_loads_nothing(tmp_path):
    content = Page(
        "A <title>", ["Said ", "loud"], [], [], [Section("One", [Note("x")])]
    )
    path = write(content, tmp_path / "deep" / "page.html", "python -m me & you")
    text = path.read_text("utf-8")
    assert "<title>A &lt;title&gt;</title>" in text
    assert "<strong>loud</strong>" in text
    assert "python -m me &amp; you" in text
    assert "<script" not in text
    assert " src=" not in text
