"""What the tests of training share."""

import pytest

from uets_jax.config import replace_from_dict


@pytest.fixture(scope="session")
def config(tiny, corpus):
    """TINY on the small corpus, with the byte tokenizer's vocabulary."""
    source = {"source": f"files:{corpus}/*.txt"}
    return replace_from_dict(tiny, {"data": source, "model": {"vocab": 257}})
