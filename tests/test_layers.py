"""The direction of imports, the packages that stay lazy, the calls that are banned."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# a room imports from lower floors and from itself, never from its neighbours
FLOORS = (
    "errors",
    "types component config",
    "validation",
    "uncertainty selection curriculum optim models data measure",
    "aql",
    "microbatch",
    "step",
    "build",
    "growth report evaluate",
    "train",
    "export meta",
    "slots",
    "system",
    "flags options",
    "recipes",
    "pilot",
    "commands",
    "cli",
    "__main__ __init__ experiments",
)
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms.split()}

LAZY = {
    "array_record",
    "datasets",
    "grain",
    "huggingface_hub",
    "lm_eval",
    "matplotlib",
    "pynvml",
    "tensorboardX",
    "tensorflow",
    "tensorflow_datasets",
    "tokenizers",
    "tqdm",
    "transformers",
    "tyro",
    "wandb",
    "zstandard",
}
UNSAFE_MODULES = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "os.popen",
    "os.system",
    "yaml.load",
    "yaml.unsafe_load",
}
UNSAFE_KEYWORDS = {"allow_pickle", "shell", "trust_remote_code"}

# tests of something else than one module
CROSS_CUTTING = {
    "test_aql_end_to_end",
    "test_cards",
    "test_contract",
    "test_distributed",
    "test_end_to_end",
    "test_inspect",
    "test_layers",
    "test_notebooks",
    "test_package",
    "test_readme",
    "test_resume",
}

# tests of files whose names stand between underscores
DUNDER = {"test_init.py": "__init__.py", "test_main.py": "__main__.py"}


# modules without a test file of their own
EXEMPT = {
    "uets_jax/__main__.py",  # one call; test_cli starts it
    "uets_jax/component.py",  # vocabulary: types without behaviour
    "uets_jax/commands.py",  # test_cli gives each its command line
    "uets_jax/options.py",
    "uets_jax/types.py",
    "uets_jax/aql/parts.py",  # vocabulary, too
    "uets_jax/report/axis.py",  # seen in test_svg, as pixels and tick texts
    "uets_jax/report/curves.py",  # seen in test_html, as a page
    "uets_jax/report/facts.py",
    "uets_jax/report/run.py",
    "uets_jax/report/style.py",
    "experiments/__init__.py",
}


class Import(NamedTuple):
    """One imported module, its line, and whether it is imported with the file."""

    module: str
    line: int
    eager: bool


def eager_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the file is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from eager_nodes(node)


def imports(tree: ast.AST) -> Iterator[Import]:
    """Every import; `from a import b` counts as a.b, relative ones begin with a dot."""
    eager = {id(node) for node in eager_nodes(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            names = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (Import(name, node.lineno, id(node) in eager) for name in names)


def room_of(path: str) -> str:
    """The room of a file, such as "data" of "uets_jax/data/store.py"."""
    first, second, *_ = Path(path).with_suffix("").parts
    return second if first == "uets_jax" else first


def misplaced(path: str, tree: ast.AST) -> Iterator[str]:
    """Imports against the direction of the house, or of packages out of place."""
    room = room_of(path)
    if room not in FLOOR:
        yield f"{path}: the room {room!r} has no floor"
        return
    for module, line, eager in imports(tree):
        package, _, rest = module.partition(".")
        target = rest.partition(".")[0] if package == "uets_jax" else package
        where = f"{path}:{line}: {module}"
        if module.startswith("."):
            yield f"{where}: a relative import"
        elif package == "uets_jax" and target not in FLOOR:
            yield f"{where}: no room of that name"
        elif package in ("uets_jax", "experiments", "tests") and target != room:
            if FLOOR.get(target, len(FLOORS)) >= FLOOR[room]:
                yield f"{where}: {room} must not import {target}"
        elif package == "flax" and room != "models":
            yield f"{where}: only models imports flax"
        elif package in LAZY and eager:
            yield f"{where}: imported with the module, not by the function"


def unsafe(path: str, tree: ast.AST) -> Iterator[str]:
    """Modules, calls and keywords by which data becomes code."""
    for module, line, _ in imports(tree):
        if module.partition(".")[0] in UNSAFE_MODULES or module in UNSAFE_CALLS:
            yield f"{path}:{line}: {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in UNSAFE_CALLS:
            yield f"{path}:{node.lineno}: {ast.unparse(node.func)}("
        elif isinstance(node, ast.keyword) and node.arg in UNSAFE_KEYWORDS:
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield f"{path}:{node.value.lineno}: {node.arg}"
        elif isinstance(node, ast.Constant) and node.value == "trust_remote_code":
            yield f"{path}:{node.lineno}: trust_remote_code"


def unmirrored(tests: list[str], sources: set[str]) -> list[str]:
    """Test files that stand for no source file and are no known cross-cutting test."""
    lonely = []
    for test in tests:
        path = Path(test)
        name = DUNDER.get(path.name) or path.name.removeprefix("test_")
        below = Path(*path.parts[1:-1], name).as_posix()
        known = len(path.parts) == 2 and path.stem in CROSS_CUTTING
        if not known and f"uets_jax/{below}" not in sources and below not in sources:
            lonely.append(test)
    return lonely


def untested(sources: list[str], tests: set[str]) -> list[str]:
    """Modules that have no test file of their own and need one."""
    names = {file: test for test, file in DUNDER.items()}
    bare = []
    for source in sources:
        path = Path(source)
        name = names.get(path.name) or f"test_{path.name}"
        folders = path.parts[path.parts[0] == "uets_jax" : -1]
        if source in EXEMPT or (len(path.parts) > 2 and path.name == "__init__.py"):
            continue
        if Path("tests", *folders, name).as_posix() not in tests:
            bare.append(source)
    return bare


def files(*folders: str, pattern: str = "*.py") -> list[str]:
    """Paths of the files in some folders, relative to the repository."""
    found = [p for folder in folders for p in (ROOT / folder).rglob(pattern)]
    return sorted(p.relative_to(ROOT).as_posix() for p in found)


SOURCES = files("uets_jax", "experiments")


@pytest.mark.parametrize("path", SOURCES)
def test_imports_go_down(path):
    assert not [*misplaced(path, ast.parse((ROOT / path).read_text("utf-8")))]


@pytest.mark.parametrize("path", SOURCES)
def test_data_never_becomes_code(path):
    assert not [*unsafe(path, ast.parse((ROOT / path).read_text("utf-8")))]


def test_every_test_mirrors_a_module():
    assert not unmirrored(files("tests", pattern="test_*.py"), set(SOURCES))


def test_every_module_has_a_test():
    tests = set(files("tests", pattern="test_*.py"))
    assert not untested(SOURCES, tests)


def test_the_exempt_modules_exist_and_have_no_test():
    tests = set(files("tests", pattern="test_*.py"))
    assert set(SOURCES) >= EXEMPT
    mirrors = {test.removeprefix("tests/").replace("test_", "") for test in tests}
    assert not {path.removeprefix("uets_jax/") for path in EXEMPT} & mirrors


def test_the_walk_finds_the_house():
    assert {"uets_jax/cli.py", "uets_jax/models/presets.py"} <= set(SOURCES)


# The checker itself, on sources that are wrong in one way each

WRONG_IMPORTS = [
    ("uets_jax/data/x.py", "import uets_jax.models.presets", "data must not"),
    ("uets_jax/data/x.py", "from uets_jax.optim import rules", "data must not"),
    ("uets_jax/data/x.py", "from uets_jax import step", "data must not import step"),
    ("uets_jax/data/x.py", "import uets_jax", "no room"),
    ("uets_jax/data/x.py", "from uets_jax import Trainer", "no room"),
    ("uets_jax/data/x.py", "from uets_jax.attic import y", "no room"),
    ("uets_jax/attic/x.py", "", "has no floor"),
    ("uets_jax/config.py", "from uets_jax.types import Batch", "config must not"),
    ("uets_jax/errors.py", "import uets_jax.config", "errors must not"),
    ("uets_jax/step.py", "from uets_jax.build import build", "step must not"),
    ("uets_jax/microbatch.py", "import uets_jax.step", "microbatch must not"),
    ("uets_jax/report/x.py", "from uets_jax.evaluate import tasks", "report must not"),
    ("uets_jax/train/x.py", "def f():\n  import uets_jax.cli", "x.py:2"),
    ("uets_jax/train/x.py", "from experiments import runner", "must not"),
    ("uets_jax/cli.py", "import experiments.runner", "must not"),
    ("uets_jax/train/x.py", "import tests.conftest", "must not"),
    ("uets_jax/train/x.py", "from . import loop", "relative"),
    ("uets_jax/train/x.py", "from ..data import store", "relative"),
    ("uets_jax/train/x.py", "import flax.linen as nn", "only models"),
    ("uets_jax/train/x.py", "def f():\n  from flax import linen", "only models"),
    ("uets_jax/data/x.py", "import grain", "imported with the module"),
    ("uets_jax/data/x.py", "from tqdm import tqdm", "imported with the module"),
    ("uets_jax/data/x.py", "class A:\n  import tyro", "imported with the module"),
    ("uets_jax/data/x.py", "try:\n  import wandb\nfinally: pass", "with the module"),
    ("uets_jax/data/x.py", "if True:\n  import tokenizers", "with the module"),
    ("experiments/x.py", "import matplotlib.pyplot as plt", "with the module"),
]
RIGHT_IMPORTS = [
    ("uets_jax/data/x.py", "from uets_jax.data.y import z\nfrom uets_jax import types"),
    ("uets_jax/data/x.py", "def f():\n  import grain"),
    ("uets_jax/data/x.py", "async def f():\n  import grain"),
    ("uets_jax/data/x.py", "if TYPE_CHECKING:\n  import grain"),
    ("uets_jax/models/x.py", "import flax.linen as nn, jax"),
    ("uets_jax/cli.py", "def f():\n  from uets_jax.train import loop"),
    ("uets_jax/__main__.py", "from uets_jax.cli import main"),
    ("uets_jax/__init__.py", "from uets_jax.system import System"),
    ("experiments/x.py", "import uets_jax.system, experiments.runner"),
]
WRONG_CALLS = [
    "import pickle",
    "def f():\n  from pickle import loads",
    "import cloudpickle as p",
    "eval('1')",
    "def f(s):\n  return exec(s)",
    "os.system('ls')",
    "from os import system",
    "yaml.load(text)",
    "subprocess.run(c, shell=True)",
    "np.load(f, allow_pickle=True)",
    "np.load(f, allow_pickle=flag)",
    "load(name, trust_remote_code=True)",
    "load(name, **{'trust_remote_code': True})",
]
RIGHT_CALLS = [
    "'''Never pickle, never eval(x), no trust_remote_code=True.'''",
    "np.load(f, allow_pickle=False)",
    "model.eval()",
    "jax.eval_shape(f)",
    "yaml.safe_load(text)",
]


@pytest.mark.parametrize(("path", "source", "complaint"), WRONG_IMPORTS)
def test_the_checker_finds_a_wrong_import(path, source, complaint):
    [found] = misplaced(path, ast.parse(source))
    assert complaint in found


@pytest.mark.parametrize(("path", "source"), RIGHT_IMPORTS)
def test_the_checker_lets_right_imports_pass(path, source):
    assert not [*misplaced(path, ast.parse(source))]


@pytest.mark.parametrize("source", WRONG_CALLS)
def test_the_checker_finds_unsafe_code(source):
    assert [*unsafe("x.py", ast.parse(source))]


@pytest.mark.parametrize("source", RIGHT_CALLS)
def test_the_checker_lets_safe_code_pass(source):
    assert not [*unsafe("x.py", ast.parse(source))]


def test_the_checker_finds_a_test_without_a_module():
    sources = {
        "uets_jax/__init__.py",
        "uets_jax/data/store.py",
        "uets_jax/cli.py",
        "experiments/bench.py",
    }
    right = [
        "tests/test_init.py",
        "tests/data/test_store.py",
        "tests/test_cli.py",
        "tests/experiments/test_bench.py",
        "tests/test_layers.py",
    ]
    wrong = [
        "tests/test_store.py",
        "tests/data/test_cli.py",
        "tests/a/test_layers.py",
        "tests/data/test_init.py",
        "tests/experiments/test_store.py",
    ]
    assert unmirrored(right + wrong, sources) == wrong


def test_the_checker_finds_a_module_without_a_test():
    tests = {
        "tests/test_init.py",
        "tests/data/test_store.py",
        "tests/test_cli.py",
        "tests/experiments/test_bench.py",
    }
    right = [
        "uets_jax/__init__.py",
        "uets_jax/data/__init__.py",
        "uets_jax/data/store.py",
        "uets_jax/cli.py",
        "uets_jax/types.py",
        "experiments/bench.py",
    ]
    wrong = ["uets_jax/store.py", "uets_jax/data/cli.py", "experiments/store.py"]
    assert untested(right + wrong, tests) == wrong
