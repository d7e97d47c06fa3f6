"""The command line: what it accepts, what it refuses in one line, how fast."""

import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uets_jax import cli
from uets_jax.config import ExperimentConfig, to_json, validate
from uets_jax.errors import NonFiniteLossError, StoppedError, UserError
from uets_jax.models.presets import from_dict

ROOT = Path(__file__).parents[1]
SLACK = 2  # a loaded machine
SUMMARY = {
    "name": "first",
    "steps": 3_000,
    "final_loss": 1.234567,
    "flops": {"train": 3_000_000, "validation": 500_000},
    "seconds": {"train": 2.0, "compile": 1.5},
    "joules": None,
}
STORE = types.SimpleNamespace(
    directory="store",
    meta={"splits": {"train": {"tokens": 12}}, "skipped": {}, "dtype": "uint16"},
)
ENOUGH = st.integers(1, 2**31 - 1)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test runs in an empty directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """What the commands ask of the rooms below them, which are replaced."""
    seen = []

    def room(module: str, **functions):
        fake = types.ModuleType(module)
        for name, function in functions.items():
            setattr(fake, name, function)
        monkeypatch.setitem(sys.modules, module, fake)
        parent, _, leaf = module.rpartition(".")
        __import__(parent)
        monkeypatch.setattr(sys.modules[parent], leaf, fake, raising=False)

    def train(config, out, resume=False):
        seen.append((config, out, resume))
        return types.SimpleNamespace(summary=SUMMARY)

    def note(answer):
        def call(*args):
            seen.append(args)
            return answer

        return call

    room("uets_jax.train.loop", train=train)
    room(
        "uets_jax.train.finished",
        evaluate_run=note({"loss": 2.5}),
        generate_run=note("once upon a time"),
    )
    room("uets_jax.report.html", write_report=note(Path("report.html")))
    room("uets_jax.data.store", write_store=note(STORE))
    return seen


@pytest.fixture
def run(tmp_path):
    """The directory of a run of three steps."""
    path = tmp_path / "stored"
    path.mkdir()
    config = from_dict({"name": "stored", "train": {"steps": 3}})
    (path / "config.json").write_text(to_json(config))
    return path


def printed(capsys, *argv: str) -> ExperimentConfig:
    """The config that `uets train ... --print-config` prints."""
    assert cli.main(["train", *argv, "--print-config"]) == 0
    return from_dict(json.loads(capsys.readouterr().out))


def complaint(capsys, *argv: str) -> str:
    """The one line with which a wrong command line is refused."""
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert err.startswith("uets")
    assert "Traceback" not in err
    return err


WRONG_WORDS = [
    ("", "no command"),
    ("trian", "did you mean 'train'?"),
    ("--verbose", "--verbose"),
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

WRONG_VALUES = [
    ("train --recipe quikstart", "did you mean 'quickstart'? There are gpt2-nano"),
    ("train --recipe zzzzzzz", "tiny"),
    ("train --recipe=", "--recipe: no recipe ''"),
    ("train --recipe absent.json", "absent.json"),
    ("train --recipe nowhere/recipe", "nowhere/recipe"),
    ("train --model.preset modrn", "model.preset: 'modrn': did you mean 'modern'"),
    ("train --model.size naon", "model.size: 'naon': did you mean 'nano'"),
    ("train --model.depth 0", "model.depth"),
    ("train --model.width -1", "model.width"),
    ("train --model.heads 0", "model.heads"),
    ("train --model.kv-heads 3", "model.kv_heads"),
    ("train --model.head-dim 5", "model.head_dim"),
    ("train --model.context 0", "model.context"),
    ("train --model.softcap nan", "model.softcap"),
    ("train --model.mask-documents --model.attention cudnn", "model.attention"),
    ("train --data.length 129", "data.length"),
    ("train --data.valid-fraction 1", "data.valid_fraction"),
    ("train --data.valid-fraction nan", "data.valid_fraction"),
    ("train --optim.learning-rate -1", "optim.learning_rate"),
    ("train --optim.learning-rate 1e999", "optim.learning_rate"),
    ("train --optim.b2 1.0", "optim.b2"),
    ("train --optim.decay 1.5", "optim.decay"),
    ("train --optim.floor 2", "optim.floor"),
    ("train --train.steps 0", "train.steps"),
    ("train --train.steps 99999999999", "train.steps"),
    ("train --train.batch 0", "train.batch"),
    ("train --train.microbatches 3", "train.microbatches"),
    ("train --train.seed -1", "train.seed"),
    ("train --train.seed 2147483648", "train.seed"),
    ("train --train.keep 0", "train.keep"),
    ("train --train.mesh.fsdp 0", "train.mesh.fsdp"),
    ("train --name a/b", "name: 'a/b'"),
    ("train --name ..", "name: '..'"),
    ("train --name=", "name: ''"),
    ("train --resume absent", "'absent': no such directory"),
    ("train --resume=", "no such directory"),
    ("train --resume .", "config.json"),
    ("eval absent", "'absent': no such directory"),
    ("report absent", "'absent': no such directory"),
    ("generate absent", "'absent': no such directory"),
    ("eval absent --tokens=-1", "--tokens"),
    ("generate absent --tokens 0", "--tokens"),
    ("generate absent --temperature=-1", "--temperature"),
    ("generate absent --temperature nan", "--temperature"),
    ("generate absent --top-k -1", "--top-k"),
    ("generate absent --seed -1", "--seed"),
    ("tokenize builtin out --valid-fraction 1", "data.valid_fraction"),
]

WRONG_RECIPES = [
    ("not json", "recipe.json"),
    ('{"train": {"steps": 5}', "recipe.json"),
    ("[]", "expected an object"),
    ("5", "expected an object"),
    ("null", "expected an object"),
    ('{"trian": {}}', "did you mean 'train'?"),
    ('{"train": {"step": 5}}', "unknown key 'train.step': did you mean 'steps'?"),
    ('{"train": 5}', "train: expected an object"),
    ('{"model": []}', "model: expected an object"),
    ('{"train": {"steps": "5"}}', "train.steps: expected int"),
    ('{"train": {"steps": 5.0}}', "train.steps: expected int"),
    ('{"train": {"steps": true}}', "train.steps: expected int"),
    ('{"train": {"steps": null}}', "train.steps: expected int"),
    ('{"model": {"tied": 1}}', "model.tied: expected bool"),
    ('{"model": {"width": "64"}}', "model.width: expected int"),
    ('{"model": {"width": {}}}', "model.width: expected int"),
    ('{"model": {"heads": "2"}}', "model.heads: expected int"),
    ('{"model": {"preset": ["modern"]}}', "model.preset"),
    ('{"model": {"size": 5}}', "model.size"),
    ('{"optim": {"name": "sgd"}}', "optim.name: 'sgd'"),
    ('{"optim": {"learning_rate": NaN}}', "optim.learning_rate"),
    ('{"optim": {"learning_rate": -1}}', "optim.learning_rate"),
    ('{"name": "a\\u0000b"}', "name: 'a\\x00b'"),
    ("[" * 100_000, "recipe.json"),
]


@pytest.mark.parametrize(("line", "culprit"), WRONG_WORDS + WRONG_VALUES)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(capsys, calls, line, culprit):
    assert culprit in complaint(capsys, *line.split())
    assert calls == []


@pytest.mark.parametrize(("text", "culprit"), WRONG_RECIPES)
def test_a_wrong_recipe_is_one_line_and_exit_code_2(
    capsys, calls, elsewhere, text, culprit
):
    (elsewhere / "recipe.json").write_text(text)
    assert culprit in complaint(capsys, "train", "--recipe", "recipe.json")
    assert calls == []


def test_unreadable_recipes_are_one_line(capsys, elsewhere):
    (elsewhere / "folder.json").mkdir()
    (elsewhere / "bytes.json").write_bytes(b"\xff\xfe")
    for name in ("folder.json", "bytes.json"):
        assert name in complaint(capsys, "train", "--recipe", name)


def test_no_two_cases_are_the_same():
    lines = [line for line, _ in WRONG_WORDS + WRONG_VALUES]
    assert len(set(lines)) == len(lines) > 50


@pytest.mark.parametrize("recipe", sorted(p.stem for p in cli.RECIPES.glob("*.json")))
def test_every_recipe_is_valid_and_bears_its_name(capsys, recipe):
    config = printed(capsys, "--recipe", recipe)
    assert config == validate(config)
    assert config.name == recipe


def test_the_recipes_that_the_documents_name_exist():
    known = {p.stem for p in cli.RECIPES.glob("*.json")}
    assert {"quickstart", "tiny", "gpt2-nano"} <= known


overrides = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(min_size=1).filter(lambda s: s[0] != "-"),
        "data.source": st.sampled_from(["builtin", "files:*.txt", "tokens:a b"]),
        "data.length": st.integers(0, 128),
        "model.preset": st.sampled_from(["modern", "gpt2"]),
        "model.size": st.sampled_from(["nano", "micro", "gpt2-small"]),
        "model.depth": ENOUGH,
        "model.width": ENOUGH,
        "model.heads": ENOUGH,
        "model.tied": st.booleans(),
        "model.qk_norm": st.booleans(),
        "model.norm": st.sampled_from(["rms", "layer"]),
        "optim.learning_rate": st.floats(0, 1e6),
        "optim.eps": st.floats(0, 1),
        "optim.schedule": st.sampled_from(["wsd", "cosine"]),
        "train.steps": ENOUGH,
        "train.seed": st.integers(0, 2**31 - 1),
        "train.mesh.fsdp": st.integers(1, 64),
    },
)


@given(overrides, st.booleans(), st.booleans())
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_flags_recipe_and_python_agree_and_print_config_round_trips(
    capsys, elsewhere, values, dashes, glued
):
    argv = []
    for path, value in values.items():
        flag = "--" + (path.replace("_", "-") if dashes else path)
        argv += [f"{flag}={value}"] if glued else [flag, str(value)]
    assert cli.main(["train", *argv, "--print-config"]) == 0
    first = capsys.readouterr().out

    nested = cli._nested(values)
    (elsewhere / "nested.json").write_text(json.dumps(nested))
    assert cli.main(["train", "--recipe", "nested.json", "--print-config"]) == 0
    assert capsys.readouterr().out == first == to_json(from_dict(nested))

    (elsewhere / "first.json").write_text(first)
    assert cli.main(["train", "--recipe", "first.json", "--print-config"]) == 0
    assert capsys.readouterr().out == first


def test_nothing_given_is_the_default_config(capsys):
    assert printed(capsys) == ExperimentConfig()


def test_single_flags_win_over_preset_and_size_over_recipe(capsys, elsewhere):
    recipe = {
        "model": {"depth": 9, "softcap": 3.0, "dtype": "bfloat16", "remat": True},
        "train": {"steps": 7, "batch": 4},
    }
    (elsewhere / "r.json").write_text(json.dumps(recipe))
    flags = ["--train.steps", "8", "--model.width", "64", "--model.size", "micro"]
    config = printed(capsys, *flags, "--recipe", "r.json")
    assert (config.train.steps, config.train.batch) == (8, 4)
    assert (config.model.size, config.model.depth) == ("micro", 6)
    assert (config.model.width, config.model.hidden) == (64, 256)
    # the size is about dimensions: what else the recipe says stays
    assert (config.model.softcap, config.model.dtype) == (3.0, "bfloat16")
    assert config.model.remat


def test_a_preset_keeps_the_dimensions_and_a_single_flag_beats_it(capsys):
    flags = ["--model.softcap", "7", "--model.preset", "gpt2", "--model.depth", "3"]
    model = printed(capsys, *flags).model
    assert (model.position, model.norm, model.tied) == ("learned", "layer", True)
    assert (model.depth, model.width, model.softcap) == (3, 128, 7.0)


def test_heads_and_width_take_their_followers_along(capsys):
    model = printed(capsys, "--model.heads", "6", "--model.width", "48").model
    assert (model.kv_heads, model.hidden) == (6, 192)
    model = printed(capsys, "--model.heads", "6", "--model.kv-heads", "2").model
    assert (model.heads, model.kv_heads) == (6, 2)


def test_the_last_of_two_equal_flags_wins(capsys):
    twice = printed(capsys, "--train.steps=1", "--train.steps", "2")
    assert twice.train.steps == 2


@pytest.mark.parametrize(
    ("words", "tied"),
    [
        ("--model.tied", True),
        ("--model.tied true", True),
        ("--model.tied=TRUE", True),
        ("--model.tied False", False),
        ("--model.preset gpt2", True),
        ("--model.preset gpt2 --model.tied=false", False),
    ],
)
def test_a_boolean_flag_may_be_bare(capsys, words, tied):
    assert printed(capsys, *words.split()).model.tied is tied


def test_values_may_begin_with_a_dash_or_hold_an_equals_sign(capsys):
    config = printed(capsys, "--name=--train.steps=3", "--data.source", "files:a=b")
    assert (config.name, config.data.source) == ("--train.steps=3", "files:a=b")
    assert config.train.steps == ExperimentConfig().train.steps


def test_train_runs_in_runs_name_and_prints_the_report(capsys, calls):
    assert cli.main(["train", "--name", "first", "--train.steps=3"]) == 0
    [(config, out, resume)] = calls
    assert (config.train.steps, out, resume) == (3, Path("runs/first"), False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["steps", "3,000"],
        ["final_loss", "1.2346"],
        ["flops", "3.5e+06"],
        ["seconds", "3.5"],
        ["report", "runs/first/report.html"],
    ]


def test_train_runs_where_out_says(calls):
    assert cli.main(["train", "--out", "here"]) == 0
    assert calls[0][1] == Path("here")


def test_a_directory_that_holds_a_run_is_refused(capsys, calls, run):
    line = complaint(capsys, "train", "--out", str(run))
    assert f"--resume {run}" in line
    assert calls == []


def test_an_out_that_is_no_directory_is_refused(capsys, calls, elsewhere):
    (elsewhere / "file").write_text("")
    for out in ("file", "file/run"):
        assert "is not a directory" in complaint(capsys, "train", "--out", out)
        assert "is not a directory" in complaint(capsys, "tokenize", "builtin", out)
    assert calls == []


def test_dry_run_prints_the_plan_and_trains_nothing(capsys, calls, monkeypatch):
    from uets_jax.measure import flops

    cost = {"params": 12_345, "tokens": 1, "flops_per_token": 6.0, "flops": 7.5e15}
    monkeypatch.setattr(flops, "describe", lambda config: cost)
    argv = [
        "train",
        "--recipe",
        "tiny",
        "--train.steps",
        "10",
        "--out",
        "there",
        "--dry-run",
    ]
    assert cli.main(argv) == 0
    plan = capsys.readouterr().out
    for part in ("tiny", "builtin", "12,345", "256 per step", "2,560", "7.5e+15"):
        assert part in plan
    for part in ("muon", "there", "devices"):
        assert part in plan
    assert calls == []
    assert not Path("there").exists()


def test_dry_run_counts_the_embedding_if_the_tokenizer_tells(capsys):
    for tokenizer, known in (("bytes", True), ("bpe:300", True), ("a.json", False)):
        argv = ["train", "--dry-run", "--data.tokenizer", tokenizer]
        assert cli.main(argv) == 0
        assert ("not counted" not in capsys.readouterr().out) is known


def test_resume_takes_the_stored_config_and_new_cadences(calls, run):
    argv = ["train", "--resume", str(run), "--train.log-every=1", "--train.keep=9"]
    assert cli.main(argv) == 0
    [(config, out, resume)] = calls
    assert (out, resume) == (run, True)
    assert (config.name, config.train.steps) == ("stored", 3)
    assert (config.train.log_every, config.train.keep) == (1, 9)


def test_resume_takes_a_flag_that_changes_nothing(calls, run):
    assert cli.main(["train", "--resume", str(run), "--train.steps", "3"]) == 0
    assert calls[0][0].train.steps == 3


@pytest.mark.parametrize(
    "flag",
    [
        "--train.steps=4",
        "--train.seed=1",
        "--train.batch=16",
        "--train.eval-tokens=1",
        "--model.depth=2",
        "--model.preset=gpt2",
        "--optim.learning-rate=1",
        "--data.source=files:x",
        "--name=other",
        "--out=other",
        "--recipe=tiny",
        "--train.keep=0",
    ],
)
def test_resume_refuses_what_would_change_the_run(capsys, calls, run, flag):
    line = complaint(capsys, "train", "--resume", str(run), flag)
    assert flag.partition("=")[0].removeprefix("--") in line
    assert calls == []


def test_resume_names_a_broken_config(capsys, run):
    (run / "config.json").write_text("{")
    assert "config.json" in complaint(capsys, "train", "--resume", str(run))


def test_eval_prints_json(capsys, calls, run):
    argv = ["eval", str(run), "--split", "train", "--tokens=5", "--source", "files:x"]
    assert cli.main(argv) == 0
    assert calls == [(run, "files:x", "train", 5)]
    assert json.loads(capsys.readouterr().out) == {"loss": 2.5}


def test_generate_prints_the_text(capsys, calls, run):
    argv = ["generate", str(run), "--prompt", "once", "--top_k=4", "--temperature", "0"]
    assert cli.main(argv) == 0
    assert calls == [(run, "once", 120, 0.0, 4, 0)]
    assert capsys.readouterr().out == "once upon a time\n"


def test_report_chooses_its_file(calls, run):
    a, out = str(run), "x.html"
    for argv in ([a], [a, a], [a, "--out", out], ["--out=" + out, a, a]):
        assert cli.main(["report", *argv]) == 0
    assert calls == [
        ([run], run / "report.html"),
        ([run, run], Path("report.html")),
        ([run], Path(out)),
        ([run, run], Path(out)),
    ]


def test_report_refuses_a_directory_as_its_file(capsys, calls, run):
    assert "--out" in complaint(capsys, "report", str(run), "--out", str(run))
    assert calls == []


def test_tokenize_hands_on_a_data_config(capsys, calls):
    argv = ["tokenize", "files:*.txt", "store", "--on-error=skip"]
    assert cli.main([*argv, "--tokenizer", "bytes", "--valid-fraction", "0.5"]) == 0
    [(path, data)] = calls
    assert (path, data.source) == ("store", "files:*.txt")
    assert (data.tokenizer, data.on_error) == ("bytes", "skip")
    assert data.valid_fraction == 0.5
    assert json.loads(capsys.readouterr().out) == {
        "directory": "store",
        "splits": {"train": {"tokens": 12}},
        "skipped": {},
    }


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("two\nlines"), 2, "uets: error: two lines\n"),
        (NonFiniteLossError("at step 3"), 3, "uets: error: at step 3\n"),
        (StoppedError("saved step 3"), 75, "uets: saved step 3\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_each_end_has_its_exit_code(capsys, calls, monkeypatch, error, code, text):
    def end(*args, **kwargs):
        raise error

    monkeypatch.setattr(sys.modules["uets_jax.train.loop"], "train", end)
    assert cli.main(["train"]) == code
    assert capsys.readouterr().err == text


def test_a_bug_keeps_its_traceback(calls, monkeypatch):
    def bug(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["uets_jax.train.loop"], "train", bug)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_a_command_lists_its_flags(capsys, name):
    assert cli.main([name, "--help"]) == 0
    page = capsys.readouterr().out
    for path in cli._fields(cli.COMMANDS[name].options):
        assert "--" + path.replace("_", "-") in page
    for word in cli._positional(cli.COMMANDS[name].options):
        assert f"\n  {word.upper().removesuffix('S')} " in page


def test_the_help_of_train_holds_the_docstrings(capsys):
    assert cli.main(["train", "-h"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    for text in ("bpe:VOCAB", "Steps of linear warm-up", "Devices per mesh axis"):
        assert text in page


def test_the_overview_lists_the_commands(capsys):
    assert cli.main(["--help"]) == 0
    page = capsys.readouterr().out
    assert all(f"\n  {name} " in page for name in cli.COMMANDS)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("uets ")


def uets(*argv: str, **options) -> tuple[subprocess.CompletedProcess[str], float]:
    """A real process, and its seconds."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "uets_jax", *argv],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )
    return done, time.perf_counter() - start


def test_help_is_quick():
    done, seconds = uets("--help")
    assert done.returncode == 0
    assert "train" in done.stdout
    assert done.stderr == ""
    assert seconds < 1.5 * SLACK


@pytest.mark.parametrize("flag", ["--train.setps=3", "--train.steps=three"])
def test_a_wrong_flag_is_refused_quickly(flag):
    done, seconds = uets("train", flag)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert seconds < 3 * SLACK


def test_a_folder_named_experiments_does_not_hide_the_recipes(elsewhere):
    (elsewhere / "experiments").mkdir()
    done, _ = uets("train", "--recipe", "tiny", "--print-config", cwd=elsewhere)
    assert json.loads(done.stdout)["name"] == "tiny"


def test_importing_and_refusing_load_nothing_heavy():
    code = (
        "import sys; from uets_jax import cli; cli.main(['train', '--absent']);"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True
    )
    heavy = {"jax", "flax", "optax", "orbax", "grain", "tokenizers", "tyro", "numpy"}
    assert not heavy & set(done.stdout.split())


def test_a_closed_pipe_is_quiet():
    script = f"{sys.executable} -m uets_jax train --help; echo $? >&2"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write) as pipe:
        done = subprocess.run(
            ["sh", "-c", script], env=env, stdout=pipe, stderr=subprocess.PIPE
        )
    assert done.stderr.decode().split() == [str(cli.EXIT_PIPE)]
