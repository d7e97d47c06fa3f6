"""Words to values: flags are scanned, typed, and explained when they are wrong.

The flags of a command are the fields of a dataclass, nested ones by their dotted path;
a field without a default is a positional word. The words are scanned here, so that a
wrong one costs a fraction of a second and one line; tyro turns the values into the
types of the fields and writes the help.
"""

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Iterable
from typing import Any, Literal

from uets_jax.errors import UserError, nearest

MORE = " ..."  # ends the name of a word that may come several times


class UsageError(UserError):
    """A wrong command line; its text begins with the command."""


def parse(command: str, options: Any, argv: list[str]) -> dict[str, Any]:
    """The values that were given, by dotted path, with the types of their fields.

    Args:
      command: how messages call it, such as `uets train`.
      options: the dataclass of its flags.
      argv: the words after the command.

    Raises:
      UsageError: naming the first wrong word, and what was meant if that is near.
    """
    words, rest = _scan(command, options, argv)
    given, names = _typed(command, options, words), positionals(options)
    if len(rest) < len(names):
        wanted = [*names.values()][len(rest)].removesuffix(MORE)
        raise UsageError(f"{command}: {wanted} is missing; see {command} --help")
    if names and [*names.values()][-1].endswith(MORE):
        last = len(names) - 1
        rest = [*rest[:last], tuple(rest[last:])]
    if len(rest) > len(names):
        raise UsageError(f"{command}: unexpected argument {rest[len(names)]!r}")
    return given | dict(zip(names, rest, strict=True))


def flag_types(options: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted path of each flag -> its type."""
    hints, found = typing.get_type_hints(options), {}
    for field in dataclasses.fields(options):
        path = prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            found |= flag_types(hints[field.name], path + ".")
        elif field.default is not dataclasses.MISSING:
            found[path] = hints[field.name]
    return found


def positionals(options: Any) -> dict[str, str]:
    """Field of each positional word -> its name in the help: `DIR`, or `DIR ...`."""
    hints, missing = typing.get_type_hints(options), dataclasses.MISSING
    names = [f.name for f in dataclasses.fields(options) if f.default is missing]
    many = [name for name in names if typing.get_origin(hints[name]) is tuple]
    call = lambda n: n.upper().removesuffix("S") + MORE if n in many else n.upper()
    return {name: call(name) for name in names}


def spelled(path: str) -> str:
    """A dotted path as it is typed: `--model.head-dim`."""
    return "--" + path.replace("_", "-")


def value_at(tree: Any, path: str) -> Any:
    """The field at a dotted path of nested dataclasses."""
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree


def help_page(command: str, options: Any) -> str:
    """The flags of a command, with the docstrings of its fields and the defaults."""
    _, page = _tyro(options, ["--help"])
    names = [*positionals(options).values()]
    usage = " ".join(("usage:", command, *names, "[FLAGS]"))
    rows = page.partition("\n\n")[2].replace("(default: )", "(required)")
    # tyro calls every positional word STR
    column = re.compile(r"(?m)^  (\[\[STR.*?\]\]\]|STR {3,})(?= )")
    for name in names:
        rows = column.sub(lambda m, n=name: f"  {n:<{len(m[1])}}", rows, count=1)
    lines = [line.rstrip() for line in f"{usage}\n\n{rows}".rstrip().splitlines()]
    return "\n".join(lines)


def _scan(
    command: str, options: Any, argv: list[str]
) -> tuple[dict[str, str], list[Any]]:
    """Flags with the text of their values, and the other words."""
    flags = flag_types(options)
    words, rest, queue = {}, [], list(argv)
    while queue:
        word = queue.pop(0)
        if not word.startswith("-"):
            rest.append(word)
            continue
        flag, equals, value = word.partition("=")
        path = flag.removeprefix("--").replace("-", "_")
        if path not in flags or not flag.startswith("--"):
            hint = _meant(path, flags) or f"see {command} --help"
            raise UsageError(f"{command}: unknown flag {flag}: {hint}")
        if flags[path] is bool:
            if not equals:
                follows = queue and queue[0].lower() in ("true", "false")
                value = queue.pop(0) if follows else "True"
            value = value.capitalize()
        elif not equals:
            if not queue or queue[0].startswith("--"):
                raise UsageError(f"{command}: {flag}: a value is missing")
            value = queue.pop(0)
        words[path] = value
    return words, rest


def _meant(path: str, flags: Iterable[str]) -> str:
    """A hint at the flag that ends like `path`, or is spelled like it, if any."""
    leaf = [f for f in flags if f.endswith("." + path)]
    hint = f"did you mean {leaf[0]!r}?" if leaf else nearest(path, flags)
    found = re.fullmatch(r"did you mean '(.*)'\?", hint)
    return f"did you mean {spelled(found[1])}?" if found else ""


def _typed(command: str, options: Any, words: dict[str, str]) -> dict[str, Any]:
    """The values of `words` with the types of their fields, by tyro."""
    if not words:
        return {}

    def read(words: dict[str, str]) -> Any:
        stand_ins = ["-" for _ in positionals(options)]
        flags = [f"{spelled(path)}={text}" for path, text in words.items()]
        return _tyro(options, stand_ins + flags)[0]

    parsed = read(words)
    if parsed is None:
        wrong = next(p for p in words if read({p: words[p]}) is None)
        hint = _expected(flag_types(options)[wrong], words[wrong])
        culprit = f"{spelled(wrong)}: invalid value {words[wrong]!r}"
        raise UsageError(f"{command}: {culprit}: {hint}")
    return {path: value_at(parsed, path) for path in words}


def _expected(hint: Any, text: str) -> str:
    if typing.get_origin(hint) is Literal:
        return nearest(text, typing.get_args(hint))
    kinds = {int: "an integer", float: "a number", bool: "True or False"}
    return f"expected {kinds.get(hint, 'text')}"


def _tyro(options: Any, args: list[str]) -> tuple[Any, str]:
    """(the options that tyro reads from `args`, None if it refuses; what it prints)."""
    import tyro

    # `--flag True` for booleans; fields without a default have no flag
    config = tyro.conf.FlagConversionOff, tyro.conf.PositionalRequiredArgs
    read, page = None, io.StringIO()
    with (
        contextlib.redirect_stdout(page),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        read = tyro.cli(options, args=args, config=config)
    return read, page.getvalue()
