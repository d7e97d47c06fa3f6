"""The command line: `uets train | eval | report | generate | tokenize`.

Each command is a dataclass of its flags and a function. The words of the command line
are scanned here, so that a wrong one costs a fraction of a second and one line; tyro
turns the values into the types of the fields and writes the help. Everything heavy is
imported by the function that needs it.
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from uets_jax.config import (
    DataConfig,
    ExperimentConfig,
    to_json,
    validate,
    window_length,
)
from uets_jax.errors import (
    EXIT_BAD_INPUT,
    EXIT_NON_FINITE,
    EXIT_OK,
    EXIT_STOPPED,
    NonFiniteLossError,
    StoppedError,
    UserError,
    nearest,
)
from uets_jax.models.presets import from_dict

EXIT_INTERRUPTED = 130
EXIT_PIPE = 141

# beside the package, in the repository as in an installation; not found by import,
# because a folder named "experiments" in the current directory would come first
RECIPES = Path(__file__).parents[1] / "experiments" / "recipes"

# what may differ between a run and its continuation: no number of the run depends on it
_CADENCE = (
    "train.eval_every",
    "train.checkpoint_every",
    "train.log_every",
    "train.keep",
)

_SUMMARY = (
    "steps",
    "tokens",
    "params",
    "final_loss",
    "perplexity",
    "bits_per_byte",
    "flops",
    "seconds",
    "joules",
)
_LEDGERS = ("flops", "seconds")  # of the summary: amounts by category


@dataclasses.dataclass(frozen=True)
class Train(ExperimentConfig):
    """Train a model. Recipe, then preset and size, then single flags win."""

    recipe: str = ""
    """Name of a recipe in experiments/recipes, or a JSON file (also config.json)."""
    out: str = ""
    """Directory of the run; empty: runs/NAME."""
    resume: str = ""
    """Directory of a run to continue, with its own configuration."""
    print_config: bool = False
    """Print the configuration as JSON and stop; a recipe of its own."""
    dry_run: bool = False
    """Print what would run, and its cost, and stop."""


@dataclasses.dataclass(frozen=True)
class Eval:
    """Measure the loss of a trained model; prints JSON."""

    dir: str
    """Directory of the run."""
    source: str = ""
    """Text to read, as --data.source of `uets train`; empty: that of the run."""
    split: Literal["valid", "train"] = "valid"
    """Which part of it."""
    tokens: int = 0
    """Tokens read; 0: all of them."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one HTML page about one run or several."""

    dirs: tuple[str, ...]
    """Directories of the runs."""
    out: str = ""
    """File; empty: report.html, in the directory of the run if it is one."""


@dataclasses.dataclass(frozen=True)
class Generate:
    """Print text that continues a prompt."""

    dir: str
    """Directory of the run."""
    prompt: str = ""
    """Text to continue."""
    tokens: int = 120
    """Tokens to add."""
    temperature: float = 0.8
    """0: always the likeliest token."""
    top_k: int = 50
    """Draw from the k likeliest tokens; 0: from all."""
    seed: int = 0
    """Of the draws."""


@dataclasses.dataclass(frozen=True)
class Tokenize:
    """Write a corpus as tokens, to be read as `--data.source tokens:DIR`."""

    source: str
    """As --data.source of `uets train`."""
    dir: str
    """Directory to write."""
    tokenizer: str = DataConfig.tokenizer
    """As --data.tokenizer of `uets train`."""
    valid_source: str = DataConfig.valid_source
    """Own source of validation text; empty: documents held out of the source."""
    valid_fraction: float = DataConfig.valid_fraction
    """Share of the bytes held out, by whole documents."""
    on_error: Literal["error", "skip"] = "error"
    """A document that can't be used: stop with one line, or count and skip it."""


class _UsageError(UserError):
    """A wrong command line; its text begins with the command."""


class _ClosedPipeError(Exception):
    """Nobody reads standard output any more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0 done, 2 bad input or configuration, 3 the loss became NaN or infinite, 75 stopped
    by a signal after saving, 130 interrupted, 141 the reader of the output went away.
    """
    try:
        _dispatch(list(sys.argv[1:] if argv is None else argv))
    except _UsageError as error:
        return _complain(str(error), EXIT_BAD_INPUT)
    except UserError as error:
        return _complain(f"uets: error: {error}", EXIT_BAD_INPUT)
    except NonFiniteLossError as error:
        return _complain(f"uets: error: {error}", EXIT_NON_FINITE)
    except StoppedError as error:
        return _complain(f"uets: {error}", EXIT_STOPPED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except _ClosedPipeError:
        return EXIT_PIPE
    return EXIT_OK


def _dispatch(argv: list[str]) -> None:
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name in ("-h", "--help"):
        return _say(_overview())
    if name in ("-V", "--version"):
        return _say(f"uets {_version()}")
    if not name:
        raise _UsageError(f"uets: no command: {nearest('', COMMANDS)}")
    if name not in COMMANDS:
        raise _UsageError(f"uets: unknown command {name!r}: {nearest(name, COMMANDS)}")
    if "-h" in rest or "--help" in rest:
        return _say(_help(name))
    COMMANDS[name].act(_parse(name, rest))


def _complain(line: str, code: int) -> int:
    print(" ".join(line.split()), file=sys.stderr)
    return code


def _say(text: str) -> None:
    """Prints to standard output, quietly giving up when its reader has gone."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _ClosedPipeError from None


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("uets_jax")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _overview() -> str:
    lines = [f"  {name:<10}{c.options.__doc__}" for name, c in COMMANDS.items()]
    return "\n".join(
        (
            "usage: uets [--version] [--help] COMMAND ...\n",
            *lines,
            "\nuets COMMAND --help lists the flags of a command.",
        )
    )


# Words to values


def _fields(options: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted path of each flag -> its type; positional arguments are left out."""
    hints, found = typing.get_type_hints(options), {}
    for field in dataclasses.fields(options):
        path = prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            found |= _fields(hints[field.name], path + ".")
        elif field.default is not dataclasses.MISSING:
            found[path] = hints[field.name]
    return found


def _positional(options: Any) -> list[str]:
    missing = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(options) if f.default is missing]


def _parse(name: str, argv: list[str]) -> dict[str, Any]:
    """The values that were given, by dotted path, with the types of their fields."""
    options = COMMANDS[name].options
    words, rest = _scan(name, argv)
    names = _positional(options)
    given = _typed(name, words)
    if names == ["dirs"] and rest:
        return given | {"dirs": tuple(rest)}
    if len(rest) > len(names):
        raise _UsageError(f"uets {name}: unexpected argument {rest[len(names)]!r}")
    if len(rest) < len(names):
        wanted = names[len(rest)].upper().removesuffix("S")
        raise _UsageError(f"uets {name}: {wanted} is missing; see uets {name} --help")
    return given | dict(zip(names, rest, strict=True))


def _scan(name: str, argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Flags with the text of their values, and the other words."""
    flags = _fields(COMMANDS[name].options)
    words, rest, queue = {}, [], list(argv)
    while queue:
        word = queue.pop(0)
        if not word.startswith("-"):
            rest.append(word)
            continue
        flag, equals, value = word.partition("=")
        path = flag.removeprefix("--").replace("-", "_")
        if path not in flags or not flag.startswith("--"):
            raise _UsageError(f"uets {name}: unknown flag {flag}: {_hint(name, path)}")
        if flags[path] is bool:
            if not equals:
                spelled = queue and queue[0].lower() in ("true", "false")
                value = queue.pop(0) if spelled else "True"
            value = value.capitalize()
        elif not equals:
            if not queue or queue[0].startswith("--"):
                raise _UsageError(f"uets {name}: {flag}: a value is missing")
            value = queue.pop(0)
        words[path] = value
    return words, rest


def _hint(name: str, path: str) -> str:
    """The flag that was meant: the last part of a path, or a path spelled like it."""
    flags = [f.replace("_", "-") for f in _fields(COMMANDS[name].options)]
    word = path.replace("_", "-")
    leaf = [f for f in flags if f.endswith("." + word)]
    hint = f"did you mean {leaf[0]!r}?" if leaf else nearest(word, flags)
    if not hint.startswith("did you mean"):
        return f"see uets {name} --help"
    return hint.replace("'", "--", 1).replace("'", "")


def _typed(name: str, words: dict[str, str]) -> dict[str, Any]:
    """The values of `words` with the types of their fields, by tyro."""
    if not words:
        return {}
    parsed = _tyro(name, words)
    if parsed is None:
        wrong = next(p for p in words if _tyro(name, {p: words[p]}) is None)
        hint = _expected(_fields(COMMANDS[name].options)[wrong], words[wrong])
        raise _UsageError(
            f"uets {name}: {_flag(wrong)}: invalid value {words[wrong]!r}: {hint}"
        )
    return {path: _get(parsed, path) for path in words}


def _flag(path: str) -> str:
    return "--" + path.replace("_", "-")


def _get(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree


def _tyro(name: str, words: dict[str, str]) -> Any:
    """The options with `words` set; None if tyro doesn't take a value."""
    import tyro

    options, silence = COMMANDS[name].options, io.StringIO()
    args = ["-" for _ in _positional(options)]
    args += [f"{_flag(path)}={text}" for path, text in words.items()]
    with (
        contextlib.redirect_stdout(silence),
        contextlib.redirect_stderr(silence),
        contextlib.suppress(SystemExit),
    ):
        return tyro.cli(options, args=args, config=_tyro_config())
    return None


def _expected(hint: Any, text: str) -> str:
    if typing.get_origin(hint) is Literal:
        return nearest(text, typing.get_args(hint))
    kinds = {int: "an integer", float: "a number", bool: "True or False"}
    return f"expected {kinds.get(hint, 'text')}"


def _help(name: str) -> str:
    """The flags of a command, with the docstrings of its fields and the defaults."""
    import tyro

    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        tyro.cli(
            COMMANDS[name].options,
            prog=f"uets {name}",
            args=["--help"],
            config=_tyro_config(),
        )
    return _named(name, page.getvalue())


def _named(name: str, page: str) -> str:
    """The help page with the names of positional arguments, which tyro calls STR."""
    names = [n.upper() for n in _positional(COMMANDS[name].options)]
    names = ["DIR ..." if n == "DIRS" else n for n in names]
    usage = " ".join(("usage: uets", name, *names, "[FLAGS]"))
    rows = page.partition("\n\n")[2].replace("(default: )", "(required)")
    column = re.compile(r"(?m)^  (\[\[STR.*?\]\]\]|STR {3,})(?= )")
    for positional in names:
        rows = column.sub(lambda m, p=positional: f"  {p:<{len(m[1])}}", rows, count=1)
    lines = [line.rstrip() for line in f"{usage}\n\n{rows}".rstrip().splitlines()]
    return "\n".join(lines)


def _tyro_config() -> tuple[Any, ...]:
    """`--flag True` for booleans; fields without a default have no flag."""
    import tyro

    return tyro.conf.FlagConversionOff, tyro.conf.PositionalRequiredArgs


# Values to configurations


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def _read(path: Path) -> ExperimentConfig:
    """The config in a JSON file; an error names the file."""
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}") from None


def _recipe(name: str) -> ExperimentConfig:
    """The config of a named recipe or of a JSON file."""
    known = {p.stem: p for p in sorted(RECIPES.glob("*.json"))}
    if name in known:
        return _read(known[name])
    if name.endswith(".json") or os.sep in name:
        return _read(Path(name))
    hint, listed = nearest(name, known), ", ".join(known)
    if hint.startswith("did you mean"):
        hint = f"{hint} There are {listed}"
    raise UserError(f"--recipe: no recipe {name!r}: {hint}; or give a .json file")


def _config(own: dict[str, Any], fields: dict[str, Any]) -> ExperimentConfig:
    """Defaults < recipe < preset and size < single flags."""
    base = _recipe(own["recipe"]) if "recipe" in own else None
    return validate(from_dict(_nested(fields), base))


def _resumed(
    own: dict[str, Any], fields: dict[str, Any]
) -> tuple[ExperimentConfig, Path]:
    """The config of a stored run, with the cadences that were given, and its path."""
    for flag in ("recipe", "out"):
        if flag in own:
            raise UserError(f"--{flag}: can't be combined with --resume")
    path = _run_dir(own["resume"])
    stored = _read(path / "config.json")
    for field, value in fields.items():
        if field not in _CADENCE and value != _get(stored, field):
            allowed = ", ".join(_flag(c) for c in _CADENCE)
            raise UserError(
                f"{_flag(field)}: can't be changed by --resume, only {allowed} can; "
                "start a new run"
            )
    return validate(from_dict(_nested(fields), stored)), path


def _run_dir(text: str) -> Path:
    path = Path(text)
    if not text or not os.path.isdir(path):
        raise UserError(f"{text!r}: no such directory")
    if not os.path.isfile(path / "config.json"):
        raise UserError(f"{text}: not the directory of a run (it has no config.json)")
    return path


def _new_dir(name: str, out: str) -> Path:
    """Where a new run goes: a directory that doesn't hold one already."""
    plain = name.isprintable() and "/" not in name and name not in ("", ".", "..")
    if not out and not (plain and len(name.encode()) < 256):
        raise UserError(f"name: {name!r} can't name a directory: set --name or --out")
    path = Path(out) if out else Path("runs", name)
    if os.path.exists(path / "config.json"):
        raise UserError(
            f"{path}: already holds a run: continue it with --resume {path} "
            "or choose another --out"
        )
    return _writable(path)


def _writable(path: Path) -> Path:
    """`path`, which is a directory that can be written or made."""
    there = next(p for p in (path, *path.absolute().parents) if os.path.exists(p))
    if not there.is_dir():
        raise UserError(f"{path}: {there} is not a directory")
    if not os.access(there, os.W_OK):
        raise UserError(f"{path}: {there} is not writable")
    return path


def _at_least(given: dict[str, Any], **least: int) -> None:
    for field, low in least.items():
        value = given.get(field, low)
        if not low <= value < 2**31:
            raise UserError(
                f"{_flag(field)}: must be at least {low} and below 2**31, got {value}"
            )


# Commands


def _train(given: dict[str, Any]) -> None:
    inherited = {f.name for f in dataclasses.fields(ExperimentConfig)}
    fields = {k: v for k, v in given.items() if k.partition(".")[0] in inherited}
    own = {k: v for k, v in given.items() if k not in fields}
    resume = "resume" in own
    if resume:
        config, out = _resumed(own, fields)
    else:
        config, out = _config(own, fields), None
    if own.get("print_config"):
        return _say(to_json(config).rstrip("\n"))
    out = out or _new_dir(config.name, own.get("out", ""))
    if own.get("dry_run"):
        return _say(_plan(config, out))

    from uets_jax.train import loop

    result = loop.train(config, out, resume=resume)
    _say(_summary(result.summary, out))


def _plan(config: ExperimentConfig, out: Path) -> str:
    """What a run would do and cost, as text."""
    from uets_jax.measure import flops

    m, o, t = config.model, config.optim, config.train
    m = dataclasses.replace(m, vocab=m.vocab or _vocab(config.data.tokenizer))
    cost = flops.describe(dataclasses.replace(config, model=m))
    known = "" if m.vocab else ", embedding not counted"
    per_step = t.batch * window_length(config)
    rows = {
        "name": config.name,
        "source": f"{config.data.source}, tokenizer {config.data.tokenizer}",
        "model": f"{m.preset} {m.size}: {m.depth} layers of width {m.width}, "
        f"{cost['params']:,} parameters{known}",
        "optimizer": f"{o.name}, learning rate {o.learning_rate:g} ({o.schedule})",
        "tokens": f"{per_step:,} per step x {t.steps:,} steps = {per_step * t.steps:,}",
        "FLOPs": f"{cost['flops']:.3g} ({cost['flops_per_token']:.3g} per token)",
        "output": str(out),
        "devices": "not touched (dry run)",
    }
    return "\n".join(f"{name:<11}{text}" for name, text in rows.items())


def _vocab(tokenizer: str) -> int:
    """Rows of the embedding, if the name of the tokenizer tells; else 0."""
    kind, _, size = tokenizer.partition(":")
    if kind == "bpe" and size.isdecimal():
        return int(size)
    return 257 if tokenizer == "bytes" else 0


def _summary(summary: dict[str, Any], out: Path) -> str:
    """The main numbers of a finished run, one a line, and where its report is."""
    totals = {k: float(sum(v.values())) for k, v in summary.items() if k in _LEDGERS}
    summary = {**summary, **totals}
    lines = [
        f"{key:<15}{value:.5g}" if isinstance(value, float) else f"{key:<15}{value:,}"
        for key in _SUMMARY
        if isinstance(value := summary.get(key), int | float)
    ]
    return "\n".join((*lines, f"{'report':<15}{out / 'report.html'}"))


def _eval(given: dict[str, Any]) -> None:
    options = Eval(**given)
    _at_least(given, tokens=0)
    path = _run_dir(options.dir)

    from uets_jax.train import finished

    scores = finished.evaluate_run(path, options.source, options.split, options.tokens)
    _say(json.dumps(scores, indent=2))


def _report(given: dict[str, Any]) -> None:
    options = Report(**given)
    runs = [_run_dir(d) for d in options.dirs]
    default = runs[0] / "report.html" if len(runs) == 1 else Path("report.html")
    out = Path(options.out) if options.out else default
    _writable(out.parent)
    if out.is_dir():
        raise UserError(f"--out: {out} is a directory; name a file")

    from uets_jax.report import html

    _say(str(html.write_report(runs, out)))


def _generate(given: dict[str, Any]) -> None:
    o = Generate(**given)
    _at_least(given, tokens=1, temperature=0, top_k=0, seed=0)
    path = _run_dir(o.dir)

    from uets_jax.train import finished

    how = (o.tokens, o.temperature, o.top_k, o.seed)
    _say(finished.generate_run(path, o.prompt, *how))


def _tokenize(given: dict[str, Any]) -> None:
    given = dict(given)
    path = _writable(Path(given.pop("dir")))
    data = validate(from_dict({"data": given})).data

    from uets_jax.data import store

    written = store.write_store(str(path), data)
    counts = {key: written.meta[key] for key in ("splits", "skipped")}
    _say(json.dumps({"directory": written.directory, **counts}, indent=2))


class Command(NamedTuple):
    """The dataclass of its flags, and what it does with those that were given."""

    options: Any
    act: Callable[[dict[str, Any]], None]


COMMANDS: dict[str, Command] = {
    "train": Command(Train, _train),
    "eval": Command(Eval, _eval),
    "report": Command(Report, _report),
    "generate": Command(Generate, _generate),
    "tokenize": Command(Tokenize, _tokenize),
}
