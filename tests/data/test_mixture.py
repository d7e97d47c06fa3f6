import collections
import dataclasses
import hashlib
import json
import re

import numpy as np
import pytest

from uets_jax.data.composition import Mixture
from uets_jax.data.draws import Draws
from uets_jax.data.mixture import KINDS, clean_texts, composition, mix
from uets_jax.data.supply import Document
from uets_jax.errors import UserError

RECIPE = Mixture(
    target="t",
    near=("n", "m"),
    bytes=250_000,
    piece=1024,
    sample_bytes=10_000,
    copies=(2, 50),
)
GOLDEN = "964de19c27b6a57abcdc1843298ec406d74bdb0ae13f2dd7b20bec34f73a2fcd"


def make_text(draws, domain, paragraphs):
    """Words of the domain in random order: no 13 of them ever stand together twice."""
    words = [f"{domain}{i:x}" for i in range(400)]
    lines = (
        " ".join(draws.pick(words) for _ in range(20 + draws.below(60)))
        for _ in range(paragraphs)
    )
    return ".\n\n".join(lines) + "."


def make_documents(domain, count, name=""):
    draws = Draws("corpus", domain, name)
    return [
        Document(f"{domain}-{name}{i}", domain, make_text(draws, domain, 3 + i % 9))
        for i in range(count)
    ]


HELD = [*make_documents("t", 8, "held"), *make_documents("n", 3, "held")]
LEAK = Document("leak", "t", HELD[2].text.upper().replace(" ", "  "))
QUOTE = Document("quote", "n", make_documents("n", 1, "q")[0].text + HELD[3].text)
CORPUS = [
    *(*make_documents("t", 100), LEAK, QUOTE),
    *(*make_documents("n", 80), *make_documents("m", 80)),
    *make_documents("code", 20),
]


@pytest.fixture(scope="module")
def pool():
    return mix(RECIPE, CORPUS, HELD)


def of(pool, kind):
    return [entry for entry in pool.entries if entry.kind == kind]


def document_of(name):
    return name.partition("#")[0]


def grams(text, length=13):
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def digest(pool):
    return hashlib.sha256(json.dumps(pool).encode()).hexdigest()


def test_the_shares_are_met_within_one_percent_of_the_pool(pool):
    found = composition(pool.entries)
    wanted = dict(zip(KINDS, (0.10, 0.25, 0.30, 0.175, 0.0875, 0.0875), strict=True))
    for kind, share in wanted.items():
        assert abs(found[kind]["bytes"] / RECIPE.bytes - share) < 0.01
    total = sum(kind["bytes"] for kind in found.values())
    assert abs(total / RECIPE.bytes - 1) < 0.01
    assert sum(kind["documents"] for kind in found.values()) == len(pool.entries)


def test_half_of_the_duplicates_are_target_text(pool):
    copies = of(pool, "duplicate")
    target = sum(entry.size for entry in copies if entry.domain == "t")
    assert abs(target / RECIPE.bytes - 0.15) < 0.01


def test_kinds_have_their_domains(pool):
    domains = collections.defaultdict(set)
    for entry in pool.entries:
        domains[entry.kind].add(entry.domain)
    assert domains["unique"] == {"t"}
    assert domains["near"] == {"n", "m"}
    assert domains["boilerplate"] == {""}
    for kind in ("duplicate", "word_shuffled", "char_shuffled"):
        assert "t" in domains[kind]
        assert domains[kind] & {"n", "m"}
    shuffled = [e for e in pool.entries if e.kind.endswith("shuffled")]
    target = sum(e.size for e in shuffled if e.domain == "t")
    part = target / sum(e.size for e in shuffled)
    assert part == pytest.approx(RECIPE.target_part, abs=0.01)


def test_equal_input_gives_equal_pools_and_another_seed_another(pool):
    assert digest(pool) == digest(mix(RECIPE, CORPUS[::-1], HELD))
    other = mix(dataclasses.replace(RECIPE, seed=1), CORPUS, HELD)
    assert {e.text for e in other.entries if e.kind == "unique"} != {
        e.text for e in pool.entries if e.kind == "unique"
    }
    assert (other.valid_a, other.valid_b) == (pool.valid_a, pool.valid_b)


def test_the_pool_is_the_same_on_every_machine(pool):
    assert digest(pool) == GOLDEN


def test_no_text_of_pool_or_sample_stands_in_validation(pool):
    held = set().union(*(grams(d.text) for d in HELD if d.domain == "t"))
    assert len(held) > 1000
    for text in (*(e.text for e in pool.entries), *(d.text for d in pool.sample)):
        found = grams(text)
        assert len(found & held) <= RECIPE.overlap * len(found)
    assert pool.dropped["held_out_exact"] == 1
    assert pool.dropped["held_out_overlap"] == 1
    origins = {document_of(entry.origin) for entry in pool.entries}
    assert not origins & {"leak", "quote"}


def test_validation_is_the_target_domain_in_two_halves(pool):
    both = [*pool.valid_a, *pool.valid_b]
    assert sorted(both) == sorted(d for d in HELD if d.domain == "t")
    one, other = (
        sum(len(d.text) for d in side) for side in (pool.valid_a, pool.valid_b)
    )
    assert 0.7 < one / other < 1.4


def test_a_document_is_of_one_kind(pool):
    kinds = collections.defaultdict(set)
    for entry in pool.entries:
        kinds[document_of(entry.origin)].add(entry.kind)
    for piece in pool.sample:
        kinds[document_of(piece.id)].add("sample")
    assert {len(found) for found in kinds.values()} == {1}


def test_the_sample_is_target_text_in_no_split(pool):
    assert {piece.domain for piece in pool.sample} == {"t"}
    size = sum(len(piece.text.encode()) for piece in pool.sample)
    assert abs(size - RECIPE.sample_bytes) <= RECIPE.piece / 2
    sample = set().union(*(grams(piece.text) for piece in pool.sample))
    rest = (entry.text for entry in pool.entries)
    held = (document.text for document in HELD)
    for text in (*rest, *held):
        assert not grams(text) & sample


def test_shuffled_texts_are_permutations_of_their_origin(pool):
    sources = {document.id: document.text for document in CORPUS}
    for entry in of(pool, "word_shuffled"):
        words = collections.Counter(entry.text.split())
        source = sources[document_of(entry.origin)]
        assert not words - collections.Counter(source.split())
        if "#" not in entry.origin:
            assert words == collections.Counter(source.split())
        assert entry.text not in source
    for entry in of(pool, "char_shuffled"):
        source = collections.Counter(sources[document_of(entry.origin)])
        assert not collections.Counter(entry.text) - source


def test_the_word_shuffled_text_of_a_piece_has_all_its_words(pool):
    sources = {document.id: document.text for document in CORPUS}
    for entry in of(pool, "word_shuffled"):
        words = entry.text.split()
        text, want = (
            sources[document_of(entry.origin)].split(),
            collections.Counter(words),
        )
        windows = (
            collections.Counter(text[i : i + len(words)])
            for i in range(len(text) - len(words) + 1)
        )
        assert any(window == want for window in windows)


def groups(pool):
    found = collections.defaultdict(list)
    for entry in of(pool, "duplicate"):
        found[entry.origin].append(entry)
    return found


def test_copies_follow_the_power_law(pool):
    found = [len(group) for group in groups(pool).values()]
    weights = np.arange(2.0, 51.0) ** -2
    for count in (2, 3):
        share = weights[count - 2] / weights.sum()
        spread = np.sqrt(share * (1 - share) / len(found))
        assert abs(found.count(count) / len(found) - share) < 4 * spread


def test_no_piece_has_more_copies_than_there_may_be():
    recipe = dataclasses.replace(RECIPE, bytes=60_000, copies=(3, 5), exponent=0.5)
    found = [len(group) for group in groups(mix(recipe, CORPUS, HELD)).values()]
    assert set(found) == {3, 4, 5}


def test_half_of_the_copies_are_edited(pool):
    sizes = [len(group) for group in groups(pool).values()]
    assert 2 <= min(sizes) <= max(sizes) <= 50
    assert max(sizes) > 8
    edited = [entry for entry in of(pool, "duplicate") if entry.edit]
    assert len(edited) / sum(sizes) == pytest.approx(0.5, abs=0.05)
    assert {entry.edit for entry in edited} == {"words", "passage", "characters"}
    for group in groups(pool).values():
        plain = {entry.text for entry in group if not entry.edit}
        assert len(plain) == 1
        changed = [entry.text for entry in group if entry.edit]
        assert abs(len(changed) - len(group) / 2) <= 0.5
        assert len(set(changed)) == len(changed)
        assert not plain & set(changed)


def test_edits_change_2_to_5_percent(pool):
    for group in groups(pool).values():
        [plain] = {entry.text for entry in group if not entry.edit}
        before = collections.Counter(plain.split())
        count, slack = before.total(), 1 / before.total()
        for entry in group:
            after = collections.Counter(entry.text.split())
            if entry.edit in ("words", "passage"):
                lost, new = (before - after).total(), (after - before).total()
                assert 0 < max(lost, new) <= (0.05 + slack) * count
                assert lost + new >= 0.02 * count * 0.5
            elif entry.edit:
                assert abs(len(entry.text) - len(plain)) <= 0.05 * len(plain) + 1
                hit = (before - after).total() / count
                assert 0.04 < hit < 0.4  # 2 to 5 % of the characters hit more words


def test_places_tell_nothing(pool):
    total = len(pool.entries)
    for kind in KINDS:
        places = [i for i, entry in enumerate(pool.entries) if entry.kind == kind]
        mean, spread = np.mean(places) / total, 1 / np.sqrt(12 * len(places))
        assert abs(mean - 0.5) < 4 * spread
    kinds = [entry.kind for entry in pool.entries]
    runs = np.mean([a == b for a, b in zip(kinds[1:], kinds[:-1], strict=True)])
    expected = sum((kinds.count(kind) / total) ** 2 for kind in KINDS)
    assert runs == pytest.approx(expected, abs=4 * np.sqrt(expected / total))


def test_sizes_tell_little(pool):
    sizes = {kind: [entry.size for entry in of(pool, kind)] for kind in KINDS}
    mean = np.mean([entry.size for entry in pool.entries])
    for kind in KINDS:
        assert max(sizes[kind]) <= 1.06 * RECIPE.piece
        assert 0.6 < np.mean(sizes[kind]) / mean < 1.5


def test_clean_texts_count_copies(pool):
    texts = clean_texts(pool.entries, "t")
    found = composition(pool.entries)
    clean = sum(found[kind]["bytes"] for kind in ("unique", "near", "duplicate"))
    assert sum(t.size * t.copies for t in texts) == pytest.approx(clean)
    once = found["unique"]["documents"] + found["near"]["documents"]
    assert sum(t.copies == 1 for t in texts) == once
    assert sum(t.target for t in texts) > found["unique"]["documents"]


def test_what_is_missing_or_short_is_named():
    with pytest.raises(UserError, match="'t' has 1 held-out"):
        mix(RECIPE, CORPUS, HELD[:1])
    with pytest.raises(UserError, match="no document of m, n;"):
        mix(RECIPE, CORPUS[:20], HELD)
    few = [*CORPUS[:30], *CORPUS[120:]]
    with pytest.raises(UserError, match=r"target domain 't': [\d,]+ bytes short of"):
        mix(RECIPE, few, HELD)
    few = [*CORPUS[:120]]
    with pytest.raises(UserError, match=r"no document of m"):
        mix(RECIPE, few, HELD)
    few = [*CORPUS[:120], CORPUS[220]]
    with pytest.raises(UserError, match=r"near domains n, m: [\d,]+ bytes short of"):
        mix(RECIPE, few, HELD)
