"""A page of an experiment: one HTML file without anything beside it."""

from pathlib import Path

from uets_jax.report import markup
from uets_jax.report.blocks import Page
from uets_jax.report.files import replace_text
from uets_jax.report.html import document
from uets_jax.report.markup import escape


def write(content: Page, out: Path, command: str) -> Path:
    """One HTML file that needs nothing else.

    Args:
      content: of the page; tiles and warnings are not shown.
      out: the file.
      command: that makes it, for the footer.
    """
    lead = f'<p class="lead">{markup.lead(content.lead)}</p>'
    sections = "\n".join(map(markup.section, content.sections))
    header = f"<header><h1>{escape(content.title)}</h1>\n{lead}</header>"
    footer = f"uets_jax · {command}"
    text = document(content.title, f"{header}\n{sections}", footer)
    return replace_text(out, text)
