"""The default tasks: many, distinct, validation apart, made without any data."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta.tasks import default_tasks, listing, named_instance


def text(seed, n=8192, vocab=40):
    return np.random.default_rng(seed).integers(0, vocab, n)


def test_a_hundred_listed_instances_differ_and_validation_is_apart(raw):
    tasks = default_tasks({"a": text(0), "b": text(1), "c": text(2)})
    names = listing(tasks)
    assert len(names) == len(set(names)) >= 100
    seen = set()
    for name in names:
        family, instance = named_instance(tasks, name)
        seen.add((family.name, raw(instance)))
    assert len(seen) == len(names)
    train, valid = ({f.name for f in part} for part in tasks)
    assert not train & valid
    assert not any("c" in n.split("/")[-1].split("+") for n in train)
    assert any(n.endswith("/c") for n in valid)


def test_default_tasks_need_no_data():
    tasks = default_tasks()
    assert len(tasks.train) >= 7
    assert len(tasks.valid) == 3


def test_all_texts_share_one_vocabulary():
    one, two = text(0), text(1) + 60
    names = [
        f.about for f in default_tasks({"a": one, "b": two}).train if "/a" in f.name
    ]
    assert len(names) == 2
    with pytest.raises(UserError, match="vocab of 64"):
        default_tasks({"a": one, "b": two}, 64)


def test_texts_in_a_larger_vocabulary_are_families_of_their_own():
    plain = {"a": text(0), "b": text(1)}
    coded = {"a-bpe": text(2, vocab=300), "b-bpe": text(3, vocab=300)}
    tasks = default_tasks(plain, 48, coded, 304)
    extra = {f.name for f in tasks.train} - {f.name for f in default_tasks(plain).train}
    assert extra == {"gpt-16x1x32/a-bpe"}
    assert [f.name for f in tasks.valid][3:] == ["gpt-24x1x32/b-bpe"]
    params = jax.eval_shape(tasks.valid[3].init, None, jax.random.key(0))
    assert params["embed"]["table"].shape == (304, 24)


def test_the_package_imports_without_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.datasets'] = "
        "None\nfrom uets_jax.meta.tasks import default_tasks\n"
        "from uets_jax.meta.task_vision import digits\n"
        "assert len(default_tasks().train) >= 7\n"
        "try:\n    digits()\nexcept ValueError as e:\n    print(e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "pip install scikit-learn" in done.stdout
