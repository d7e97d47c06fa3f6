import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uets_jax.errors import UserError
from uets_jax.optim.leaves import (
    decayed_of,
    describe,
    following,
    matrices_of,
    overlooked,
)

OWN = {
    "wte": jnp.ones((7, 4)),
    "layers_0": {"dense": {"kernel": jnp.ones((4, 5)), "bias": jnp.ones(5)}},
    "attention": {"query": jnp.ones((4, 2, 3)), "lambda": jnp.ones(())},
    "lm_head": {"kernel": jnp.ones((4, 7)), "bias": jnp.ones(7)},
    "embed_tokens": jnp.ones((7, 4)),
    "frozen": None,
}


def by_name(leaves):
    return {leaf.name: leaf for leaf in leaves}


def test_leaves_of_this_house_are_told_by_their_axes(small, about):
    found = by_name(describe(small, **about))
    kinds = {n: (x.role, x.stacked, x.decays, x.fans) for n, x in found.items()}
    assert kinds == {
        "['embed']['table']": ("embedding", False, True, (6, 4)),
        "['blocks']['attention']['output']['w']": ("hidden", True, True, (6, 4)),
        "['blocks']['mlp']['up']['w']": ("hidden", True, True, (4, 5)),
        "['blocks']['mlp_norm']['scale']": ("vector", True, False, (1, 4)),
        "['head']['w']": ("head", False, True, (4, 6)),
    }


def test_leaves_of_any_tree_are_told_by_their_paths():
    found = by_name(describe(OWN))
    roles = {n: (x.role, x.axes is not None, x.stacked) for n, x in found.items()}
    assert roles == {
        "['wte']": ("embedding", False, False),
        "['embed_tokens']": ("embedding", False, False),
        "['layers_0']['dense']['kernel']": ("hidden", True, False),
        "['layers_0']['dense']['bias']": ("vector", False, False),
        "['attention']['query']": ("vector", False, False),
        "['attention']['lambda']": ("vector", False, False),
        "['lm_head']['kernel']": ("head", False, False),
        "['lm_head']['bias']": ("vector", False, False),
    }
    assert matrices_of(OWN)["layers_0"]["dense"]["kernel"] == ((0,), (1,))
    assert matrices_of(OWN)["frozen"] is None
    assert decayed_of(OWN)["lm_head"] == {"kernel": True, "bias": False}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("token_embedding", "embedding"),
        ("tok_embed", "embedding"),
        ("pos_embedding", "embedding"),
        ("WordEmbeddings_0", "embedding"),
        ("output_head", "head"),
        ("classification_head", "head"),
        ("lm_head", "head"),
        ("MultiHeadAttention_0", "hidden"),
        ("head_mix", "hidden"),
        ("LayerNorm_0", "vector"),
        ("mlp_norm", "vector"),
        ("norm_proj", "hidden"),
        ("readout", "head"),
        ("Dense_3", "hidden"),
    ],
)
def test_a_name_says_what_a_matrix_is(name, role):
    [leaf] = describe({name: {"kernel": jnp.ones((4, 5))}})
    assert leaf.role == role
    assert (leaf.axes is not None) == (role == "hidden")
    assert leaf.decays == (role != "vector")


def test_only_what_is_near_a_leaf_tells_its_role():
    params = {"beta_net": {"embedder": {"dense": {"kernel": jnp.ones((4, 5))}}}}
    [leaf] = describe(params)
    assert (leaf.role, leaf.decays) == ("hidden", True)


def test_stacks_of_vectors_follow_no_matrix_rule_and_stacks_of_matrices_are_named():
    """As `nn.scan` makes them: an axis of layers before everything."""
    stack = {"kernel": jnp.ones((3, 4, 5)), "bias": jnp.ones((3, 5))}
    params = {"layers": {"Dense_0": stack, "LayerNorm_0": {"scale": jnp.ones((3, 4))}}}
    assert not any(leaf.axes for leaf in describe(params))
    found = by_name(describe(params))
    assert not found["['layers']['Dense_0']['bias']"].decays
    assert overlooked(params) == ["['layers']['Dense_0']['kernel']"]
    assert overlooked({"conv_bias": jnp.ones((3, 4, 5))}) == []


def test_own_axes_of_a_kernel_with_a_stack_in_front():
    params = {"query": jnp.ones((3, 4, 2, 5))}
    [leaf] = describe(params, matrices=lambda p: {"query": ((1,), (2, 3))})
    assert (leaf.role, leaf.layers, leaf.size, leaf.fans) == ("hidden", 3, 40, (4, 10))


def test_matrices_come_and_go(draw):
    params = {"w": draw(0, {"w": jnp.ones((3, 2, 4, 5))})["w"]}
    for axes in [((3,), (2,)), ((1, 3), (2,)), ((2,), (1, 3))]:
        [leaf] = describe(params, matrices=lambda p, axes=axes: {"w": axes})
        rows = leaf.rows(params["w"])
        seen = leaf.as_matrices(rows)
        assert seen.shape == (3, 40 // np.prod(leaf.fans), *leaf.fans)
        np.testing.assert_array_equal(leaf.from_matrices(seen), rows)
    np.testing.assert_array_equal(seen[1, 0, 2].reshape(2, 5), params["w"][1, :, 2, :])


def test_what_is_no_matrix_has_a_view_too():
    shapes = [(), (5,), (2, 3), (2, 3, 4)]
    params = [jnp.arange(np.prod(s), dtype=jnp.float32).reshape(s) for s in shapes]
    none = lambda p: [None] * 4
    for leaf, x in zip(describe(params, matrices=none), params, strict=True):
        seen = leaf.as_matrices(leaf.rows(x))
        assert seen.ndim == 4
        np.testing.assert_array_equal(leaf.whole(leaf.from_matrices(seen)), x)


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"roles": lambda p: {"w": "heads"}}, "did you mean 'head'?"),
        ({"matrices": lambda p: {"w": ((0,), (2,))}}, "axes ((0,), (2,)) do not fit"),
        ({"matrices": lambda p: {"w": ((0,), (0,))}}, "do not fit shape (2, 3)"),
        ({"layer_axis": lambda p: {"w": 1}}, "give 0 or -1, not 1"),
        (
            {
                "layer_axis": lambda p: {"w": 0},
                "matrices": lambda p: {"w": ((0,), (1,))},
            },
            "axis 0 counts layers",
        ),
    ],
)
def test_what_does_not_fit_is_named(about, text):
    with pytest.raises(UserError) as error:
        describe({"w": jnp.ones((2, 3))}, **about)
    assert text in str(error.value)
    assert "['w']" in str(error.value)


def test_what_is_masked_is_passed_over(small, about):
    fixed = about["matrices"](small)
    masked = {**small, "head": {"w": optax.MaskedNode()}, "frozen": None}
    tree = lambda p: {**fixed, "frozen": None}
    [up] = [x for x in describe(masked, matrices=tree) if "up" in x.name]
    assert up.axes == ((1,), (2,))
    seen = following(tree)(masked)
    assert isinstance(seen["head"]["w"], optax.MaskedNode)
    assert seen["embed"]["table"] is None


def test_shapes_are_enough():
    assert describe(jax.eval_shape(lambda: OWN)) == describe(OWN)
