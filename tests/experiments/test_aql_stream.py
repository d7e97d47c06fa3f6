import itertools
import json

import jax
import numpy as np
import pytest

from experiments import aql_stream
from experiments.aql_stream import main, pieces_of_ids, pieces_of_text, pools, summary
from uets_jax.aql.assets import Assets
from uets_jax.data.builtin import read_builtin
from uets_jax.data.labelled import inputs, read
from uets_jax.data.store import open_store
from uets_jax.data.windows import sequential

FLAGS = (
    *("--text-bytes=120000", "--ids-bytes=90000", "--vocab=270", "--length=16"),
    *("--batch=2", "--candidates=8", "--buffer=16", "--pools=4", "--samples=20"),
)


def lines(domain, first, last):
    texts = itertools.islice(read_builtin(), first, last)
    for i, text in enumerate(texts):
        row = {"id": f"{domain}{i}", "domain": domain, "text": text[:1500]}
        yield json.dumps(row) + "\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "train-0.jsonl").write_text("".join(lines("encyclopedic", 0, 30)))
    (folder / "train-1.jsonl").write_text("".join(lines("code", 30, 50)))
    (folder / "valid.jsonl").write_text("".join(lines("encyclopedic", 50, 55)))
    return folder


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """The folder of a command whose processes are calls."""
    folder = tmp_path_factory.mktemp("stream")
    words = [f"--data-dir={data}", f"--runs={folder}", f"--out={folder}", *FLAGS]
    started = []

    def call(words, case):
        started.append(case)
        assert main([*words, "--case", case]) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aql_stream, "in_process", call)
        assert main(words) == 0
        assert main(words) == 0  # all that is done is not done again
    assert started == ["text-blind", "text-target", "ids-blind", "ids-target"]
    return folder


def test_the_record_has_both_halves_of_every_stream(done):
    record = json.loads((done / "aql.stream.json").read_text())
    assert len(record["rows"]) == 8
    for half, whole in zip(record["rows"][::2], record["rows"][1::2], strict=True):
        assert (half["part"], whole["part"]) == ("half", "all")
        assert half["state_bytes"] == whole["state_bytes"] > 16 * 16 * 4
        most = 120_000 if half["stream"] == "text" else 90_000
        assert most <= whole["bytes"] < most + 4_000
        assert half["bytes"] <= whole["bytes"] / 2
        assert half["windows"] < whole["windows"]
        assert whole["rss_end_bytes"] > 10e6
        assert whole["rss_growth"] <= whole["rss_most_growth"]


def test_a_folder_of_other_options_is_refused(done, data, capsys):
    words = [f"--data-dir={data}", f"--runs={done}", *FLAGS, "--buffer=32"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "other options" in error
    assert error.count("\n") == 1


def test_the_text_goes_round_whole(done, data):
    store, shards = open_store(done / "store"), inputs(data)[0]
    texts = [document.text for document in read(shards)]
    want = sum(len(text.encode()) for text in texts)
    ids, size = [], 0
    for piece, taken in pieces_of_text(shards, store):
        ids.append(piece)
        size += taken
        if size >= 2 * want:
            break
    found = store.tokenizer.decode(np.concatenate(ids))
    assert found.startswith("".join(texts) * 2)


def test_the_ids_go_round(done):
    store = open_store(done / "store")
    tokens = np.asarray(store.tokens("train"))
    first, second = itertools.islice(pieces_of_ids(store), 2)
    assert np.array_equal(first[0], tokens)
    assert np.array_equal(second[0], tokens)
    assert first[1] == 2 * len(tokens)


def test_pools_are_consecutive_windows_of_the_stream():
    flat = np.arange(1, 400, dtype=np.int32) % 7
    cuts = np.split(flat, [3, 40, 200])
    found = [*pools(((part, len(part)) for part in cuts), 0, 5, (2, 4))]
    assert len(found) == (len(flat) - 1) // 40
    whole = next(sequential(flat, 0, 5, 40 * len(found) // 5))
    for name in ("tokens", "targets", "ids", "segments"):
        parts = [getattr(batch, name) for batch, _ in found]
        assert parts[0].shape[:2] == (2, 4)
        joined = np.concatenate([p.reshape(8, *p.shape[2:]) for p in parts])
        assert np.array_equal(joined, getattr(whole, name))
    assert [size for _, size in found] == [40 * i for i in range(1, len(found) + 1)]


def test_growth_is_counted_from_the_end_of_the_warm_up():
    rss = [100, 200, 200, 220, 200, 210]
    keys = ("bytes", "windows", "seconds", "state", "arrays")
    samples = [
        {**dict.fromkeys(keys, 10.0 * i), "rss": float(r)} for i, r in enumerate(rss)
    ]
    half, whole = summary("ids", "blind", samples[1:])
    assert half["rss_after_warm_up_bytes"] == whole["rss_after_warm_up_bytes"] == 200
    assert half["rss_growth"] == 0
    assert half["bytes"] == 20
    assert whole["rss_growth"] == pytest.approx(0.05)
    assert whole["rss_most_growth"] == pytest.approx(0.1)


def test_tables_come_back_as_they_were_fitted(done):
    store = open_store(done / "store")
    options = aql_stream.Options(done, done, 1.0, 1.0, 270, 16, 2, 8, 16, 4, 20)
    found, blind = (
        aql_stream._read_tables(options, mode, store) for mode in ("target", "blind")
    )
    assert isinstance(found, Assets)
    assert found.text is not None
    assert int(found.text.eot) == store.tokenizer.eot
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    assert blind.text.lexical is None
