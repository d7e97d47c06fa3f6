import hashlib
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.data.windows import (
    Windows,
    chain_ids,
    cut,
    sequential,
    stream,
    window_count,
)
from uets_jax.errors import UserError
from uets_jax.types import IGNORED, Batch

EOT = 0
TOKENS = np.random.default_rng(0).integers(0, 9, 1003).astype(np.uint16)
TOKENS[0] = EOT


def make(batch=8, seed=0, tokens=TOKENS, length=16, **process) -> Windows:
    return Windows(tokens, EOT, length, batch, seed, **process)


def epoch_of(windows: Windows) -> list[Batch]:
    """Steps that hold at least one epoch."""
    return [windows[step] for step in range(-(-windows.count // windows.batch))]


def targets_by_place(batches: list[Batch], length: int) -> dict[int, int]:
    """Position in the split -> its target; fails where a position comes twice."""
    found = {}
    for batch in batches:
        for row, i in zip(batch.targets, batch.ids.tolist(), strict=True):
            for place in np.flatnonzero(row != IGNORED).tolist():
                assert i * length + place + 1 not in found
                found[i * length + place + 1] = int(row[place])
    return found


@given(st.integers(2, 200), st.integers(1, 40), st.integers(1, 9))
def test_evaluation_predicts_every_token_once(size, length, batch):
    tokens = TOKENS[:size]
    batches = list(sequential(tokens, EOT, length, batch))
    found = targets_by_place(batches, length)
    assert found == {i: t for i, t in enumerate(tokens.tolist()) if i}
    assert {b.tokens.shape for b in batches} == {(batch, length)}


@given(st.integers(2, 200), st.integers(1, 250), st.integers(1, 40))
def test_evaluation_reads_no_more_than_it_may(size, most, length):
    batches = list(sequential(TOKENS[:size], EOT, length, 4, most))
    assert sorted(targets_by_place(batches, length)) == [*range(1, min(size, most + 1))]


def test_rows_of_padding_have_no_id_and_no_target():
    *_, last = sequential(TOKENS[:36], EOT, 10, 3)
    assert last.ids.tolist() == [3, -1, -1]
    assert (last.targets[1:] == IGNORED).all()
    assert (last.tokens[1:] == EOT).all()
    assert last.targets[0].tolist() == [*TOKENS[31:36], *[IGNORED] * 5]
    assert last.tokens[0].tolist() == [*TOKENS[30:36], *[EOT] * 4]


def test_an_epoch_predicts_every_token_once_and_takes_every_window():
    windows = make(batch=9)
    assert windows.count == window_count(len(TOKENS), 16) == 63 == 7 * 9
    batches = epoch_of(windows)
    assert sorted(np.concatenate([b.ids for b in batches])) == list(range(63))
    want = {i: t for i, t in enumerate(TOKENS.tolist()) if i}
    assert targets_by_place(batches, 16) == want


@given(st.integers(1, 30), st.integers(0, 40), st.integers(0, 2**31 - 1))
def test_epochs_are_permutations_that_batches_straddle(batch, epoch, seed):
    windows = make(batch, seed)
    first, last = epoch * windows.count, (epoch + 1) * windows.count
    steps = range(first // batch, -(-last // batch))
    order = np.concatenate([windows.order(step) for step in steps])
    order = order[first - steps.start * batch :][: windows.count]
    assert sorted(order) == list(range(windows.count))


@given(
    st.integers(1, 6), st.integers(1, 5), st.integers(0, 9), st.integers(0, 2**31 - 1)
)
def test_pieces_stay_together_and_an_epoch_offers_every_window(
    piece, pieces, epoch, seed
):
    windows = make(piece * pieces, seed, piece=piece)
    size = -(-windows.count // piece)  # pieces of an epoch
    first, last = epoch * size, (epoch + 1) * size
    steps = range(first // pieces, -(-last // pieces))
    order = np.concatenate([windows.order(step) for step in steps])
    order = order[(first - steps.start * pieces) * piece :][: size * piece]
    starts = order.reshape(size, piece)
    np.testing.assert_array_equal(starts, starts[:, :1] + np.arange(piece))
    ids, times = np.unique(order, return_counts=True)
    assert ids.tolist() == list(range(windows.count))
    overlap = size * piece - windows.count  # of the last piece and the one before it
    begin = windows.count - piece
    twice = list(range(begin, begin + overlap))
    assert ids[times == 2].tolist() == twice
    assert times.max() <= 2


def test_pieces_of_one_window_are_single_windows():
    for step in range(20):
        plain, pieces = make(9), make(9, piece=1)
        np.testing.assert_array_equal(plain.order(step), pieces.order(step))
    shuffled = np.concatenate([make(9).order(step) for step in range(7)])
    assert np.abs(np.diff(shuffled)).mean() > 10


def test_processes_share_whole_pieces():
    whole = make(12, piece=3)[5]
    parts = [make(12, piece=3, process_index=i, process_count=2)[5] for i in (0, 1)]
    np.testing.assert_array_equal(whole.ids, np.concatenate([p.ids for p in parts]))
    assert all((np.diff(p.ids.reshape(-1, 3)) == 1).all() for p in parts)


def test_order_depends_on_seed_and_epoch_alone():
    order = lambda windows, step: windows.order(step).tolist()
    assert order(make(9), 3) == order(make(9), 3)
    assert order(make(9), 3) != order(make(9, seed=1), 3)
    assert order(make(9), 0) != order(make(9), 7)
    assert order(make(18), 1) == order(make(9), 2) + order(make(9), 3)
    assert make().order(10**12).shape == (8,)
    assert make().order(0).dtype == np.int64


def test_a_row_is_what_stands_at_its_id():
    batch = make()[5]
    assert isinstance(batch, Batch)
    assert {field.dtype for field in batch} == {np.dtype(np.int32)}
    assert batch.tokens.shape == batch.targets.shape == batch.segments.shape == (8, 16)
    for tokens, targets, i in zip(batch.tokens, batch.targets, batch.ids, strict=True):
        here = TOKENS[i * 16 : i * 16 + 17]
        np.testing.assert_array_equal(tokens[: len(here)], here[:16])
        np.testing.assert_array_equal(targets[: len(here) - 1], here[1:])


def test_segments_rise_at_the_separator_and_start_at_zero():
    tokens = np.array([5, 0, 6, 7, 0, 0, 8, 9, 4], np.uint32)
    batch = cut(tokens, EOT, 4, np.array([0, 1]))
    assert batch.segments.tolist() == [[0, 1, 1, 1], [0, 1, 1, 1]]
    assert cut(tokens, EOT, 8, np.array([0])).segments.tolist() == [
        [0, 1, 1, 1, 2, 3, 3, 3]
    ]


@given(st.integers(0, 200), st.sampled_from([1, 2, 4, 8]))
def test_processes_share_every_batch(step, count):
    whole = make()[step]
    parts = [make(process_index=i, process_count=count)[step] for i in range(count)]
    for field, shares in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(field, np.concatenate(shares))


def test_a_process_reads_only_its_own_share():
    seen = []

    class Spy(np.ndarray):
        def __getitem__(self, key):
            seen.append(key.start)
            return np.asarray(super().__getitem__(key))

    windows = make(tokens=TOKENS.view(Spy), process_index=1, process_count=4)
    batch = windows[3]
    assert seen == [16 * i for i in batch.ids.tolist()]
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 64}, "63 windows of 16 tokens, fewer than train.batch = 64"),
        ({"process_count": 3}, "8 can't be shared by 3"),
        ({"process_index": 1}, "process 1 of 1"),
        ({"piece": 3}, "8 can't be shared by 1 processes in pieces of 3"),
        ({"piece": 4, "process_count": 4}, "by 4 processes in pieces of 4"),
        ({"tokens": TOKENS[:1], "batch": 1}, "0 windows"),
    ],
)
def test_what_can_not_work_is_told_at_once(settings, message):
    with pytest.raises(UserError, match=message):
        make(**settings)


@pytest.mark.parametrize("steps", [(0, 9), (5, 25), (3, 3), (4, 2)])
def test_the_stream_is_the_same_with_and_without_grain(steps, monkeypatch):
    windows = make()
    want = [windows[step] for step in range(*steps)]
    ahead = list(stream(windows, *steps))
    monkeypatch.setitem(sys.modules, "grain", None)
    plain = list(stream(windows, *steps))
    assert len(ahead) == len(plain) == len(want)
    for one, two, three in zip(ahead, plain, want, strict=True):
        assert isinstance(one, Batch)
        for a, b, c in zip(one, two, three, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(b, c)


def test_a_stream_may_be_left_early():
    batches = stream(make(), 0, 10**9)
    np.testing.assert_array_equal(next(batches).ids, make()[0].ids)
    del batches


def test_chained_ids_are_a_hash_chain_over_int64():
    one = hashlib.sha256(b"" + b"\x05" + bytes(7) + b"\xff" * 8).hexdigest()
    assert chain_ids("", [5, -1]) == chain_ids("", np.array([5, -1], np.int32)) == one
    two = hashlib.sha256(one.encode() + b"\x01" + bytes(7)).hexdigest()
    assert chain_ids(one, [1]) == two != chain_ids("", [1])
