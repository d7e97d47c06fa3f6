import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.data.split import Digest, document_hash, survey, threshold
from uets_jax.errors import UserError

texts = st.lists(st.text("abc", min_size=1, max_size=20), min_size=2, max_size=40)


@given(texts, st.floats(0, 0.99))
def test_lowest_hashes_reach_the_fraction_and_no_more(documents, fraction):
    found = survey(documents)
    if len(set(documents)) < 2:
        with pytest.raises(UserError, match=r"--data\.valid-source"):
            threshold(found, fraction)
        return
    held = found.hashes <= np.uint64(threshold(found, fraction))
    assert 0 < held.sum() < len(documents)
    want = fraction * found.sizes.sum()
    largest = found.hashes == found.hashes[held].max()
    without_last = found.sizes[held & ~largest].sum()
    assert without_last < want or not without_last
    kept = np.unique(found.hashes[~held])
    assert found.sizes[held].sum() >= want * (1 - 1e-12) or len(kept) == 1


def test_survey_is_of_content_and_order():
    first = survey(["a", "é"])
    assert first.sizes.tolist() == [1, 2]
    assert first.sha256 == survey(iter(["a", "é"])).sha256
    others = (["é", "a"], ["aé"], ["a", "é", "é"])
    assert first.sha256 not in [survey(texts).sha256 for texts in others]


def test_digest_returns_the_hash_of_each_document():
    raw = b"text"
    want = int.from_bytes(hashlib.sha256(raw).digest()[:8], "little")
    assert Digest().add(raw) == document_hash(raw) == want == survey(["text"]).hashes[0]
