"""Flags: what is read from the words, and how wrong ones are refused."""

import dataclasses

import pytest

from uets_jax import flags, options
from uets_jax.config import ModelConfig

OPTIONS = {
    "train": options.Train,
    "eval": options.Eval,
    "report": options.Report,
    "generate": options.Generate,
    "tokenize": options.Tokenize,
}

WRONG_WORDS = [
    ("train --train.step 5", "did you mean --train.steps?"),
    ("train --trian.steps=5", "did you mean --train.steps?"),
    ("train --steps 5", "did you mean --train.steps?"),
    ("train --decay 5", "did you mean --optim.decay?"),
    ("train --lr 1", "--lr"),
    ("train --zzz", "--zzz"),
    ("train --", "--"),
    ("train -x", "-x"),
    ("train -name run", "-name"),
    ("train surplus", "'surplus'"),
    ("train --train.steps", "--train.steps: a value is missing"),
    ("train --train.steps --dry-run", "--train.steps: a value is missing"),
    ("train --model.depth x", "--model.depth: invalid value 'x'"),
    ("train --train.steps=1e3", "--train.steps: invalid value '1e3'"),
    ("train --train.steps=", "--train.steps"),
    ("train --train.batch 2.5", "--train.batch"),
    ("train --optim.learning_rate fast", "--optim.learning-rate"),
    ("train --optim.learning-rate 1,5", "--optim.learning-rate"),
    ("train --model.tied=maybe", "--model.tied"),
    ("train --model.tied maybe", "'maybe'"),
    ("train --dry-run=perhaps", "--dry-run"),
    ("train --model.norm rsm", "--model.norm: invalid value 'rsm': did you mean 'rms'"),
    ("train --optim.name adam", "'adamw'"),
    ("train --optim.schedule step", "--optim.schedule"),
    ("train --data.on-error ignore", "--data.on-error"),
    ("train --model.dtype float16", "--model.dtype"),
    ("eval", "DIR is missing"),
    ("eval a b", "'b'"),
    ("eval a --split test", "--split"),
    ("eval a --tokens many", "--tokens"),
    ("eval a --task b", "did you mean --tasks?"),
    ("eval a --tasks", "--tasks: a value is missing"),
    ("eval a --limit few", "--limit"),
    ("report", "DIR is missing"),
    ("report a --output b", "did you mean --out?"),
    ("generate", "DIR is missing"),
    ("generate a --top-k few", "--top-k"),
    ("generate a --temperature hot", "--temperature"),
    ("tokenize", "SOURCE is missing"),
    ("tokenize builtin", "DIR is missing"),
    ("tokenize builtin a b", "'b'"),
    ("tokenize builtin a --valid_fraction half", "--valid-fraction"),
]


@dataclasses.dataclass(frozen=True)
class Copy:
    """Copy a file to places."""

    source: str
    """What to copy."""
    targets: tuple[str, ...]
    """Where to."""
    model: ModelConfig = ModelConfig()
    scale: float = 1.0
    """Of the copy."""
    force: bool = False
    """Even if it exists."""


def parse(line: str) -> dict:
    """What a command line of `uets` gives."""
    name, *argv = line.split()
    return flags.parse(f"uets {name}", OPTIONS[name], argv)


def copy(*argv: str) -> dict:
    """What a command line of `copy` gives, without the two positional words."""
    given = flags.parse("copy", Copy, ["a", "b", *argv])
    return {k: v for k, v in given.items() if k not in ("source", "targets")}


@pytest.mark.parametrize(("line", "culprit"), WRONG_WORDS)
def test_a_wrong_word_is_named(line, culprit):
    with pytest.raises(flags.UsageError) as error:
        parse(line)
    assert str(error.value).startswith(f"uets {line.split()[0]}: ")
    assert culprit in str(error.value)


def test_no_two_cases_are_the_same():
    assert len({line for line, _ in WRONG_WORDS}) == len(WRONG_WORDS)


def test_the_first_value_that_is_wrong_is_named():
    with pytest.raises(flags.UsageError, match="--scale: invalid value 'x'"):
        copy("--force", "--scale", "x", "--model.depth", "y")


def test_values_have_the_types_of_their_fields_and_nothing_else_is_given():
    given = copy("--model.head-dim", "8", "--scale=2", "--force", "--model.norm", "rms")
    assert given == {
        "model.head_dim": 8,
        "scale": 2.0,
        "force": True,
        "model.norm": "rms",
    }
    assert type(given["scale"]) is float
    assert copy() == {}


@pytest.mark.parametrize(
    "line",
    ["--force a b c", "a --force b c", "a b c --force"],
)
def test_words_stand_anywhere_and_the_last_takes_all_that_are_left(line):
    given = flags.parse("copy", Copy, line.split())
    assert given == {"force": True, "source": "a", "targets": ("b", "c")}


@pytest.mark.parametrize(
    ("argv", "name"), [(["--force"], "SOURCE"), (["a"], "TARGET"), ([], "SOURCE")]
)
def test_a_missing_word_is_named(argv, name):
    with pytest.raises(flags.UsageError, match=f"copy: {name} is missing"):
        flags.parse("copy", Copy, argv)


def test_the_last_of_two_equal_flags_wins():
    assert copy("--scale=1", "--scale", "2") == {"scale": 2.0}


@pytest.mark.parametrize("dashes", ["--model.kv-heads", "--model.kv_heads"])
def test_dashes_and_underscores_are_one(dashes):
    assert copy(dashes, "2") == {"model.kv_heads": 2}


@pytest.mark.parametrize(
    ("words", "force"),
    [
        ("--force", True),
        ("--force true", True),
        ("--force=TRUE", True),
        ("--force False", False),
        ("--force --scale 1", True),
    ],
)
def test_a_boolean_flag_may_be_bare(words, force):
    assert copy(*words.split())["force"] is force


def test_values_may_begin_with_a_dash_or_hold_an_equals_sign():
    given = copy("--model.size=--scale=3", "--model.preset", "a=b", "--scale", "-1")
    assert given == {"model.size": "--scale=3", "model.preset": "a=b", "scale": -1.0}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_help_of_a_command_lists_its_flags(name):
    page = flags.help_page(f"uets {name}", OPTIONS[name])
    assert page.startswith(f"usage: uets {name} ")
    for path in flags.flag_types(OPTIONS[name]):
        assert flags.spelled(path) in page
    for word in flags.positionals(OPTIONS[name]).values():
        assert f"\n  {word} " in page


def test_the_help_holds_the_docstrings():
    page = " ".join(flags.help_page("uets train", options.Train).split())
    for text in ("bpe:VOCAB", "Steps of linear warm-up", "Devices per mesh axis"):
        assert text in page


def test_the_help_names_words_and_the_ones_that_may_come_several_times():
    page = flags.help_page("copy", Copy)
    assert page.startswith("usage: copy SOURCE TARGET ... [FLAGS]\n")
    assert "What to copy. (required)" in " ".join(page.split())


def test_a_path_leads_to_a_field_and_is_spelled_with_dashes():
    config = Copy("a", (), ModelConfig(kv_heads=2))
    assert flags.value_at(config, "model.kv_heads") == 2
    assert flags.spelled("model.kv_heads") == "--model.kv-heads"
