import jax
import jax.numpy as jnp
import pytest

from uets_jax.models.axes import (
    axes_of,
    hidden_matrix,
    is_matrix,
    layer_axis,
    map_axes,
    names,
    role,
)
from uets_jax.models.presets import model_config
from uets_jax.models.transformer import make_model


@pytest.mark.parametrize("preset", ["modern", "gpt2"])
@pytest.mark.parametrize("activation", ["relu2", "swiglu"])
@pytest.mark.parametrize("experts", [0, 3])
def test_every_parameter_is_in_the_table_and_sizes_fit(
    preset, activation, experts, key
):
    c = model_config(
        preset,
        "tiny",
        vocab=64,
        activation=activation,
        heads=4,
        kv_heads=2,
        experts=experts,
    )
    sizes = {
        "layer": c.depth,
        "expert": c.experts,
        "vocab": c.vocab,
        "width": c.width,
        "hidden": c.hidden,
        "head": c.heads,
        "kv_head": c.kv_heads,
        "dim": c.head_dim,
        "position": c.context,
    }
    shapes = jax.eval_shape(make_model(c).init, key)
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        axes = axes_of(path, leaf.ndim)
        assert "own" not in axes, names(path)
        assert tuple(sizes[a] for a in axes) == leaf.shape, names(path)


def test_matrices_of_blocks_and_what_decays():
    assert hidden_matrix(("layer", "width", "head", "dim")) == ((1,), (2, 3))
    assert hidden_matrix(("layer", "head", "dim", "width")) == ((1, 2), (3,))
    assert hidden_matrix(("layer", "width")) is None  # a stacked norm gain
    assert hidden_matrix(("vocab", "width")) is None  # the embedding
    assert is_matrix(("vocab", "width"))
    assert not is_matrix(("layer", "width"))
    assert not is_matrix(("layer", "head", "dim"))  # a stacked bias
    assert not is_matrix(("layer",))


def test_experts_are_matrices_each_and_the_router_is_a_matrix_of_no_block():
    assert hidden_matrix(("layer", "expert", "width", "hidden")) == ((2,), (3,))
    assert hidden_matrix(("layer", "expert", "hidden", "width")) == ((2,), (3,))
    assert hidden_matrix(("layer", "width", "expert")) is None
    assert is_matrix(("layer", "width", "expert"))
    for bias in ("hidden", "width"):
        assert not is_matrix(("layer", "expert", bias))
        assert hidden_matrix(("layer", "expert", bias)) is None


def test_parameters_of_another_model_are_described_by_rank():
    own = {
        "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "s": jnp.ones(()),
    }
    assert map_axes(is_matrix, own) == {
        "dense": {"kernel": True, "bias": False},
        "s": False,
    }
    assert map_axes(hidden_matrix, own)["dense"]["kernel"] is None


def test_roles_and_layers_are_read_off_the_axes():
    roles = {
        ("vocab", "width"): "embedding",
        ("position", "width"): "embedding",
        ("bucket", "width"): "embedding",
        ("width", "vocab"): "head",
        ("layer", "width", "head", "dim"): "hidden",
        ("layer", "expert", "width", "hidden"): "hidden",
        ("layer", "width", "expert"): "vector",
        ("layer", "width"): "vector",
        ("width",): "vector",
        (): "vector",
    }
    assert {axes: role(axes) for axes in roles} == roles
    assert [layer_axis(a) for a in (("layer", "width"), ("width",), ())] == [0, -1, -1]
