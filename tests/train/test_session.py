import dataclasses

import jax
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.train.session import (
    open_session,
    processor,
    use_compilation_cache,
)


def config_on(tiny, corpus, **model):
    data = dataclasses.replace(tiny.data, source=f"files:{corpus}/*.txt")
    model = dataclasses.replace(tiny.model, **model)
    return dataclasses.replace(tiny, data=data, model=model)


def test_the_vocabulary_comes_from_the_tokenizer(tiny, corpus):
    session = open_session(config_on(tiny, corpus, vocab=0))
    assert session.config.model.vocab == 257
    larger = open_session(config_on(tiny, corpus, vocab=512))
    assert larger.config.model.vocab == 512


def test_a_vocabulary_that_is_too_small_is_refused(tiny, corpus):
    with pytest.raises(UserError, match=r"model\.vocab: 64.*257"):
        open_session(config_on(tiny, corpus, vocab=64))


def test_evaluation_predicts_every_token_once(tiny, corpus):
    session = open_session(config_on(tiny, corpus, vocab=0))
    targets = [np.asarray(b.targets) for b in session.evaluation("valid")]
    flat = np.concatenate([t[t >= 0] for t in targets])
    np.testing.assert_array_equal(flat, session.store.tokens("valid")[1:])


def test_a_batch_that_devices_cannot_share_is_refused(tiny, corpus):
    mesh = dataclasses.replace(tiny.train.mesh, data=8)
    train = dataclasses.replace(tiny.train, batch=8, microbatches=2, mesh=mesh)
    config = dataclasses.replace(config_on(tiny, corpus, vocab=0), train=train)
    with pytest.raises(UserError, match="can't be split over 8 devices"):
        open_session(config)


def test_a_compilation_cache_of_the_users_own_stays(monkeypatch, tmp_path):
    own = jax.config.jax_compilation_cache_dir
    assert own is not None  # set in conftest
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == own
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        monkeypatch.setenv("UETS_CACHE", str(tmp_path))
        use_compilation_cache()
        expected = f"{tmp_path}/xla/{processor()}"
        assert jax.config.jax_compilation_cache_dir == expected
    finally:
        jax.config.update("jax_compilation_cache_dir", own)
