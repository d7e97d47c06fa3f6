"""Both tracks from small made-up text."""

import json
import lzma

import numpy as np
import pytest

from experiments import tracks
from experiments.tracks import (
    articles,
    check_inputs,
    clean,
    cleaned,
    mixture,
    opened,
    rows,
    store,
    stores,
)
from uets_jax.config import DataConfig
from uets_jax.data.composition import Mixture
from uets_jax.data.draws import Draws
from uets_jax.data.store import open_store, prepare
from uets_jax.errors import UserError

WIKITEXT = """
 = Robert <unk> =

 Robert is an actor , who = is .

 = = Career = =

 He played .

 = Second @-@ best =

 Short .
""".replace("=\n", "= \n")  # lines end with a space


def prose(name, words=120):
    """Text of words of its own, as no two documents share them."""
    draws = Draws("prose", name)
    known = [f"{name[0]}{i:x}" for i in range(200)]
    return " ".join(draws.pick(known) for _ in range(words))


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    """A vocabulary and a pool that are made in no time."""
    recipe = Mixture("t", ("n",), bytes=60_000, piece=600, sample_bytes=3000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(tracks, "VOCAB", 300)
        patch.setattr(tracks, "Mixture", lambda: recipe)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Both corpora; a few texts have signs that some readers take for line ends."""
    folder = tmp_path_factory.mktemp("data")
    for part, count in (("train", 6), ("valid", 5)):
        parts = (f" = {part} {i} = \n\n {prose(f'{part}{i}')} \n" for i in range(count))
        path = folder / "wikitext-2" / f"{part}.txt.xz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(lzma.compress("\n".join(parts).encode()))
    (folder / "multidomain").mkdir()
    for part, counts in (("train", (60, 60)), ("valid", (6, 0))):
        lines = [
            {"id": f"{part}{d}{i}", "domain": d, "text": prose(f"{d}{part}{i}", 300)}
            for d, count in zip("tn", counts, strict=True)
            for i in range(count)
        ]
        for line in lines[::7]:
            line["text"] = (
                line["text"].replace(" ", "\u2028", 1).replace(" ", "\x85", 1)
            )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "multidomain" / f"{part}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """Where both tracks were written."""
    out = tmp_path_factory.mktemp("stores")
    clean(data, out)
    mixture(data, out)
    return out


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def documents(one, split):
    """The texts of a split of a store."""
    tokens = np.asarray(one.tokens(split)).astype(np.int64)
    [ends] = np.nonzero(tokens == one.tokenizer.eot)
    return [one.tokenizer.decode(part[1:]) for part in np.split(tokens, ends[1:])]


def test_articles_begin_at_titles_not_at_sections():
    first, second = articles(WIKITEXT)
    assert first.startswith("= Robert <unk> =")
    assert first.endswith("He played .")
    assert " = = Career = = " in first
    assert second == "= Second @-@ best = \n\n Short ."


def test_text_without_a_title_has_no_articles():
    assert articles("") == articles("\n no title \n = = Section = = \n") == []


@pytest.mark.parametrize("track", ["clean", "mixture"])
def test_both_stores_hold_one_training_text_and_disjoint_validation(track, folder):
    a, b = (open_store(folder / f"{track}.{half}") for half in "ab")
    np.testing.assert_array_equal(a.tokens("train"), b.tokens("train"))
    assert a.tokenizer.hash == b.tokenizer.hash
    assert a.tokenizer.vocab_size == 300
    held = [documents(one, "valid") for one in (a, b)]
    assert not {*held[0]} & {*held[1]}
    assert min(map(len, held)) >= 2
    assert not {*held[0], *held[1]} & {*documents(a, "train")}


def test_clean_has_every_article_once(folder, data):
    read = lambda name: articles(tracks._text(data / "wikitext-2" / f"{name}.txt.xz"))
    a, b = (open_store(folder / f"clean.{half}") for half in "ab")
    assert documents(a, "train") == read("train")
    assert len(read("train")) == 6
    assert documents(a, "valid") == read("valid")[::2]
    assert documents(b, "valid") == read("valid")[1::2]


def test_mixture_has_every_text_of_the_pool_and_the_halves_of_the_target(folder, data):
    pool = folder / "pool"
    a, b = (open_store(folder / f"mixture.{half}") for half in "ab")
    texts = [row["text"] for row in rows(pool / "pool.jsonl")]
    assert documents(a, "train") == texts
    assert sum(len(text.encode()) for text in texts) == pytest.approx(60_000, rel=0.1)
    assert any("\u2028" in text and "\x85" in text for text in texts)
    held = {*documents(a, "valid"), *documents(b, "valid")}
    assert held == {row["text"] for row in rows(data / "multidomain" / "valid.jsonl")}


@pytest.mark.parametrize("track", [clean, mixture])
def test_a_second_call_does_nothing(track, data, folder):
    before = contents(folder)
    track(data, folder)
    track(data, folder)
    assert contents(folder) == before


def test_a_pool_that_is_there_is_not_built_again(data, folder, tmp_path, monkeypatch):
    """Stopped after the pool: the next call goes on from there."""
    for path in (folder / "pool").iterdir():
        (tmp_path / "pool").mkdir(exist_ok=True)
        (tmp_path / "pool" / path.name).write_bytes(path.read_bytes())
    monkeypatch.delattr(tracks, "build")
    mixture(data, tmp_path)
    for half in "ab":
        new, old = (open_store(d / f"mixture.{half}") for d in (tmp_path, folder))
        assert new.fingerprint == old.fingerprint


@pytest.mark.parametrize(
    ("track", "complaint"),
    [
        (clean, r"--data-dir: .*wikitext-2/train\.txt\.xz is missing"),
        (mixture, r"train\*\.jsonl\*.*matches no file"),
    ],
)
def test_missing_data_is_one_clear_line(track, complaint, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=complaint) as error:
        track(tmp_path / "data", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_part_of_the_pool_has_its_tokenizer_and_its_halves(folder):
    pool, seen = open_store(folder / "mixture.b"), []

    def keep(texts):
        seen.append(texts)
        return {"texts": texts[::3], "documents": len(texts[::3])}

    for _ in range(2):  # the second call does nothing
        cleaned(folder, "third.0.3", keep)
    texts = documents(open_store(folder / "mixture.a"), "train")
    assert seen == [texts]
    part = open_store(folder / "third.0.3.b")
    assert documents(part, "train") == texts[::3]
    assert part.tokenizer.hash == pool.tokenizer.hash
    np.testing.assert_array_equal(part.tokens("valid"), pool.tokens("valid"))
    said = json.loads((folder / "third.0.3.json").read_text())
    assert said == {"documents": len(texts[::3])}


def test_a_store_that_is_there_is_not_written_again(folder, tmp_path):
    """Of two halves, one is missing: a stop came in between."""
    for name in ("clean.jsonl", "clean.valid_a.jsonl", "clean.valid_b.jsonl"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    stores(tmp_path, "clean", "clean", "bpe:300")
    before = contents(tmp_path / "clean.a")
    for path in (tmp_path / "clean.b").iterdir():
        path.unlink()
    (tmp_path / "clean.b").rmdir()
    stores(tmp_path, "clean", "clean", "bpe:300")
    assert contents(tmp_path / "clean.a") == before
    assert open_store(tmp_path / "clean.b").fingerprint == (
        open_store(folder / "clean.b").fingerprint
    )


def test_a_source_is_that_of_a_config(folder):
    assert store(folder, "clean", "b") == f"tokens:{folder}/clean.b"
    found = prepare(DataConfig(source=store(folder, "clean", "a")))
    assert found.fingerprint == opened(folder, "clean").fingerprint
    assert found.directory == str(folder / "clean.a")


def test_another_text_under_the_same_runs_is_refused(tmp_path):
    data, folder = tmp_path / "data", tmp_path / "stores"
    data.mkdir()
    one = data / "train.txt"
    one.write_text("a")
    check_inputs(folder, "clean", [one])
    check_inputs(folder, "clean", [one])
    one.write_text("b")
    with pytest.raises(UserError, match=r"--data-dir: train\.txt is not what"):
        check_inputs(folder, "clean", [one])
    one.unlink()
    with pytest.raises(UserError, match=r"train\.txt is missing"):
        check_inputs(folder, "clean", [one])
