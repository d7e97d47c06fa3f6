"""What a run's selection reads, made from its text once."""

import chex
import jax
import numpy as np
import pytest

from uets_jax.aql.assets import Assets
from uets_jax.aql.reference import Snapshot
from uets_jax.config import replace_from_dict, window_length
from uets_jax.curriculum import difficulty
from uets_jax.data.store import prepare
from uets_jax.data.windows import cut, window_count
from uets_jax.errors import UserError
from uets_jax.train import assets
from uets_jax.train.assets import (
    asset_costs,
    asset_shapes,
    build_assets,
    inputs_sha256,
    read_reference,
    read_sample,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts in which each word may be followed by three others; and a sample."""
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    after = rng.integers(0, 70, (70, 3))
    for number in range(40):
        word, text = int(rng.integers(70)), []
        for _ in range(120):
            text.append(f"{'bcdfghklmnprst'[word % 14]}{'aeiou'[word // 14]}n")
            word = int(after[word, rng.integers(3)])
        name = f"{number:02d}.txt" if number > 1 else f"sample_{number}.md"
        (folder / name).write_text(" ".join(text))
    return folder


@pytest.fixture(scope="module")
def plain(tiny, folder):
    data = {"source": f"files:{folder}/*.txt", "tokenizer": "bpe:320"}
    return replace_from_dict(tiny, {"data": data, "model": {"vocab": 320}})


@pytest.fixture(scope="module")
def store(plain):
    return prepare(plain.data)


@pytest.fixture(scope="module")
def aql(plain):
    return replace_from_dict(plain, {"select": {"method": "aql", "run": 4}})


@pytest.fixture(scope="module")
def target(aql, folder):
    own = {"mode": "target", "target": f"files:{folder}/sample_*.md"}
    return replace_from_dict(aql, {"select": own})


def with_difficulty(config, name: str):
    return replace_from_dict(config, {"curriculum": {"difficulty": name}})


def test_where_nothing_is_chosen_there_is_nothing(plain, store):
    assert build_assets(plain, store) is None
    assert asset_shapes(plain) is None
    assert asset_costs(plain, store) == {}
    assert inputs_sha256(plain) == ""


def test_the_text_is_judged_once_per_text_sample_and_shape(target, aql, store, folder):
    first = build_assets(target, store).text
    assert build_assets(target, store).text is first
    other = {"select": {"knobs": {"novelty": 2.0}, "buffer": 99}}
    changed = build_assets(replace_from_dict(target, other), store)
    assert changed.text is first
    assert float(changed.knobs.novelty) == 2.0
    blind = build_assets(aql, store).text
    assert blind.lexical is blind.likeness is None
    chex.assert_trees_all_equal(blind.blind, first.blind)
    sample = folder / "sample_1.md"
    before = sample.read_text()
    sample.write_text("ban ban ban")
    assert build_assets(target, store).text is not first
    sample.write_text(before)
    assert build_assets(target, store).text is first


def test_words_begin_with_white_space(aql, store):
    counts = build_assets(aql, store).text.blind
    pieces = store.tokenizer.bytes_of
    begins = [i for i, raw in enumerate(pieces) if raw[:1].isspace()]
    assert np.flatnonzero(counts.starts).tolist() == begins
    assert int(counts.contexts.sum()) > 1000


@pytest.mark.parametrize("kind", ["blind", "target", "rarity", "rho"])
def test_shapes_are_told_without_the_text(kind, plain, aql, target, store, tmp_path):
    windows = window_count(len(store.tokens("train")), window_length(plain))
    np.save(tmp_path / "r.npy", np.zeros(windows))
    reference = {"method": "rho", "reference": str(tmp_path / "r.npy")}
    config = {
        "blind": aql,
        "target": with_difficulty(target, "compression"),
        "rarity": with_difficulty(plain, "rarity"),
        "rho": replace_from_dict(plain, {"select": reference}),
    }[kind]
    refers = replace_from_dict(config, {"select": {"reference": "snapshot"}})
    if kind == "rho":  # a model takes the table's place, once there is one
        assert build_assets(refers, store).reference is None
        model = Snapshot({}, abs)
        assert asset_shapes(refers, snapshot=model).reference is model
        assert inputs_sha256(refers) == ""
    real, told = build_assets(config, store), asset_shapes(config, windows)
    assert isinstance(real, Assets)
    chex.assert_trees_all_equal_structs(told, real)
    chex.assert_trees_all_equal_shapes_and_dtypes(told, real)


@pytest.mark.parametrize("name", ["rarity", "surprisal", "compression", "length"])
def test_difficulty_is_a_quantile_of_every_window(name, plain, store):
    found = build_assets(with_difficulty(plain, name), store).difficulty
    tokens, length = store.tokens("train"), window_length(plain)
    windows = window_count(len(tokens), length)
    assert found.shape == (windows,)
    assert (found.min(), found.max()) >= (0.0, 0.5)
    assert abs(float(found.mean()) - 0.5) < 0.01
    if name == "compression":
        every = cut(tokens, store.tokenizer.eot, length, np.arange(windows))
        ratios = difficulty.compression(every, store.tokenizer.bytes_of)
        np.testing.assert_array_equal(found, difficulty.ranks(ratios))
    again = build_assets(with_difficulty(plain, name), store).difficulty
    assert again is found


@pytest.mark.parametrize("name", ["loss", "entropy"])
def test_a_by_product_needs_no_table(name, plain, store):
    found = build_assets(with_difficulty(plain, name), store)
    assert jax.tree.leaves(found._replace(knobs=None)) == []


def test_progress_goes_by_bins_of_surprisal(plain, store):
    tables = [
        build_assets(with_difficulty(plain, name), store).difficulty
        for name in ("progress", "surprisal")
    ]
    np.testing.assert_array_equal(*tables)


def test_a_sample_that_cannot_be_read_is_named(target, tmp_path):
    change = lambda spec: replace_from_dict(target, {"select": {"target": spec}})
    with pytest.raises(UserError, match=r"select\.target: empty"):
        read_sample(change(""))
    with pytest.raises(UserError, match=rf"select\.target: .*{tmp_path}/\*\.txt"):
        read_sample(change(f"files:{tmp_path}/*.txt"))
    with pytest.raises(UserError, match=r"select\.target: nonsense:x: unknown source"):
        read_sample(change("nonsense:x"))
    assert len(read_sample(target)) == 2


def test_a_reference_that_cannot_be_used_is_named(tmp_path):
    path = tmp_path / "r.npy"
    with pytest.raises(UserError, match=r"select\.reference: .*r\.npy"):
        read_reference(str(path), 5)
    path.write_text("no numbers")
    with pytest.raises(UserError, match=r"select\.reference: .*r\.npy"):
        read_reference(str(path), 5)
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"select\.reference: .*r\.npy"):
        read_reference(str(path), 1)
    np.save(path, np.arange(5.0))
    with pytest.raises(UserError, match=r"\(5,\) losses for 6 windows"):
        read_reference(str(path), 6)
    found = read_reference(str(path), 5)
    assert found.dtype == np.float32
    assert found.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_the_hash_is_of_what_is_read(target, folder, tmp_path):
    first = inputs_sha256(target)
    assert len(first) == 64
    (tmp_path / "sample_0.md").write_text((folder / "sample_0.md").read_text())
    (tmp_path / "sample_1.md").write_text((folder / "sample_1.md").read_text())
    moved = {"select": {"target": f"files:{tmp_path}/sample_*.md"}}
    elsewhere = replace_from_dict(target, moved)
    assert inputs_sha256(elsewhere) == first
    (tmp_path / "sample_1.md").write_text("another")
    assert inputs_sha256(elsewhere) != first
    path = tmp_path / "r.npy"
    rho = replace_from_dict(
        target, {"select": {"method": "rho", "reference": str(path)}}
    )
    with pytest.raises(UserError, match=r"select\.reference: .*r\.npy"):
        inputs_sha256(rho)
    np.save(path, np.zeros(3))
    before = inputs_sha256(rho)
    np.save(path, np.ones(3))
    assert inputs_sha256(rho) != before


def test_costs_are_statistics_and_grow_with_what_is_made(plain, aql, target, store):
    total = lambda config: sum(c.total for c in asset_costs(config, store).values())
    assert set(asset_costs(aql, store)) == {"statistics"}
    assert total(target) > total(aql) > 100 * store.meta["splits"]["train"]["tokens"]
    tokens = store.meta["splits"]["train"]["tokens"]
    assert total(with_difficulty(plain, "rarity")) == assets.PER_TOKEN * tokens
    assert total(with_difficulty(plain, "compression")) == 0
    both = with_difficulty(aql, "surprisal")
    assert total(both) == total(aql) + assets.PER_TOKEN * tokens


def test_only_the_beginning_of_a_long_text_is_counted(aql, store, monkeypatch):
    whole = asset_costs(aql, store)["statistics"].total
    monkeypatch.setattr(assets, "FITTED", store.meta["splits"]["train"]["tokens"] // 4)
    assert asset_costs(aql, store)["statistics"].total < whole
