"""What static cleaning keeps of a small pool whose kinds are known."""

import functools
import json

import numpy as np
import pytest

from experiments import cleaning, tracks
from experiments.baseline_plan import MODES, SHARES
from experiments.cleaning import Scores, known_good, prepare
from uets_jax.aql.assets import word_starts
from uets_jax.data.draws import Draws
from uets_jax.data.store import open_store
from uets_jax.data.tokenizer import ByteTokenizer

CLEAN = ("unique", "near", "duplicate")


@functools.cache
def phrases(domain):
    """Phrases of three words that text of a domain is made of: it has an order."""
    draws = Draws("phrases", domain)
    words = [f"{domain}{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
    return [" ".join(draws.pick(words) for _ in range(3)) for _ in range(200)]


def prose(domain, name, count=60):
    draws, known = Draws("prose", domain, name), phrases(domain)
    return " ".join(draws.pick(known) for _ in range(count))


def shuffled(text, name):
    words = text.split()
    return " ".join(words[i] for i in Draws("shuffled", name).order(len(words)))


def row(kind, domain, origin, edit=""):
    return {"kind": kind, "domain": domain, "origin": origin, "edit": edit}


@pytest.fixture(scope="module")
def pool():
    """(texts, provenance): target t, near n; copies; shuffled words of both."""
    found = []
    for i in range(24):
        found.append((prose("t", f"u{i}"), row("unique", "t", f"u{i}")))
        found.append((prose("n", f"n{i}"), row("near", "n", f"n{i}")))
    for domain in "tn":
        for i in range(6):
            text, origin = prose(domain, f"d{i}"), f"d{domain}{i}"
            edited = f"{text} once more"
            found.append((edited, row("duplicate", domain, origin, "insert")))
            found += [(text, row("duplicate", domain, origin))] * 3
        for i in range(16):
            text = shuffled(prose(domain, f"s{i}"), (domain, i))
            found.append((text, row("word_shuffled", domain, f"s{domain}{i}")))
    order = Draws("pool").order(len(found))
    return tuple([*column] for column in zip(*(found[i] for i in order), strict=True))


@pytest.fixture(scope="module")
def folder(pool, tmp_path_factory):
    """A folder with the stores of the pool, and what was written of it."""
    out = tmp_path_factory.mktemp("stores")
    texts, provenance = pool
    sample = [{"text": prose("t", f"sample{i}")} for i in range(20)]
    held = [{"text": prose("t", f"held{i}")} for i in range(4)]
    written = {
        "pool/pool": [{"text": text} for text in texts],
        "pool/provenance": provenance,
        "pool/sample": sample,
        "mixture": [{"text": text} for text in texts],
        "mixture.valid_a": held[:2],
        "mixture.valid_b": held[2:],
    }
    (out / "pool").mkdir()
    for name, lines in written.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (out / f"{name}.jsonl").write_text(text)
    tracks.stores(out, "mixture", "mixture", "bpe:700")
    return out


@pytest.fixture(scope="module")
def scores(folder):
    sample = [line["text"] for line in tracks.rows(folder / "pool" / "sample.jsonl")]
    return Scores(folder, tracks.opened(folder, "mixture").tokenizer, sample)


def origins(places, provenance):
    return [provenance[i]["origin"] for i in places]


@pytest.fixture(scope="module")
def tokens(folder):
    """(texts) -> their tokens, all together."""
    encode = tracks.opened(folder, "mixture").tokenizer.encode
    return lambda texts: sum(len(encode(text)) for text in texts)


# Static cleaning


@pytest.mark.parametrize("mode", MODES)
def test_no_copy_is_kept(mode, scores, pool):
    texts, provenance = pool
    kept = scores.keep(texts, mode, 1.0)
    found = origins(kept["places"], provenance)
    assert len({*found}) == len(found)
    assert {*found} == {row["origin"] for row in provenance}
    assert kept["exact_copies"] + kept["near_copies"] == len(texts) - len(found)
    assert kept["exact_copies"] >= 12 * 2
    assert kept["near_copies"] >= 1


@pytest.mark.parametrize("mode", MODES)
def test_no_noise_is_kept(mode, scores, pool):
    texts, provenance = pool
    kept = scores.keep(texts, mode, 0.3)
    kinds = {provenance[i]["kind"] for i in kept["places"]}
    assert kinds <= {*CLEAN}
    assert kept["texts"] == [texts[i] for i in kept["places"]]
    assert kept["places"] == sorted(kept["places"])


def test_the_target_comes_first_if_it_is_known(scores, pool):
    texts, provenance = pool
    domains = lambda kept: [provenance[i]["domain"] for i in kept["places"]]
    assert {*domains(scores.keep(texts, "target", 0.15))} == {"t"}
    assert {*domains(scores.keep(texts, "blind", 0.15))} == {"t", "n"}


@pytest.mark.parametrize("mode", MODES)
def test_a_share_of_the_tokens_is_kept(mode, scores, pool, tokens):
    """Of all tokens of the pool, its copies included; to the next whole text."""
    texts, _ = pool
    longest = max(tokens([text]) for text in texts)
    before = []
    for share in SHARES:
        kept = scores.keep(texts, mode, share)
        assert 0 <= tokens(kept["texts"]) - share * tokens(texts) <= longest
        assert kept["documents"] == len(kept["texts"])
        assert kept["of_documents"] == len(texts)
        assert {*before} <= {*kept["places"]}  # the best first
        before = kept["places"]


def test_more_than_there_is_without_copies_is_all_of_it(scores, pool):
    texts, _ = pool
    left = len(scores.places)
    assert left < len(texts)
    assert scores.keep(texts, "blind", 1.0)["documents"] == left


def test_what_it_took_is_told(scores, pool, tokens):
    kept = {mode: scores.keep(pool[0], mode, 0.2) for mode in MODES}
    flops = {mode: one["statistics_flops"] for mode, one in kept.items()}
    assert flops["target"] > flops["blind"] > tokens(pool[0])
    assert kept["blind"]["filter_seconds"] == scores.seconds > 0
    json.dumps(kept)  # plain numbers


def test_words_begin_with_white_space():
    starts = word_starts(ByteTokenizer().bytes_of)
    assert starts.dtype == bool
    assert {*np.flatnonzero(starts)} == {*b" \t\n\r\x0b\x0c"}
    assert len(starts) == 257


# The oracle


@pytest.mark.parametrize("near", [False, True])
def test_the_oracle_has_one_copy_of_each_clean_text(near, pool):
    texts, provenance = pool
    found = known_good(texts, provenance, near)
    wanted = {
        row["origin"]
        for row in provenance
        if row["kind"] in CLEAN and (near or row["domain"] == "t")
    }
    chosen = [provenance[texts.index(text)] for text in found["texts"]]
    assert sorted(row["origin"] for row in chosen) == sorted(wanted)
    assert found["documents"] == len(wanted) == (60 if near else 30)
    assert not any(row["edit"] for row in chosen)
    places = [texts.index(text) for text in found["texts"]]
    assert places == sorted(places)


def test_the_oracle_takes_an_edited_copy_where_there_is_no_other():
    rows = [row("unique", "t", "a"), row("duplicate", "t", "b", "drop")]
    rows += [row("word_shuffled", "t", "c"), row("boilerplate", "", "d")]
    texts = ["one", "two", "three", "four"]
    assert known_good(texts, rows, near=True)["texts"] == ["one", "two"]


# All stores


def test_every_store_is_prepared_and_scored_once(folder, pool, tokens, monkeypatch):
    made = []

    def counted(*given):
        made.append(given)
        return Scores(*given)

    monkeypatch.setattr(cleaning, "SHARES", (0.1, 0.3))
    monkeypatch.setattr(cleaning, "Scores", counted)
    for _ in range(2):  # the second call finds all there
        prepare(folder)
    assert len(made) == 1
    shares = {f"b3.{mode}.{share}": share for mode in MODES for share in (0.1, 0.3)}
    for name in (*shares, "oracle.target", "oracle.near"):
        a, b = (open_store(folder / f"{name}.{half}") for half in "ab")
        np.testing.assert_array_equal(a.tokens("train"), b.tokens("train"))
        told = json.loads((folder / f"{name}.json").read_text())
        found = a.meta["splits"]["train"]
        assert found["documents"] == told["documents"]
        if name in shares:
            known = shares[name] * tokens(pool[0])
            assert 0 <= found["tokens"] - found["documents"] - known < 0.1 * known
