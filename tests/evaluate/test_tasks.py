import gzip
import json
import lzma
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zstandard
from jaxtyping import Array

from uets_jax.data.tokenizer import ByteTokenizer
from uets_jax.errors import UserError
from uets_jax.evaluate.items import Item
from uets_jax.evaluate.likelihood import batch_cost
from uets_jax.evaluate.tasks import (
    Task,
    accuracy,
    evaluate_task,
    point,
    read_task,
    task_cost,
)

BYTES, CONTEXT = ByteTokenizer(), 32
BLIMP = Path(__file__).parents[3] / "shared/data/evals/blimp.jsonl.xz"


def table(**likes: float) -> Array:
    """Logits of a bigram model that likes some pairs of characters."""
    logits = np.zeros((257, 257), np.float32)
    for (first, second), weight in likes.items():
        logits[ord(first), ord(second)] = weight
    return jnp.asarray(logits)


def pairs(*rows: tuple[str, str, str]) -> Task:
    items = [Item((("", a), ("", b)), 0, {"phenomenon": g}) for a, b, g in rows]
    return Task("t", "pair", tuple(items))


# Reading

PAIR = {"good": "ab", "bad": "ba", "uid": "u"}


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("mini.jsonl", bytes),
        ("mini.jsonl.xz", lzma.compress),
        ("mini.jsonl.gz", gzip.compress),
        ("mini.jsonl.zst", zstandard.compress),
        ("mini", bytes),
        ("mini.json", bytes),
    ],
)
def test_plain_and_packed_files_are_read(tmp_path, name, pack):
    text = f"\n{json.dumps(PAIR)}\n\n{json.dumps(PAIR)}"
    (tmp_path / name).write_bytes(pack(text.encode()))
    task = read_task(tmp_path / name)
    assert (task.name, task.form, len(task.items)) == ("mini", "pair", 2)
    assert task.items[1] == Item((("", "ab"), ("", "ba")), 0, {"uid": "u"})


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("", r"bad\.jsonl: holds no items"),
        ("\n\n", r"bad\.jsonl, line 2: holds no items"),
        ('{"good": "a", "bad": "b"}\n{"good": "a"}', "line 2: no known form.*cloze"),
        ('{"good": "a", "bad": "b"}\nbroken', "line 2: broken JSON"),
        (
            '{"good": "a", "bad": "b"}\n{"context": "a", "continuation": "b"}',
            "line 2: is of form 'cloze', others 'pair'",
        ),
    ],
)
def test_a_file_that_is_no_task_is_one_line(tmp_path, text, culprit):
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(UserError, match=culprit):
        read_task(tmp_path / "bad.jsonl")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.jsonl: can't be read"):
        read_task(tmp_path / "absent.jsonl")


# Scores of models whose preferences are known


@pytest.mark.parametrize(("weight", "expected"), [(2.0, 1.0), (-2.0, 0.0), (0.0, 0.5)])
def test_a_model_that_likes_the_good_ones_is_right(bigram, weight, expected):
    task = pairs(("xaby", "xbay", "p"), ("ab", "ba", "p"), ("aaab", "baaa", "q"))
    scores = evaluate_task(bigram, table(ab=weight), BYTES, task, CONTEXT)
    assert scores.metrics["t_accuracy"] == expected
    assert scores.groups == {"phenomenon": {"p": expected, "q": expected}}
    assert (scores.metrics["t_items"], scores.metrics["t_texts"]) == (3, 6)


def test_groups_are_told_apart(bigram):
    task = pairs(("ab", "ba", "p"), ("ba", "ab", "q"), ("cd", "dc", "q"))
    scores = evaluate_task(bigram, table(ab=1.0), BYTES, task, CONTEXT)
    assert scores.groups["phenomenon"] == {"p": 1.0, "q": 0.25}
    assert scores.metrics["t_accuracy"] == 0.5


def test_a_shorter_sentence_is_likelier_to_a_model_that_knows_nothing(bigram):
    task = pairs(("aa", "aaa", "p"))
    scores = evaluate_task(bigram, table(), BYTES, task, CONTEXT)
    assert scores.metrics["t_accuracy"] == 1.0
    assert scores.metrics["t_bits_per_byte"] == pytest.approx(math.log2(257))
    assert scores.metrics["t_bytes"] == 2


def test_last_words_are_measured_in_bits_and_by_greedy_decoding(bigram):
    items = [Item((("x", "ab"),), 0, {}), Item((("x", "ad"),), 0, {})]
    likes = table(xa=5.0, ab=5.0)
    scores = evaluate_task(bigram, likes, BYTES, Task("t", "cloze", (*items,)), CONTEXT)
    liked, other = (np.log(math.exp(5) + 256) - w for w in (5, 0))
    nats = 3 * liked + other
    assert scores.metrics["t_bits_per_byte"] == pytest.approx(nats / math.log(2) / 4)
    assert scores.metrics["t_accuracy"] == 0.5
    assert scores.metrics["t_bytes"] == 4


def test_choices_are_ranked_by_total_and_per_byte(bigram):
    # "b" costs least; of the long one each byte costs less
    options = (("a", "b"), ("a", "cccc"))
    task = Task("t", "choice", (Item(options, 1, {}),))
    likes = table(ab=1.0, ac=1.0, cc=4.0)
    scores = evaluate_task(bigram, likes, BYTES, task, CONTEXT).metrics
    assert (scores["t_accuracy"], scores["t_accuracy_per_byte"]) == (0.0, 1.0)


@pytest.mark.parametrize(("gold", "expected"), [(0, 0.0), (1, 1.0)])
def test_a_context_makes_the_same_text_likelier(bigram, gold, expected):
    task = Task("t", "options", (Item((("a", "c"), ("b", "c")), gold, {}),))
    scores = evaluate_task(bigram, table(bc=1.0), BYTES, task, CONTEXT).metrics
    assert scores["t_accuracy"] == expected
    assert "t_accuracy_per_byte" not in scores


def test_a_broken_model_is_never_right(bigram):
    task = pairs(("ab", "ba", "p"))
    scores = evaluate_task(bigram, table() * jnp.nan, BYTES, task, CONTEXT).metrics
    assert scores["t_accuracy"] == 0.0
    assert math.isnan(scores["t_bits_per_byte"])


def test_texts_beyond_the_context_are_counted(bigram):
    task = pairs(("ab", "ba", "p"), ("a" * 33, "b" * 32, "p"))
    scores = evaluate_task(bigram, table(), BYTES, task, CONTEXT).metrics
    assert scores["t_cut"] == 1
    assert scores["t_bytes"] == 2 + 32


def test_ties_share_the_point():
    scores = np.array([-2.0, -1.0, -1.0 - 1e-8, -1.0])
    assert [point(scores, gold) for gold in range(4)] == [0.0, 1 / 3, 1 / 3, 1 / 3]


def test_the_interval_is_wilsons():
    found = accuracy("x", np.array([1.0, 0.0] * 5))
    assert found["x"] == 0.5
    assert found["x_ci_low"] == pytest.approx(0.2366, abs=1e-4)
    assert found["x_ci_high"] == pytest.approx(0.7634, abs=1e-4)
    sure = accuracy("x", np.ones(10))
    assert sure["x_ci_low"] == pytest.approx(0.7225, abs=1e-4)
    assert sure["x_ci_high"] == pytest.approx(1.0)


# The whole way, with a transformer


def test_accuracy_equals_that_of_texts_scored_one_by_one(speaker):
    program, params = speaker
    rng = np.random.default_rng(0)
    words = ["cat ", "dog ", "sat ", "ran "]
    text = lambda: "".join(rng.choice(words, 3))
    rows = [{"query": text(), "choices": [text(), text()], "gold": 1} for _ in range(9)]
    items = [
        Item(tuple((row["query"], choice) for choice in row["choices"]), 1, {})
        for row in rows
    ]
    task = Task("t", "choice", (*items,))
    scores = evaluate_task(program, params, BYTES, task, CONTEXT)
    right, bits = 0, 0.0
    for row in rows:
        sums = []
        for choice in row["choices"]:
            ids = np.array([256, *(row["query"] + choice).encode()])
            logits = jax.jit(program.logits)(params, ids[None, :-1])
            logits = np.asarray(logits[0], np.float64)[-12:]
            logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            sums.append(logs[np.arange(12), ids[-12:]].sum())
        right += sums[1] > sums[0]
        bits -= sums[1] / math.log(2)
    assert scores.metrics["t_accuracy"] == pytest.approx(right / 9)
    assert scores.metrics["t_accuracy_per_byte"] == pytest.approx(right / 9)
    assert scores.metrics["t_bits_per_byte"] == pytest.approx(bits / 9 / 12, abs=1e-5)


def test_what_was_computed_is_charged(speaker):
    program, params = speaker
    task = pairs(*[("ab", "ba", "p")] * 300)
    scores = evaluate_task(program, params, BYTES, task, CONTEXT)
    assert scores.shapes == {(256, 16): 3}
    assert scores.metrics["t_forward_tokens"] == 3 * 4096
    assert task_cost(program, scores) == batch_cost(program, (256, 16)) * 3


@pytest.mark.skipif(not BLIMP.exists(), reason="the evaluation sets are not here")
def test_one_pair_of_each_paradigm_of_blimp(speaker, tmp_path):
    rows = lzma.decompress(BLIMP.read_bytes()).splitlines()
    assert len(rows) == 500 * 67
    (tmp_path / "blimp.jsonl").write_bytes(b"\n".join(rows[::100]))
    task = read_task(tmp_path / "blimp.jsonl")
    assert (task.name, task.form, len(task.items)) == ("blimp", "pair", 5 * 67)
    program, params = speaker
    scores = evaluate_task(program, params, BYTES, task, CONTEXT, limit=1)
    assert scores.metrics["blimp_items"] == 67
    assert len(scores.groups["uid"]) == 67
    assert len(scores.groups["phenomenon"]) == 13
    low, high = (scores.metrics[f"blimp_accuracy_ci_{end}"] for end in ("low", "high"))
    assert 0 < low < scores.metrics["blimp_accuracy"] < high < 1
