"""README and method cards: code runs, commands parse, paths exist, tables hold."""

import contextlib
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.tables import ROOT, pages, stale
from uets_jax import cli, flags
from uets_jax.config import ExperimentConfig, to_json

PAGES = {p.relative_to(ROOT).as_posix(): p.read_text("utf-8") for p in pages()}
README = PAGES["README.md"]
LIMIT = 120  # seconds of one block on a loaded machine
LONGEST, LARGEST = 420, 35_000  # of the README: lines and bytes


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language; "" for those that name none."""
    fence = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
    return [m[2] for m in fence.finditer(page) if m[1] == language]


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A block as a script of its own in `folder`."""
    cache = os.environ["UETS_CACHE"]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": f"{cache}/xla",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def commands(page: str) -> list[list[str]]:
    """The words of each command in the bash blocks; a pipe or `&&` ends a command."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            found.append([])
            for word in lexer:
                if set(word) <= set("&|;()"):
                    found.append([])
                else:
                    found[-1].append(word)
    return [words for words in found if words]


def uets_argv(words: list[str]) -> list[str] | None:
    """What a command gives to `uets`; None where it is another program."""
    words = words[next((i for i, w in enumerate(words) if "=" not in w), 0) :]
    if Path(words[0]).name == "uets":
        return words[1:]
    return words[3:] if words[1:3] == ["-m", "uets_jax"] else None


def check_uets(argv: list[str]) -> None:
    """Reads a command line; the runs that it trains or resumes come into being."""
    name, rest = argv[0], argv[1:]
    given = flags.parse(f"uets {name}", cli.COMMANDS[name].options, rest)
    if name != "train":
        return
    stored = Path(given.get("resume", "."), "config.json")
    if "resume" in given and not stored.exists():
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(to_json(ExperimentConfig()))
    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        assert cli.main([*argv, "--print-config"]) == 0
    out = Path(given.get("out", "."))
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(page.getvalue())


def check_module(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`-m experiments.NAME FLAGS`: the script's help lists the flags."""
    script = importlib.import_module(words[1])
    with pytest.raises(SystemExit):
        script.main(["--help"])
    page = capsys.readouterr().out
    for word in words[2:]:
        assert not word.startswith("--") or word.partition("=")[0] in page


def dead_links(page: str, root: Path) -> Iterator[str]:
    """Targets of links and pictures that are neither files nor headings here."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    for target in re.findall(r"\]\(<?([^)\s>]+)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target):
            continue
        if (path and not (root / path).exists()) or (
            anchor and not path and anchor not in slugs
        ):
            yield target


def mapped(page: str) -> list[str]:
    """The paths of the package map: a block whose lines name paths, then say what.

    Two spaces end the names of a line; an indented line lies in the folder above it.
    """
    paths = []
    for block in (*blocks(page, ""), *blocks(page, "text")):
        if not re.search(r"^uets_jax/", block, re.MULTILINE):
            continue
        above: list[tuple[int, str]] = []
        for line in filter(str.strip, block.splitlines()):
            indent = len(line) - len(line.lstrip())
            above = [(i, folder) for i, folder in above if i < indent]
            inside = above[-1][1] if above else ""
            names = re.split(r"\s{2,}", line.strip())[0].split()
            paths += [inside + name for name in names]
            if names[-1].endswith("/"):
                above.append((indent, paths[-1]))
    return paths


def missing(paths: list[str], root: Path) -> list[str]:
    """Those that don't exist; what ends in a slash is a folder."""
    there = lambda p: (root / p).is_dir() if p.endswith("/") else (root / p).is_file()
    return [path for path in paths if not there(path)]


def uets_lines(page: str) -> list[list[str]]:
    """What the commands of a page give to `uets`."""
    found = (uets_argv(words) for words in commands(page))
    return [argv for argv in found if argv is not None]


PYTHON = [(name, code) for name, p in PAGES.items() for code in blocks(p, "python")]
COMMANDS = [words for page in PAGES.values() for words in commands(page)]
SCRIPTS = [w[1:] for w in COMMANDS if w[1:2] == ["-m"] and "experiments" in w[2]]


@pytest.mark.parametrize(("name", "code"), PYTHON, ids=[name for name, _ in PYTHON])
def test_the_python_of_a_page_runs(tmp_path, name, code):
    done = run_python(code, tmp_path)
    assert done.returncode == 0, f"{name}: {done.stderr}"


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_page_parse(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for argv in uets_lines(PAGES[name]):
        check_uets(argv)


def test_the_readme_shows_every_command():
    assert {argv[0] for argv in uets_lines(README)} == set(cli.COMMANDS)


def test_the_readme_is_short_and_links_every_card():
    assert len(README.splitlines()) <= LONGEST
    assert len(README.encode()) <= LARGEST
    for name in PAGES.keys() - {"README.md"}:
        assert f"]({name})" in README


def test_what_the_readme_says_of_the_methods_has_no_figure():
    """What a method brings is told by the tables of its card."""
    said = README.partition("\n### The methods\n")[2].partition("\n## ")[0]
    assert said
    assert not re.findall(r"(?<![\w.])\d[\d.,]*", re.sub(r"`[^`]*`", "", said))


@pytest.mark.parametrize("words", SCRIPTS, ids=" ".join)
def test_the_scripts_of_the_pages_have_these_flags(capsys, words):
    check_module(words, capsys)


@pytest.mark.parametrize("name", PAGES)
def test_the_links_of_a_page_lead_somewhere(name):
    assert not [*dead_links(PAGES[name], (ROOT / name).parent)]


def test_the_map_of_the_readme_names_what_exists():
    paths = mapped(README)
    assert "uets_jax/" in paths
    assert not missing(paths, ROOT)


@pytest.mark.parametrize("name", PAGES)
def test_the_tables_of_a_page_are_those_of_the_records(name):
    assert not stale(PAGES[name])


# The checkers themselves, on a small page

PAGE = """\
# A small page

See [the map](#the-map), [a file](pyproject.toml), [a site](scheme://host/x) and
![nothing](absent.png) or [nowhere](#else).

```python
from pathlib import Path
Path("made").write_text("here")
```

```bash
python3 -m venv .venv && \\
  .venv/bin/uets train --recipe tiny --out runs/a  # a comment
uets train --resume runs/a | tee log
JAX_PLATFORMS=cpu uets report runs/a runs/b --out "a b.html"
python -m uets_jax eval runs/a; echo done
```

## The map

```text
uets_jax/
  types.py component.py    two files
  data/    sources
    bpe.py   one
    absent.py
  gone/    a folder
tests/   not there/
```
"""


def test_the_checkers_find_the_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = uets_lines(PAGE)
    assert found == [
        ["train", "--recipe", "tiny", "--out", "runs/a"],
        ["train", "--resume", "runs/a"],
        ["report", "runs/a", "runs/b", "--out", "a b.html"],
        ["eval", "runs/a"],
    ]
    for argv in found:
        check_uets(argv)
    assert '"name": "tiny"' in Path("runs/a/config.json").read_text()
    for wrong in (["train", "--recpie", "tiny"], ["eval", "a", "--splat"], ["report"]):
        with pytest.raises(flags.UsageError):
            check_uets(wrong)
    with pytest.raises(AssertionError):
        check_uets(["train", "--train.batch", "0"])


def test_the_checkers_run_python(tmp_path):
    [code] = blocks(PAGE, "python")
    assert run_python(code, tmp_path).returncode == 0
    assert (tmp_path / "made").read_text() == "here"
    assert run_python("import absent", tmp_path).returncode != 0


def test_the_checkers_find_dead_links_and_paths():
    assert [*dead_links(PAGE, ROOT)] == ["absent.png", "#else"]
    paths = mapped(PAGE)
    assert paths[:4] == [
        "uets_jax/",
        "uets_jax/types.py",
        "uets_jax/component.py",
        "uets_jax/data/",
    ]
    assert missing(paths, ROOT) == ["uets_jax/data/absent.py", "uets_jax/gone/"]


def test_the_checkers_find_a_missing_flag_of_a_script(capsys):
    check_module(["-m", "experiments.tables", "--check"], capsys)
    with pytest.raises(AssertionError):
        check_module(["-m", "experiments.tables", "--chekc"], capsys)
