import dataclasses
import json
import shutil
from pathlib import Path

import optax
import pytest

from uets_jax.config import DataConfig
from uets_jax.data.store import write_store
from uets_jax.errors import UserError
from uets_jax.train.finished import (
    evaluate_run,
    evaluate_tasks,
    generate_run,
    open_run,
)
from uets_jax.train.loop import train


@pytest.fixture(scope="module")
def run(tiny, corpus, tmp_path_factory):
    text = tmp_path_factory.mktemp("text") / "corpus"
    shutil.copytree(corpus, text)
    data = dataclasses.replace(tiny.data, source=f"files:{text}/*.txt")
    model = dataclasses.replace(tiny.model, vocab=0)
    steps = dataclasses.replace(tiny.train, steps=4, eval_tokens=0)
    config = dataclasses.replace(tiny, data=data, model=model, train=steps)
    out = tmp_path_factory.mktemp("finished") / "run"
    return train(config, out), out


def test_evaluation_of_a_run_equals_what_it_reported(run):
    result, out = run
    found = evaluate_run(out)
    assert found["step"] == 4
    assert found["valid_loss"] == pytest.approx(result.summary["final_loss"], rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(result.summary["bits_per_byte"])


def test_another_source_is_read_with_the_runs_tokenizer(run, tmp_path):
    (tmp_path / "a.txt").write_text("something quite different. " * 40)
    found = evaluate_run(run[1], source=f"files:{tmp_path}/*.txt")
    assert found["valid_tokens"] == 27 * 40
    assert found["valid_loss"] > run[0].summary["final_loss"]


def test_tasks_are_scored_without_the_training_text(run, tmp_path, capsys):
    pair = {"good": "the cat sat on a mat", "bad": "tzq xqz kqj vzq x qjx"}
    pair["phenomenon"] = "words"
    (tmp_path / "mini.jsonl").write_text(f"{json.dumps(pair)}\n" * 5)
    long = {"query": "the cat " * 9, "choices": ["sat", "ran"], "gold": 0}
    (tmp_path / "long.jsonl").write_text(json.dumps(long))
    files = [str(tmp_path / f"{name}.jsonl") for name in ("mini", "long")]
    found = evaluate_tasks(run[1], files, limit=3)
    assert found["step"] == 4
    assert (found["mini_accuracy"], found["mini_items"]) == (1.0, 3)
    assert found["mini_accuracy_by_phenomenon"] == {"words": 1.0}
    assert (found["long_texts"], found["long_cut"]) == (2, 2)
    told = "long: 2 of 2 texts are longer than 32 tokens"
    assert told in capsys.readouterr().err


def test_tasks_that_can_not_be_told_apart_are_refused(run, tmp_path):
    for name in ("mini.jsonl", "mini.json"):
        (tmp_path / name).write_text('{"good": "a", "bad": "b"}')
    files = [str(tmp_path / name) for name in ("mini.jsonl", "mini.json")]
    with pytest.raises(UserError, match="two files are named 'mini'"):
        evaluate_tasks(run[1], files)


def test_generated_text_begins_with_the_prompt_and_is_seeded(run):
    one, two = (generate_run(run[1], "the cat", tokens=8, seed=s) for s in (0, 0))
    assert one == two
    assert one.startswith("the cat")
    assert open_run(run[1]).record["step"] == 4


def test_a_folder_without_a_run_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"config\.json: No such file"):
        open_run(tmp_path)
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(UserError, match=r"config\.json: "):
        open_run(tmp_path)


def test_a_run_without_a_checkpoint_says_how_to_go_on(run, tmp_path):
    (tmp_path / "config.json").write_text((run[1] / "config.json").read_text())
    with pytest.raises(UserError, match=r"no complete checkpoint.*--resume"):
        evaluate_run(tmp_path)


def test_tokens_of_another_tokenizer_are_refused(run, corpus, tmp_path):
    data = DataConfig(source=f"files:{corpus}/*.txt", tokenizer="bpe:300")
    write_store(tmp_path / "tokens", data)
    with pytest.raises(UserError, match="another tokenizer"):
        evaluate_run(run[1], source=f"tokens:{tmp_path}/tokens")


def test_a_run_trained_on_a_larger_mesh_opens_here(run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run[1], out)
    stored = json.loads((out / "config.json").read_text())
    stored["train"]["mesh"]["data"] = 64
    (out / "config.json").write_text(json.dumps(stored))
    assert generate_run(out, "the", tokens=4) == generate_run(run[1], "the", tokens=4)


def test_a_damaged_checkpoint_is_told(run, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(run[1], out)
    shutil.copytree(out / "checkpoints" / "00000004", out / "checkpoints" / "00000009")
    (out / "checkpoints" / "00000009" / "record.json").write_text("{}")
    assert open_run(out).record["step"] == 4
    assert "left out a damaged checkpoint" in capsys.readouterr().err


def test_a_run_with_own_parts_opens_with_them_only(run, tmp_path):
    config, own = run[0].config, {"tx": optax.sgd(0.1)}
    train(config, tmp_path / "run", overrides=own)
    with pytest.raises(UserError, match=r"overrides \['tx'\], now \[\]"):
        open_run(tmp_path / "run")
    assert open_run(tmp_path / "run", own).record["step"] == 4


def test_a_source_that_changed_is_refused_but_text_is_still_generated(run):
    folder = Path(run[0].config.data.source.removeprefix("files:")).parent
    before = generate_run(run[1], "the cat", tokens=4)
    (folder / "new.txt").write_text("zebra quilt")
    with pytest.raises(UserError, match="trained with other data"):
        evaluate_run(run[1])
    shutil.rmtree(folder)
    assert generate_run(run[1], "the cat", tokens=4) == before
