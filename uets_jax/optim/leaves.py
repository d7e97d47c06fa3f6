"""What an update rule needs to know of each parameter: role, matrix axes, layers.

`describe` asks four functions of the parameters for it, as `models.axes` has them for
the models of this house; what isn't given is read off paths and shapes.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from uets_jax.errors import UserError, nearest
from uets_jax.types import Params

ROLES = ("embedding", "hidden", "head", "vector")
# EMBEDDINGS: any word of a name; HEADS and VECTORS: the last one
EMBEDDINGS = ("embed", "embedder", "embedding", "embeddings", "emb", "wte", "wpe")
EMBEDDINGS += ("table", "vocab")
HEADS = ("head", "unembed", "unembedding", "logits", "classifier", "readout")
VECTORS = ("bias", "scale", "gain", "gamma", "beta", "norm", "ln")
VECTORS += ("biases", "scales", "norms")
VECTORS += ("layernorm", "rmsnorm", "batchnorm", "groupnorm")

Axes = tuple[tuple[int, ...], tuple[int, ...]]
Tree = Callable[[Params], Any]  # params -> a tree like them


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One parameter.

    name:    its path, for messages.
    shape:   of the parameter.
    role:    one of `ROLES`.
    axes:    (input axes, output axes) of a hidden matrix, else None.
    stacked: axis 0 counts layers.
    decays:  weight decay applies.
    """

    name: str
    shape: tuple[int, ...]
    role: str
    axes: Axes | None
    stacked: bool
    decays: bool

    @property
    def layers(self) -> int:
        """How many layers it holds."""
        return self.shape[0] if self.stacked else 1

    @property
    def size(self) -> int:
        """Parameters of one layer."""
        return math.prod(self.shape[1:] if self.stacked else self.shape)

    @property
    def fans(self) -> tuple[int, int]:
        """Inputs and outputs; of what is no hidden matrix all axes but the last, and
        the last.
        """
        if self.axes is not None:
            return tuple(math.prod(self.shape[a] for a in axes) for axes in self.axes)
        own = self.shape[1:] if self.stacked else self.shape
        return math.prod(own[:-1]), own[-1] if own else 1

    def rows(self, x: Any) -> Float[Array, "l ..."]:
        """In float32, with a leading axis of layers."""
        x = jnp.asarray(x, jnp.float32)
        return x if self.stacked else x[None]

    def whole(self, rows: Float[Array, "l ..."]) -> Float[Array, "..."]:
        """The inverse of `rows`, of anything that has a row per layer."""
        return rows if self.stacked else rows[0]

    def as_matrices(self, rows: Float[Array, "l ..."]) -> Float[Array, "l b r c"]:
        """Rows as [L, B, inputs, outputs]; B counts other batch axes (experts)."""
        if self.axes is None:
            return rows.reshape(rows.shape[0], 1, *self.fans)
        order, batch = self._order()
        return rows.transpose(order).reshape(rows.shape[0], batch, *self.fans)

    def from_matrices(self, x: Float[Array, "l b r c"]) -> Float[Array, "l ..."]:
        """The inverse of `as_matrices`."""
        own = self.shape if self.stacked else (1, *self.shape)
        if self.axes is None:
            return x.reshape(own)
        order, _ = self._order()
        back = sorted(range(len(order)), key=order.__getitem__)
        return x.reshape([own[a] for a in order]).transpose(back)

    def _order(self) -> tuple[tuple[int, ...], int]:
        """Axes of the rows as layers, batch, inputs, outputs; the size of the batch."""
        assert self.axes is not None
        shift = 0 if self.stacked else 1
        inputs, outputs = (tuple(a + shift for a in axes) for axes in self.axes)
        own = self.shape if self.stacked else (1, *self.shape)
        batch = tuple(sorted({*range(1, len(own))} - {*inputs, *outputs}))
        return (0, *batch, *inputs, *outputs), math.prod(own[a] for a in batch)


def describe(
    params: Any,
    matrices: Tree | None = None,
    decayed: Tree | None = None,
    layer_axis: Tree | None = None,
    roles: Tree | None = None,
) -> list[Leaf]:
    """Every parameter, in the order of `jax.tree.leaves(params)`.

    Args:
      params: arrays or their shapes.
      matrices: (input axes, output axes) of the hidden matrices, else None.
      decayed: True where weight decay applies; None: where there are two axes or more,
        and the path names no bias, scale or norm.
      layer_axis: 0 where axis 0 counts layers, else -1; None: of the hidden matrices
        whose axes leave axis 0 out.
      roles: names from `ROLES`; None: by path. A `hidden` without matrix axes counts as
        a vector.

    Raises:
      UserError: naming the leaf whose axes, layer axis or role can't be.
    """
    found = jax.tree.leaves_with_path(params)
    own = lambda tree, fn: (
        [fn(path, leaf) for path, leaf in found]
        if tree is None
        else [about for leaf, about in _beside(params, tree) if not _is_masked(leaf)]
    )
    axes = own(matrices, _axes)
    named = own(roles, _role)
    decays = own(decayed, lambda path, leaf: _role(path, leaf) != "vector")
    stacked = own(layer_axis, lambda path, leaf: None)
    return [
        _checked(jax.tree_util.keystr(path), tuple(jnp.shape(leaf)), *about)
        for (path, leaf), *about in zip(
            found, named, axes, stacked, decays, strict=True
        )
    ]


def _checked(
    name: str,
    shape: tuple[int, ...],
    role: Any,
    axes: Axes | None,
    layer: int | None,
    decays: Any,
) -> Leaf:
    if role not in ROLES:
        raise UserError(f"roles: {name}: {role!r}: {nearest(str(role), ROLES)}")
    if axes is not None:
        flat = [a for side in axes for a in side]
        if sorted({*flat} & {*range(len(shape))}) != sorted(flat) or not all(axes):
            raise UserError(f"matrices: {name}: axes {axes} do not fit shape {shape}")
    if layer is None:
        flat = () if axes is None else (*axes[0], *axes[1])
        layer = 0 if axes is not None and 0 not in flat else -1
    if layer not in (0, -1) or (layer == 0 and not shape):
        raise UserError(f"layer_axis: {name}: give 0 or -1, not {layer}")
    if layer == 0 and axes is not None and 0 in (*axes[0], *axes[1]):
        raise UserError(
            f"matrices: {name}: axis 0 counts layers, it can't be in {axes}"
        )
    if axes is not None:
        role = "hidden"
    elif role == "hidden":
        role = "vector"
    return Leaf(name, shape, role, axes, layer == 0, bool(decays))


def following(tree: Tree) -> Tree:
    """The same function, masked where the parameters are (by `optax.masked`)."""

    def of(params: Params) -> Any:
        pairs = [p if _is_masked(p) else about for p, about in _beside(params, tree)]
        return jax.tree.structure(params, is_leaf=_is_masked).unflatten(pairs)

    return of


def _beside(params: Params, tree: Tree) -> list[tuple[Any, Any]]:
    """(parameter, what the tree holds for it), with those that are masked."""
    leaves, treedef = jax.tree.flatten(params, is_leaf=_is_masked)
    return [*zip(leaves, treedef.flatten_up_to(tree(params)), strict=True)]


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)


def matrices_of(params: Params) -> Any:
    """The (input axes, output axes) that `describe` reads off paths, as a tree."""
    axes = [leaf.axes for leaf in describe(params)]
    return jax.tree.unflatten(jax.tree.structure(params), axes)


def decayed_of(params: Params) -> Any:
    """True for leaves with two axes or more that are no bias, scale or norm."""
    decays = [leaf.decays for leaf in describe(params)]
    return jax.tree.unflatten(jax.tree.structure(params), decays)


def overlooked(params: Params) -> list[str]:
    """Names of leaves with three axes or more that `describe` can't read off the path.

    A convolution, an attention kernel or a stack of matrices, one for each layer: which
    axes are inputs is known to whoever made them.
    """
    return [
        leaf.name
        for (path, shape), leaf in zip(
            jax.tree.leaves_with_path(params), describe(params), strict=True
        )
        if len(leaf.shape) > 2 and _role(path, shape) == "hidden"
    ]


def _names(path: tuple[Hashable, ...]) -> list[list[str]]:
    """The words of each name on the path: tokenEmbedding_0 is token, embedding."""
    names = (str(getattr(k, "key", getattr(k, "name", k))) for k in path)
    words = (re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name) for name in names)
    return [[word.lower() for word in found] for found in words if found]


def _role(path: tuple[Hashable, ...], leaf: Any) -> str:
    """By the words of the path: 1-D leaves are vectors wherever they are.

    Of a leaf and what holds it: `beta_net/dense/kernel` is a hidden matrix.
    """
    names = _names(path)
    near = names[-2:]
    if jnp.ndim(leaf) < 2 or any(name[-1] in VECTORS for name in near):
        return "vector"
    if any(name[-1] in HEADS for name in names):
        return "head"
    own = any(word in EMBEDDINGS for name in near for word in name)
    return "embedding" if own else "hidden"


def _axes(path: tuple[Hashable, ...], leaf: Any) -> Axes | None:
    """2-D leaves that are neither embedding nor head multiply (inputs, outputs)."""
    hidden = jnp.ndim(leaf) == 2 and _role(path, leaf) == "hidden"
    return ((0,), (1,)) if hidden else None
