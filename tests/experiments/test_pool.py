import hashlib
import itertools
import json
import lzma
from pathlib import Path

import pytest

from experiments.pool import main
from uets_jax.data.draws import Draws
from uets_jax.data.labelled import inputs, read

REAL = Path(__file__).parents[3] / "shared" / "data" / "multidomain"
FILES = {
    *("pool.jsonl", "provenance.jsonl", "sample.jsonl", "valid_a.jsonl"),
    *("valid_b.jsonl", "pool.json", "composition.svg"),
}
FLAGS = (
    *("--target=t", "--near=n,m", "--bytes=60000", "--piece=600"),
    *("--sample-bytes=3000", "--copies=2,9"),
)


def make_rows(domain, count, name=""):
    draws = Draws("rows", domain, name)
    words = [f"{domain}{i:x}" for i in range(300)]
    for i in range(count):
        text = " ".join(draws.pick(words) for _ in range(120 + draws.below(200)))
        yield {"id": f"{domain}{name}{i}", "domain": domain, "text": text}


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(lzma.compress(text) if path.suffix == ".xz" else text)


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write(folder / "train-0.jsonl", [*make_rows("t", 40), *make_rows("x", 3)])
    write(folder / "train-1.jsonl.xz", [*make_rows("n", 30), *make_rows("m", 30)])
    write(folder / "valid.jsonl", [*make_rows("t", 6, "v"), *make_rows("n", 2, "v")])
    return folder


@pytest.fixture(scope="module")
def out(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    assert main([f"--data-dir={data}", f"--out={folder}", *FLAGS]) == 0
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_files_are_there_and_equal_the_second_time(data, out, tmp_path, capsys):
    assert main([f"--data-dir={data}", f"--out={tmp_path}", *FLAGS]) == 0
    assert contents(tmp_path).keys() == FILES
    assert contents(tmp_path) == contents(out)
    printed = capsys.readouterr().out
    assert "word_shuffled" in printed
    assert "fewer tokens" in printed


def test_another_seed_gives_other_files_but_the_same_validation(data, out, tmp_path):
    assert main([f"--data-dir={data}", f"--out={tmp_path}", *FLAGS, "--seed=5"]) == 0
    old, new = contents(out), contents(tmp_path)
    same = {name for name in FILES if old[name] == new[name]}
    assert same == {"valid_a.jsonl", "valid_b.jsonl"}


def test_arms_read_nothing_but_ids_and_texts(out):
    rows, origins = lines(out / "pool.jsonl"), lines(out / "provenance.jsonl")
    assert {tuple(row) for row in rows} == {("id", "text")}
    assert [row["id"] for row in rows] == [f"p{i:06d}" for i in range(len(rows))]
    assert [row["id"] for row in origins] == [row["id"] for row in rows]
    assert {tuple(r) for r in origins} == {("id", "kind", "domain", "origin", "edit")}
    assert {tuple(row) for row in lines(out / "sample.jsonl")} == {("id", "text")}


def test_clean_texts_stand_in_their_origin(data, out):
    sources = {document.id: document.text for document in read(inputs(data)[0])}
    texts = {row["id"]: row["text"] for row in lines(out / "pool.jsonl")}
    kinds = set()
    for row in lines(out / "provenance.jsonl"):
        kinds.add(row["kind"])
        if row["kind"] in ("unique", "near", "duplicate") and not row["edit"]:
            assert texts[row["id"]] in sources[row["origin"].partition("#")[0]]
    assert len(kinds) == 6


def test_the_halves_are_the_held_out_documents(data, out):
    halves = [*lines(out / "valid_a.jsonl"), *lines(out / "valid_b.jsonl")]
    held = [d for d in read(inputs(data)[1]) if d.domain == "t"]
    assert {(row["id"], row["text"]) for row in halves} == {
        (d.id, d.text) for d in held
    }
    assert len(halves) == len(held)


def test_what_is_told_is_true(data, out):
    told = json.loads((out / "pool.json").read_text("utf-8"))
    for name, digest in told["outputs_sha256"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert set(told["outputs_sha256"]) == FILES - {"pool.json", "composition.svg"}
    for name, digest in told["inputs_sha256"].items():
        assert hashlib.sha256((data / name).read_bytes()).hexdigest() == digest
    assert len(told["inputs_sha256"]) == 3
    rows = lines(out / "pool.jsonl")
    assert told["documents"] == len(rows)
    assert told["bytes"] == sum(len(row["text"].encode()) for row in rows)
    assert told["recipe"]["copies"] == [2, 9]
    assert told["held_out_grams_in_pool"] == {"valid_a": 0, "valid_b": 0}
    sample = sum(len(r["text"].encode()) for r in lines(out / "sample.jsonl"))
    assert told["sample_bytes"] == sample


def test_the_ceiling_follows_from_the_files(out):
    told = json.loads((out / "pool.json").read_text("utf-8"))
    texts = {row["id"]: row["text"] for row in lines(out / "pool.jsonl")}
    target, near = {}, {}
    for row in lines(out / "provenance.jsonl"):
        if row["kind"] in ("unique", "near", "duplicate"):
            side = target if row["domain"] == "t" else near
            side.setdefault(row["origin"], []).append(len(texts[row["id"]].encode()))
    q, o = (sum(sum(s) / len(s) for s in d.values()) / 60_000 for d in (target, near))
    [row] = [r for r in told["ceiling"] if (r["seen"], r["transfer"]) == (1.0, 0.2)]
    assert row["token_factor"] == pytest.approx(1 / (q + 0.2 * o), abs=2e-3)
    [budget] = [r for r in told["passes"] if r["tokens"] == 2_000_000]
    passes = 2_000_000 * told["bytes_per_token"] / (q * 60_000)
    assert budget["target_text_passes"] == pytest.approx(passes, rel=1e-3)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--target=q"], "'q' has 0 held-out documents"),
        (["--near=n,q"], "no document of q;"),
        (["--bytes=600000"], "bytes short of the"),
        (["--unique=0.5"], "don't add up to 1"),
        (["--data-dir=/nowhere"], "matches no file"),
    ],
)
def test_bad_input_is_one_line(data, tmp_path, capsys, flags, complaint):
    given = [f"--data-dir={data}", f"--out={tmp_path}", *FLAGS, *flags]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("pool: error: ")
    assert error.count("\n") == 1
    assert complaint in error
    assert not list(tmp_path.iterdir())


def test_a_flag_of_the_wrong_type_is_refused(data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([f"--data-dir={data}", f"--out={tmp_path}", "--copies=2,x"])
    assert "--copies" in capsys.readouterr().err


@pytest.mark.skipif(not REAL.is_dir(), reason="the multi-domain corpus is not here")
def test_a_small_pool_of_real_text(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "valid.jsonl.xz").symlink_to(REAL / "valid.jsonl.xz")
    with lzma.open(REAL / "train-00.jsonl.xz") as stream:
        head = itertools.islice(stream, 1000)
        (data / "train.jsonl").write_bytes(b"".join(head))
    flags = ("--bytes=300000", "--piece=1024", "--sample-bytes=20000")
    assert main([f"--data-dir={data}", f"--out={tmp_path / 'out'}", *flags]) == 0
    told = json.loads((tmp_path / "out" / "pool.json").read_text("utf-8"))
    wanted = (0.10, 0.25, 0.30, 0.175, 0.0875, 0.0875)
    for kind, share in zip(told["kinds"].values(), wanted, strict=True):
        assert abs(kind["bytes"] / 3e5 - share) < 0.01
    assert abs(told["bytes"] / 3e5 - 1) < 0.01
    assert max(told["held_out_grams_in_pool"].values()) < 0.01
    assert abs(told["valid_a_bytes"] / told["valid_b_bytes"] - 1) < 0.05
