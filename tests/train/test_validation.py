import dataclasses

import numpy as np
import pytest

from uets_jax.train.session import open_session
from uets_jax.train.validation import validation


def test_bits_per_byte_of_an_untrained_byte_model_is_a_little_above_eight(tiny, corpus):
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(tiny.model, vocab=0)
    session = open_session(dataclasses.replace(tiny, data=data, model=model))
    params = session.initial_state().params
    found = validation(session, params, "valid", 0)
    tokens = session.store.tokens("valid")
    assert found["valid_tokens"] == len(tokens) - 1
    assert found["valid_loss"] == pytest.approx(np.log(257), rel=1e-5)
    text = int((tokens != 256).sum())
    assert found["bits_per_byte"] == pytest.approx(
        np.log2(257) * (len(tokens) - 1) / text, rel=1e-5
    )
    some = validation(session, params, "valid", 100)
    assert some["valid_tokens"] == 100
