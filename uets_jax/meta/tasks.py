"""The default distribution of tasks: what theta is learned on, and what chooses it."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from uets_jax.meta.family import Family, Tasks
from uets_jax.meta.task_gpt import gpt
from uets_jax.meta.task_quadratic import quadratic
from uets_jax.meta.task_text import echo, markov, texts, words
from uets_jax.meta.task_vision import conv, digits, has_digits, mlp, shapes, vision

EACH = 12  # instances of a family that are listed


def default_tasks(
    named: Mapping[str, np.ndarray] | None = None,
    vocab: int = 0,
    coded: Mapping[str, np.ndarray] | None = None,
    coded_vocab: int = 0,
) -> Tasks:
    """Families to learn on and, disjoint from them, families that choose.

    Args:
      named: token ids [n] of texts by name. The last one is kept for validation; with
        fewer than two, languages that are made up stand in.
      vocab: above all ids of all texts; 0: as the texts need.
      coded: the same in a larger vocabulary, so that embedding and head weigh as much
        as they do in real models; its last one is kept for validation, too.
      coded_vocab: above all ids of `coded`; 0: as they need.

    Learned on: quadratics (matrix, vector), MLPs and a small convolution on digits
    (shapes where scikit-learn isn't installed), transformers of depth 1 and 2 on
    languages and on all texts but the last, with batches of 128 to 4,096 tokens.
    Validation: a deeper MLP on shapes and transformers of depth 1 to 3 on the last
    text, with batches of 512 to 4,096 tokens.

    Raises:
      UserError: for texts that can't be used; see `task_text.texts`.
    """
    own, spare, vocab = _parts(named or {}, vocab)
    large, large_spare, large_vocab = _parts(coded or {}, coded_vocab)
    images = digits() if has_digits() else shapes()
    train = (
        quadratic(8, 16),
        quadratic(32, 1),
        vision(images, mlp((32,), "relu")),
        vision(images, mlp((24,), "tanh")),
        vision(images, conv((8, 16), "gelu")),
        gpt(markov(), 16, 1, 16),
        gpt(echo(), 16, 2, 16),
        gpt(words(), 24, 2, 32),
        *([gpt(texts(own, vocab), 16, 1, 32, 32)] if own else []),
        *([gpt(texts(own, vocab), 16, 1, 64, 64, 100)] if own else []),
        *([gpt(texts(large, large_vocab), 16, 1, 32, 32, 100)] if large else []),
    )
    last = texts(spare, vocab) if spare else words(48, 32)
    deep = vision(shapes(), mlp((32, 32, 32), "relu2"), rate=1e-2)
    noisy = gpt(last, 32, 3, 32, 16)
    valid = [deep, noisy, gpt(last, 24, 2, 64, 64, 100)]
    if large_spare:
        valid.append(gpt(texts(large_spare, large_vocab), 24, 1, 32, 64, 100))
    return Tasks(train, tuple(valid))


def listing(tasks: Tasks, each: int = EACH) -> list[str]:
    """Names of `each` instances of every family that is learned on.

    Instances without end come from other keys; these have names, and
    `named_instance` makes them.
    """
    return [f"{family.name}#{n}" for family in tasks.train for n in range(each)]


def named_instance(tasks: Tasks, name: str) -> tuple[Family, Any]:
    """The family and the instance of a name of `listing`."""
    family, _, number = name.rpartition("#")
    found = next(f for f in tasks.train if f.name == family)
    return found, found.instance(jax.random.key(int(number)))


Texts = dict[str, np.ndarray]


def _parts(named: Mapping[str, np.ndarray], vocab: int) -> tuple[Texts, Texts, int]:
    """Texts to learn on, the last one if there are two or more, and the vocabulary."""
    spare = list(named)[-1:] if len(named) > 1 else []
    own = {name: ids for name, ids in named.items() if name not in spare}
    highest = max((int(np.max(ids)) for ids in named.values()), default=-1)
    needed = -(-(highest + 1) // 16) * 16  # the next multiple of 16 above all ids
    return own, {name: named[name] for name in spare}, vocab or needed
