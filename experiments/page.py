"""A page of an experiment: one HTML file without anything beside it."""

from pathlib import Path

from uets_jax.report import markup
from uets_jax.report.blocks import Page
from uets_jax.report.files import replace_text
from uets_jax.report.markup import escape
from uets_jax.report.style import CSS


def write(content: Page, out: Path, command: str) -> Path:
    """One HTML file that needs nothing else.

    Args:
      content: of the page; tiles and warnings are not shown.
      out: the file.
      command: that makes it, for the footer.
    """
    lead = f'<p class="lead">{markup.lead(content.lead)}</p>'
    sections = "\n".join(map(markup.section, content.sections))
    return replace_text(
        out,
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(content.title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n<header><h1>{escape(content.title)}</h1>\n{lead}</header>\n"
        f"{sections}\n</main>\n<footer>uets_jax · {escape(command)}"
        "</footer>\n</body>\n</html>\n",
    )
