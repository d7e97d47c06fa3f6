"""The report of one or several runs: an HTML file that needs nothing else."""

from collections.abc import Sequence
from pathlib import Path

from uets_jax.report import markup
from uets_jax.report.blocks import Page
from uets_jax.report.files import replace_text
from uets_jax.report.markdown import render_markdown
from uets_jax.report.markup import escape
from uets_jax.report.page import page
from uets_jax.report.run import Run, base_index, load_runs
from uets_jax.report.style import CSS


def write_report(run_dirs: Sequence[Path], out: Path, base: str = "") -> Path:
    """Writes the HTML report of the runs in `run_dirs`, compared; returns `out`.

    The file holds its style and its charts (inline SVG), no script, and loads nothing.
    What a run doesn't have is said in a sentence. Equal input gives equal bytes.

    Args:
      base: directory or name of the run that the others are compared with; the first
        unless told.

    Raises:
      UserError: when a directory doesn't exist or holds neither metrics.jsonl nor
        summary.json, for a broken line inside metrics.jsonl, for an unknown `base`, or
        when `out` can't be written.
    """
    return replace_text(out, render(load_runs(run_dirs), base))


def write_reports(
    run_dirs: Sequence[Path], out_html: Path, base: str = ""
) -> list[Path]:
    """As `write_report`, and the same in Markdown beside it; returns both paths.

    Raises:
      UserError: as `write_report`; then neither or only the first file is new.
    """
    out = Path(out_html)
    out = out.with_suffix(".html") if out.suffix == ".md" else out
    runs = load_runs(run_dirs)
    texts = {
        out: render(runs, base),
        out.with_suffix(".md"): render_markdown(runs, base),
    }
    return [replace_text(path, text) for path, text in texts.items()]


def render(runs: Sequence[Run], base: str = "") -> str:
    """The whole page; raises UserError for an unknown `base`."""
    content = page(runs, base_index(runs, base))
    footer = "uets_jax · charts and figures from metrics.jsonl and summary.json"
    return render_page(content, footer)


def render_page(content: Page, footer: str) -> str:
    """Any page as one file of HTML."""
    return document(content.title, _body(content), footer)


def document(title: str, body: str, footer: str) -> str:
    """A page that loads nothing and runs no script; `body` is HTML, the rest text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<footer>{escape(footer)}</footer>\n"
        "</body>\n</html>\n"
    )


def _body(content: Page) -> str:
    """Everything between header and footer."""
    warnings = "".join(f"<li>{escape(w)}</li>" for w in content.warnings)
    tiles = "".join(map(markup.tile, content.tiles))
    return "\n".join(
        (
            f"<header><h1>{escape(content.title)}</h1>",
            f'<p class="lead">{markup.lead(content.lead)}</p></header>',
            f'<ul class="warn">{warnings}</ul>' if warnings else "",
            f'<div class="tiles">\n{tiles}</div>' if tiles else "",
            *map(markup.section, content.sections),
        )
    )
