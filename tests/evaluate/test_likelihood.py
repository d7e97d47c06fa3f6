import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.data.tokenizer import ByteTokenizer
from uets_jax.errors import UserError
from uets_jax.evaluate import likelihood
from uets_jax.evaluate.likelihood import (
    batch_cost,
    batches,
    buckets,
    compile_rows,
    fill,
    likelihoods,
)
from uets_jax.evaluate.passages import Passage, passages
from uets_jax.measure.flops import forward_flops
from uets_jax.types import IGNORED

BYTES, CONTEXT = ByteTokenizer(), 32
TEXTS = [
    ("", "a cat."),
    ("the cat sat", " on a mat"),
    ("", "dogs!!"),
    ("one two three four fi", "ve six seve"),
    ("the dog sat", " on a car"),
    ("long before the beginning of the context", " it was said"),
    ("a" * 20, "b" * 25),
]


@pytest.fixture
def small_batches(monkeypatch):
    """Batches of two short rows or one long one, and no row waits for a longer one."""
    monkeypatch.setattr(likelihood, "TOKENS", 32)
    monkeypatch.setattr(likelihood, "SPARE", 0)


def measure(model, found: list[Passage], greedy: bool = False, **how):
    """Likelihoods of (program, params)."""
    program, params = model
    return likelihoods(program, params, BYTES, found, CONTEXT, greedy, **how)


def oracle(model, passage: Passage) -> tuple[float, bool]:
    """Nats of one passage, alone and without padding, in float64; is it greedy?"""
    program, params = model
    logits = jax.jit(program.logits)(params, passage.tokens[None, :-1])
    logits = np.asarray(logits[0], np.float64)[-passage.scored :]
    targets = passage.tokens[-passage.scored :]
    top = logits.max(-1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    nats = -logs[np.arange(len(targets)), targets].sum()
    return float(nats), bool((logits.argmax(-1) == targets).all())


def test_rows_equal_each_text_alone(speaker, small_batches):
    found = passages(BYTES, TEXTS, CONTEXT)
    measured = measure(speaker, found, greedy=True)
    expected = [oracle(speaker, passage) for passage in found]
    nats = [nats for nats, _ in expected]
    np.testing.assert_allclose(measured.nats, nats, rtol=0, atol=1e-4)
    assert measured.greedy is not None
    assert measured.greedy.tolist() == [hit for _, hit in expected]
    assert measured.bytes.tolist() == [6, 9, 6, 11, 9, 12, 25]
    assert measured.cut.tolist() == [False] * 5 + [True] * 2
    assert measured.shapes == {(2, 16): 1, (1, 32): 5}


def test_what_is_greedy_is_found(speaker):
    program, params = speaker
    found = passages(BYTES, TEXTS[:2], CONTEXT)
    best = []
    for ids, _, _ in found:
        last = jax.jit(program.logits)(params, ids[None, :-1])[0, -1, :257]
        best += [Passage(np.append(ids[:-1], last.argmax()).astype("i4"), 1, False)]
    wrong = [Passage(np.append(p.tokens[:-1], 0).astype("i4"), 1, False) for p in best]
    measured = measure(speaker, best + wrong, greedy=True)
    assert measured.greedy is not None
    assert measured.greedy.tolist() == [True, True, False, False]


def test_order_and_neighbours_do_not_matter(speaker):
    found = passages(BYTES, TEXTS, CONTEXT)
    order = np.random.default_rng(0).permutation(len(found))
    there = measure(speaker, found).nats
    back = measure(speaker, [found[i] for i in order])
    np.testing.assert_allclose(back.nats, there[order], rtol=1e-6)
    assert back.greedy is None


def test_equal_logits_are_not_greedy(bigram):
    found = passages(BYTES, [("a", "b")], CONTEXT)
    flat = jnp.zeros((257, 257))
    measured = measure((bigram, flat), found, greedy=True)
    assert measured.greedy is not None
    assert not measured.greedy[0]
    assert measured.nats[0] == pytest.approx(np.log(257))


def test_a_model_with_fewer_ids_than_the_tokenizer_is_refused(program, state):
    found = passages(BYTES, TEXTS, CONTEXT)
    with pytest.raises(UserError, match="has 257 ids, the model 64"):
        likelihoods(program, state.params, BYTES, found, CONTEXT)


def test_ids_that_no_tokenizer_has_are_no_rivals(bigram):
    table = (
        jnp.zeros((300, 300)).at[97, jnp.array([98, 299])].set(jnp.array([1.0, 2.0]))
    )
    found = passages(BYTES, [("a", "b")], CONTEXT)
    measured = measure((bigram, table), found, greedy=True)
    assert measured.greedy is not None
    assert measured.greedy[0]


def test_every_batch_is_put_and_has_rows_for_all_shards(bigram, small_batches):
    seen = []

    def put(batch):
        seen.append(batch.tokens.shape)
        return batch

    found = passages(BYTES, TEXTS, CONTEXT)
    flat = jnp.zeros((257, 257))
    measured = measure((bigram, flat), found, put=put, shards=3)
    assert seen == [(3, 16), (3, 32), (3, 32)]
    assert measured.shapes == {(3, 16): 1, (3, 32): 2}


LENGTHS = st.lists(st.integers(1, 100), max_size=60)


@given(LENGTHS, st.sampled_from([0, 200, 10_000]))
def test_every_passage_has_one_row_that_is_long_enough(wanted, spare):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "SPARE", spare)
        found = buckets(np.array(wanted, int), 100)
    rows = [(int(i), length) for length, numbers in found.items() for i in numbers]
    assert sorted(i for i, _ in rows) == [*range(len(wanted))]
    assert all(wanted[i] <= length for i, length in rows)
    assert {*found} <= {16, 32, 64, 100}
    tight = [min(n for n in (16, 32, 64, 100) if n >= w) for w in wanted]
    if spare == 0:
        assert [length for _, length in sorted(rows)] == tight
    if spare == 10_000 and wanted:
        assert [*found] == [max(tight)]


def test_few_short_texts_join_the_longer_ones(monkeypatch):
    monkeypatch.setattr(likelihood, "SPARE", 64)
    few = buckets(np.array([5, 40, 6, 7, 40, 8]), 128)
    assert {n: i.tolist() for n, i in few.items()} == {32: [0, 2, 3, 5], 64: [1, 4]}


def test_a_row_holds_its_passage_and_padding():
    ids = np.arange(10, 15, dtype=np.int32)
    batch = fill([Passage(ids, 2, False)], 2, 6, eot=99)
    no = IGNORED
    assert np.asarray(batch.tokens).tolist() == [[10, 11, 12, 13, 99, 99], [99] * 6]
    assert np.asarray(batch.targets).tolist() == [[no, no, 13, 14, no, no], [no] * 6]
    assert not np.asarray(batch.segments).any()


def test_no_passages_make_no_batches():
    assert [*batches([], 0, 16)] == []


def test_the_cost_of_a_batch_is_that_of_its_tokens(speaker, tiny):
    program, _ = speaker
    model = dataclasses.replace(tiny.model, vocab=257)
    assert batch_cost(program, (4, 16)).matmul == 64 * forward_flops(model, 16)


def test_greedy_decoding_costs_no_second_pass(speaker):
    program, params = speaker
    batch = fill([], 8, 32, eot=256)
    call = lambda vocab: compile_rows(program, vocab).lower(params, batch).compile()
    plain, greedy = (call(vocab).cost_analysis() for vocab in (0, 257))
    assert plain is not None
    assert greedy is not None
    assert greedy["flops"] < 1.2 * plain["flops"]
