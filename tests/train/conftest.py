"""What the tests of training share."""

import pytest

from uets_jax.config import replace_from_dict
from uets_jax.train import monitor


@pytest.fixture(scope="session")
def config(tiny, corpus):
    """TINY on the small corpus, with the byte tokenizer's vocabulary."""
    source = {"source": f"files:{corpus}/*.txt"}
    return replace_from_dict(tiny, {"data": source, "model": {"vocab": 257}})


@pytest.fixture
def one_is_bad(monkeypatch):
    """A function: the n-th step that is looked at is said to be bad, once."""

    def arrange(n):
        seen, real = [], monitor.bad

        def once(values):
            seen.append(values)
            return "made up" if len(seen) == n else real(values)

        monkeypatch.setattr(monitor, "bad", once)

    return arrange
