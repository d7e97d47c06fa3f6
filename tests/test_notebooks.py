"""Notebooks: they run to their last cell, and are stored without output."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from uets_jax.models.presets import from_dict
from uets_jax.recipes import read_recipe

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIMIT = 240  # seconds of a tiny run on a loaded machine


def cells(path: Path, kind: str = "code") -> list[dict]:
    """The cells of one kind."""
    notebook = json.loads(path.read_text("utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.fixture
def env(tmp_path) -> dict[str, str]:
    """Tiny settings; nothing outside the folder of the test but the cache."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    cache = os.environ["UETS_CACHE"]
    return {
        **inherited,
        "UETS_NOTEBOOK_TINY": "1",
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": f"{cache}/xla",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_writes_its_report(tmp_path, env, notebook):
    copy = tmp_path / notebook.name
    copy.write_bytes(notebook.read_bytes())
    words = ["--nbmake", "--overwrite", f"--nbmake-timeout={LIMIT}", copy.name]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout
    executed = cells(copy)
    assert all(cell["execution_count"] for cell in executed)
    kinds = [out["output_type"] for cell in executed for out in cell["outputs"]]
    assert "error" not in kinds
    assert "display_data" in kinds  # the curves
    assert [*tmp_path.glob("runs/*/report.html")]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_output(notebook):
    whole = json.loads(notebook.read_text("utf-8"))
    assert (whole["nbformat"], whole["nbformat_minor"]) == (4, 5)
    assert set(whole["metadata"]) <= {"kernelspec", "language_info"}
    assert len({cell["id"] for cell in whole["cells"]}) == len(whole["cells"])
    for cell in cells(notebook):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert cell["metadata"] == {}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_and_plots(notebook):
    source = "\n".join("".join(cell["source"]) for cell in cells(notebook))
    for word in ("def ", "class ", "lambda", "://"):
        assert word not in source


def quickstart(number: int) -> str:
    """The source of a code cell of the quickstart."""
    return "".join(cells(ROOT / "notebooks" / "quickstart.ipynb")[number]["source"])


def test_the_quickstart_has_the_settings_of_its_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UETS_NOTEBOOK_TINY", raising=False)
    names = {"os": os, "Path": Path, "tempfile": tempfile, "from_dict": from_dict}
    exec(quickstart(2), names)
    recipe = read_recipe("quickstart")
    assert names["config"] == dataclasses.replace(recipe, name="notebook")


@pytest.mark.parametrize(
    ("checkout", "there", "wanted"),
    [
        ("", "pkg/uets_jax", "pkg"),
        ("", "pkg/notebooks", None),
        ("archive.zip", "pkg/uets_jax", "pkg/notebooks/archive.zip"),
        ("../elsewhere", "pkg/elsewhere/uets_jax", "pkg/elsewhere"),
        ("../absent", "pkg/uets_jax", None),
    ],
)
def test_the_quickstart_installs_a_checkout(
    tmp_path, monkeypatch, capsys, checkout, there, wanted
):
    here = tmp_path / "pkg" / "notebooks"
    here.mkdir(parents=True)
    (here / "archive.zip").touch()
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("UETS_CHECKOUT", checkout)
    monkeypatch.setitem(sys.modules, "uets_jax", None)  # can't be imported
    source = re.sub(r"%pip (.*)", r"installed.append(f'\1')", quickstart(0))
    installed = []
    exec(source, {"installed": installed})
    if wanted:
        assert installed == [f'install -q "{tmp_path / wanted}" matplotlib']
    else:
        assert installed == []
        assert "set UETS_CHECKOUT" in capsys.readouterr().out


def test_there_is_a_quickstart():
    assert "quickstart" in {path.stem for path in NOTEBOOKS}
