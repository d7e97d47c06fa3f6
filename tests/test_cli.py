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
from uets_jax.config import ExperimentConfig, nested, to_json
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


class Calls(list):
    """Main arguments; `given` has what else `train` was told."""

    given: list


@pytest.fixture
def calls(monkeypatch):
    """What the commands ask of the rooms below them, which are replaced."""
    seen, given = Calls(), []
    seen.given = given

    def room(module: str, **functions):
        fake = types.ModuleType(module)
        for name, function in functions.items():
            setattr(fake, name, function)
        monkeypatch.setitem(sys.modules, module, fake)
        parent, _, leaf = module.rpartition(".")
        __import__(parent)
        monkeypatch.setattr(sys.modules[parent], leaf, fake, raising=False)

    def train(config, out, resume=False, allow=(), profile=0):
        seen.append((config, out, resume))
        given.append((list(allow), profile))
        return types.SimpleNamespace(summary=SUMMARY)

    def note(answer):
        def call(*args):
            seen.append(args)
            return answer

        return call

    __import__("uets_jax.train.plan")  # which has the real rooms, whatever ran before
    room("uets_jax.train.loop", train=train)
    room(
        "uets_jax.train.finished",
        evaluate_run=note({"loss": 2.5}),
        evaluate_tasks=note({"a_accuracy": 0.5}),
        generate_run=note("once upon a time"),
    )
    room("uets_jax.report.html", write_reports=note([Path("a.html"), Path("a.md")]))
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


WRONG = [
    ("", "no command"),
    ("trian", "did you mean 'train'?"),
    ("--verbose", "--verbose"),
    ("train --train.step 5", "did you mean --train.steps?"),
    ("train --train.steps=1e3", "--train.steps: invalid value '1e3'"),
    ("report", "DIR is missing"),
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
    ("train --resume . --out other", "--out: can't be combined"),
    ("train --recipe tiny --resume .", "--recipe: can't be combined"),
    ("eval absent", "'absent': no such directory"),
    ("report absent", "'absent': no such directory"),
    ("cost --device h10", "unknown device 'h10': did you mean 'h100'?"),
    ("cost --device cpu,", "unknown device ''"),
    ("cost --devices absent.json", "absent.json"),
    ("cost --mfu 1.5", "--mfu"),
    ("cost --mfu nan", "--mfu"),
    ("cost --model.depth 0", "model.depth"),
    ("cost --out there", "--out"),
    ("cost --data.source files:absent", "'absent' matches no file"),
    ("generate absent", "'absent': no such directory"),
    ("eval absent --tokens=-1", "--tokens"),
    ("eval absent --tasks a --limit -1", "--limit"),
    ("generate absent --tokens 0", "--tokens"),
    ("generate absent --temperature=-1", "--temperature"),
    ("generate absent --temperature nan", "--temperature"),
    ("generate absent --top-k -1", "--top-k"),
    ("generate absent --seed -1", "--seed"),
    ("tokenize builtin out --valid-fraction 1", "data.valid_fraction"),
    ("pilot", "SOURCE is missing"),
    ("pilot absent", "'absent': no such file or folder"),
    ("pilot builtin --data.source files:a", "--data.source: SOURCE says"),
    ("pilot builtin --seeds 1", "--seeds: must be at least 2"),
    ("pilot builtin --share 0", "--share"),
    ("pilot builtin --share nan", "--share"),
    ("pilot builtin --flops -1", "--flops"),
    ("pilot builtin --flops 1e9 --minutes 5", "--flops, --minutes: give one"),
    ("pilot builtin --model.depth 0", "model.depth"),
    ("pilot builtin --recipe quikstart", "did you mean 'quickstart'?"),
    ("pilot builtin --name a/b", "name: 'a/b-pilot'"),
]


@pytest.mark.parametrize(("line", "culprit"), WRONG)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(capsys, calls, line, culprit):
    assert culprit in complaint(capsys, *line.split())
    assert calls == []


def test_no_two_cases_are_the_same():
    assert len({line for line, _ in WRONG}) == len(WRONG) > 50


overrides = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(min_size=1).filter(lambda s: s[0] != "-"),
        "data.source": st.sampled_from(["builtin", "files:*.txt", "tokens:a b"]),
        "data.length": st.integers(0, 128),
        "model.preset": st.sampled_from(["modern", "gpt2"]),
        "model.size": st.sampled_from(["nano", "micro", "gpt2-small"]),
        "model.depth": ENOUGH,
        "model.width": st.integers(1, 2**29 - 1),  # hidden is 4 x width
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

    tree = nested(values)
    (elsewhere / "nested.json").write_text(json.dumps(tree))
    assert cli.main(["train", "--recipe", "nested.json", "--print-config"]) == 0
    assert capsys.readouterr().out == first == to_json(from_dict(tree))

    (elsewhere / "first.json").write_text(first)
    assert cli.main(["train", "--recipe", "first.json", "--print-config"]) == 0
    assert capsys.readouterr().out == first


def test_nothing_given_is_the_default_config(capsys):
    assert printed(capsys) == ExperimentConfig()


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


def test_dry_run_prints_the_plan_and_trains_nothing(capsys, monkeypatch):
    monkeypatch.delattr("uets_jax.train.loop.train")
    argv = ["train", "--recipe", "tiny", "--train.steps", "10", "--out", "there"]
    assert cli.main([*argv, "--dry-run"]) == 0
    page = capsys.readouterr().out
    for part in ("builtin", "256 per step x 10 steps = 2,560", "muon", "there"):
        assert part in page
    for part in ("parameters", "evaluation", "activations", "cpu ", "$", "J ", "MFU"):
        assert part in page
    assert not Path("there").exists()


def test_dry_run_and_cost_say_the_same(capsys):
    assert cli.main(["train", "--recipe", "tiny", "--dry-run"]) == 0
    planned = capsys.readouterr().out.splitlines()
    assert cli.main(["cost", "--recipe", "tiny"]) == 0
    priced = capsys.readouterr().out.splitlines()
    assert [line for line in planned if not line.startswith("output")] == priced


def test_cost_has_a_row_for_each_device(capsys):
    argv = ["cost", "--recipe", "tiny", "--device", "rtx3070, h100", "--mfu=0.5"]
    assert cli.main(argv) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    shares = {row[0]: row[1] for row in rows if row and row[0] in ("rtx3070", "h100")}
    assert shares == {"rtx3070": "50%", "h100": "50%"}


def test_cost_prints_json_and_reads_a_table_of_devices(capsys, elsewhere):
    shipped = json.loads((ROOT / "uets_jax/measure/devices.json").read_text())
    own = {**shipped[0], "name": "mine", "watts": 1000.0}
    (elsewhere / "mine.json").write_text(json.dumps([own]))
    argv = ["cost", "--recipe", "tiny", "--devices", "mine.json", "--json"]
    assert cli.main([*argv, "--device", "mine,cpu"]) == 0
    mine, cpu = json.loads(capsys.readouterr().out)["devices"]
    assert mine["joules"] / cpu["joules"] == pytest.approx(1000 / shipped[0]["watts"])
    assert mine["fits"]
    assert mine["flops"] == cpu["flops"]


def test_cost_of_all_devices(capsys, monkeypatch):
    from uets_jax.measure import devices
    from uets_jax.train import plan

    monkeypatch.setattr(plan, "make_plan", lambda config, chosen, *_: [*chosen])
    monkeypatch.setattr(plan, "text", lambda found: " ".join(d.name for d in found))
    assert cli.main(["cost", "--device", "all"]) == 0
    assert capsys.readouterr().out.split() == [*devices.read()]


@pytest.mark.parametrize(
    ("source", "culprit"),
    [
        ("tokens:absent", "absent/meta.json"),
        ("files:absent/*.txt", "'absent/*.txt' matches no file"),
        ("jsonl:absent.jsonl:my-key", "'absent.jsonl' matches no file"),
        ("jsnl:a", "did you mean 'jsonl'"),
    ],
)
def test_dry_run_refuses_a_source_that_is_not_there(capsys, source, culprit):
    argv = ("train", "--dry-run", "--data.source", source)
    assert culprit in complaint(capsys, *argv)


def test_dry_run_refuses_validation_text_that_is_not_there(capsys):
    argv = ("train", "--dry-run", "--data.valid-source", "files:absent")
    assert "'absent' matches no file" in complaint(capsys, *argv)


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


def test_resume_passes_on_what_is_allowed(calls, run, capsys):
    argv = ["train", "--resume", str(run), "--train.steps", "5", "--profile", "4"]
    assert cli.main([*argv, "--allow", "train.steps, data.valid-source"]) == 0
    assert calls[0][0].train.steps == 5
    assert calls.given == [(["train.steps", "data.valid_source"], 4)]
    assert cli.main(argv) == 2
    assert "allow it with --allow train.steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "culprit"),
    [
        ("--processes 2", "--processes: needs --coordinator"),
        ("--process 0", "--process: needs --coordinator"),
        ("--coordinator localhost:1", "--process: -1 is not in [0, 0)"),
        ("--coordinator localhost:1 --processes 2 --process 2", "2 is not in [0, 2)"),
        ("--profile -1", "--profile"),
    ],
)
def test_numbers_of_processes_that_do_not_fit(capsys, calls, line, culprit):
    assert culprit in complaint(capsys, "train", *line.split())
    assert calls == []


def test_eval_prints_json(capsys, calls, run):
    argv = ["eval", str(run), "--split", "train", "--tokens=5", "--source", "files:x"]
    assert cli.main(argv) == 0
    assert calls == [(run, "files:x", "train", 5)]
    assert json.loads(capsys.readouterr().out) == {"loss": 2.5}


def test_eval_of_tasks_prints_json(capsys, calls, run):
    argv = ["eval", str(run), "--tasks", "a.jsonl, b.jsonl.xz", "--limit", "20"]
    assert cli.main(argv) == 0
    assert calls == [(run, ["a.jsonl", "b.jsonl.xz"], 20)]
    assert json.loads(capsys.readouterr().out) == {"a_accuracy": 0.5}


@pytest.mark.parametrize(
    ("line", "culprit"),
    [
        ("--tasks a --source b", "--source: can't be combined with --tasks"),
        ("--tasks a --split train", "--split: can't be combined with --tasks"),
        ("--tasks a --tokens 5", "--tokens: can't be combined with --tasks"),
        ("--limit 5", "--limit: needs --tasks"),
        ("--tasks a,,b", "--tasks: 'a,,b' has an empty name"),
        ("--tasks=", "--tasks: '' has an empty name"),
    ],
)
def test_eval_of_text_or_of_tasks(capsys, calls, run, line, culprit):
    assert culprit in complaint(capsys, "eval", str(run), *line.split())
    assert calls == []


def test_generate_prints_the_text(capsys, calls, run):
    argv = ["generate", str(run), "--prompt", "once", "--top_k=4", "--temperature", "0"]
    assert cli.main(argv) == 0
    assert calls == [(run, "once", 120, 0.0, 4, 0)]
    assert capsys.readouterr().out == "once upon a time\n"


def test_report_chooses_its_file(capsys, calls, run):
    a, out = str(run), "x.html"
    for argv in ([a], [a, a], [a, "--out", out], ["--out=" + out, a, a, "--base", "b"]):
        assert cli.main(["report", *argv]) == 0
    assert capsys.readouterr().out.split() == ["a.html", "a.md"] * 4
    assert calls == [
        ([run], run / "report.html", ""),
        ([run, run], Path("report.html"), ""),
        ([run], Path(out), ""),
        ([run, run], Path(out), "b"),
    ]


def test_report_refuses_a_directory_as_its_file(capsys, calls, run):
    assert "--out" in complaint(capsys, "report", str(run), "--out", str(run))
    assert calls == []


def test_baseline_chooses_its_file(capsys, monkeypatch, run):
    from uets_jax.measure import baseline
    from uets_jax.report import baseline as made

    found = []
    monkeypatch.setattr(made, "baseline_of", lambda path, name: (path, name))
    monkeypatch.setattr(baseline, "save_baseline", lambda *args: found.append(args))
    assert cli.main(["baseline", str(run)]) == 0
    assert cli.main(["baseline", str(run), "--out", "b.json", "--name", "b2m"]) == 0
    assert found == [
        (run / "baseline.json", (run, "")),
        (Path("b.json"), (run, "b2m")),
    ]
    assert capsys.readouterr().out.split() == [str(run / "baseline.json"), "b.json"]
    assert "--out" in complaint(capsys, "baseline", str(run), "--out", str(run))


@pytest.fixture
def pilots(monkeypatch):
    """What is asked of the pilot, which is replaced."""
    from uets_jax.pilot import result, run

    seen = []
    note = lambda answer: lambda asked, out, say: (seen.append((asked, out)), answer)[1]
    monkeypatch.setattr(run, "pilot", note({"found": 1}))
    monkeypatch.setattr(run, "planned", note("the plan"))
    monkeypatch.setattr(result, "text", lambda found, out: f"found in {out}")
    monkeypatch.setattr(run, "summary", lambda plan: plan)
    return seen


def test_pilot_takes_the_flags_of_train_and_its_own(capsys, pilots, elsewhere):
    (elsewhere / "texts").mkdir()
    argv = ["pilot", "texts", "--recipe", "tiny", "--model.depth", "3"]
    assert cli.main([*argv, "--minutes", "5", "--share=0.02", "--seeds", "4"]) == 0
    [(asked, out)] = pilots
    assert (asked.config.name, asked.config.model.depth) == ("tiny", 3)
    assert asked.config.data.source == "files:texts/**"
    assert (asked.minutes, asked.flops, asked.share, asked.seeds) == (5.0, 0, 0.02, 4)
    assert out == Path("runs/tiny-pilot")
    assert capsys.readouterr().out == "found in runs/tiny-pilot\n"


def test_a_dry_pilot_prints_its_plan(capsys, pilots, monkeypatch):
    monkeypatch.delattr("uets_jax.pilot.run.pilot")
    argv = ["pilot", "builtin", "--out", "here", "--flops", "1e12", "--dry-run"]
    assert cli.main(argv) == 0
    [(asked, out)] = pilots
    assert (asked.flops, asked.config.data.source, out) == (
        1e12,
        "builtin",
        Path("here"),
    )
    assert capsys.readouterr().out == "the plan\n"


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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "runs/x"), "runs/x: No space left"),
        (RuntimeError("RESOURCE_EXHAUSTED: 3 GiB"), "out of memory on the device"),
    ],
)
def test_a_machine_that_is_too_small_is_one_line(error, line, monkeypatch, capsys):
    def act(given):
        raise error

    command = cli.COMMANDS["report"]._replace(act=act)
    monkeypatch.setitem(cli.COMMANDS, "report", command)
    assert cli.main(["report", "x"]) == 2
    printed = capsys.readouterr().err
    assert line in printed
    assert printed.count("\n") == 1


def test_another_error_of_the_runtime_is_raised(monkeypatch):
    def act(given):
        raise RuntimeError("a bug")

    command = cli.COMMANDS["report"]._replace(act=act)
    monkeypatch.setitem(cli.COMMANDS, "report", command)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["report", "x"])
