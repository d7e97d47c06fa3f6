from collections import Counter

import numpy as np
import pytest

from experiments.aql_provenance import pool_row, provenance, share_rows
from uets_jax.data.mixture import KINDS
from uets_jax.errors import UserError

EOT, LENGTH = 9, 4


def store(sizes):
    """Token ids of documents of so many tokens, each after its separator."""
    return np.concatenate([[EOT, *([1] * size)] for size in sizes])


def lines(kinds, origins=None):
    origins = origins or [f"o{i}" for i in range(len(kinds))]
    return [{"kind": k, "origin": o} for k, o in zip(kinds, origins, strict=True)]


def test_a_window_is_of_the_document_with_most_of_its_tokens():
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 12, 60)
    kinds = [KINDS[i] for i in rng.integers(0, len(KINDS), 60)]
    tokens = store(sizes)
    found = provenance(tokens, EOT, lines(kinds), LENGTH).kinds
    owner = np.cumsum(tokens == EOT) - 1
    windows = range(0, len(tokens) - 1, LENGTH)
    assert len(found) == len(windows)
    for kind, start in zip(found, windows, strict=True):
        count = Counter(owner[start : start + LENGTH].tolist())
        most = max(count.values())
        best = {kinds[d] for d, number in count.items() if number == most}
        assert KINDS[kind] in best


def test_documents_and_lines_must_go_together():
    with pytest.raises(UserError, match=r"provenance.jsonl: 1 lines for 2 documents"):
        provenance(store([4, 4]), EOT, lines(["near"]), LENGTH)


def test_a_copy_has_the_passages_of_its_original():
    kinds = ["unique", "near", "duplicate"]
    tokens = store([11, 7, 11, 0])
    rows = lines([*kinds, "near"], ["a", "b", "a", "c"])
    found = provenance(tokens, EOT, rows, LENGTH).passages
    assert len(found) == 8  # 12 + 8 + 12 + 1 tokens: windows 3, 2, 3
    assert found[5:].tolist() == found[:3].tolist()
    assert len({*found.tolist()}) == 5


@pytest.fixture(scope="module")
def known():
    tokens = store([11, 7, 11, 0])
    rows = lines(["unique", "near", "duplicate", "near"], ["a", "b", "a", "c"])
    return provenance(tokens, EOT, rows, LENGTH)


def test_shares_are_of_the_windows_that_were_drawn(known):
    ids = np.array([[0, 3], [5, 1]] * 10)  # twenty steps of two windows
    *tenths, whole = share_rows("target", ids, known)
    assert [row["tenth"] for row in tenths] == [*range(1, 11)]
    assert {row["mode"] for row in tenths} == {"target"}
    assert tenths[0]["windows"] == 4
    assert tenths[0]["unique_share"] == 0.5
    assert tenths[0]["near_share"] == tenths[0]["duplicate_share"] == 0.25
    assert tenths[0]["boilerplate_share"] == 0.0
    assert tenths[0]["repeated_share"] == 0.0
    assert tenths[0]["copied_share"] == 0.25  # window 5 is a copy of window 0
    assert tenths[1]["repeated_share"] == tenths[1]["copied_share"] == 1.0
    assert (whole["tenth"], whole["windows"]) == (None, 40)
    assert whole["repeated_share"] == pytest.approx(0.9)
    for row in (*tenths, whole):
        assert sum(row[f"{kind}_share"] for kind in KINDS) == pytest.approx(1.0)


def test_a_run_of_few_windows_has_fewer_rows(known):
    assert [row["tenth"] for row in share_rows("blind", np.array([[0, 1]]), known)] == [
        1, 2, None
    ]  # fmt: skip


def test_the_pool_is_all_its_windows(known):
    row = pool_row(known)
    assert (row["mode"], row["tenth"], row["windows"]) == (None, None, 8)
    assert row["unique_share"] == row["duplicate_share"] == 3 / 8
    assert row["near_share"] == 0.25
    assert row["repeated_share"] == 0.0
    assert row["copied_share"] == 3 / 8
