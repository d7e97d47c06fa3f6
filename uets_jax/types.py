"""Traced values: NamedTuples of arrays, nothing else."""

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int, Key, PyTree

Params = PyTree[Float[Array, "..."]]
Metrics = dict[str, Array]

IGNORED = -1  # a target that is not predicted: padding


class Batch(NamedTuple):
    """A pool of candidates [C, L] or a batch that is trained on [B, L].

    tokens:   input token ids.
    targets:  the token that follows each input token; `IGNORED` carries no loss.
    ids:      one stable id per row: the number of its window in the split.
    segments: document number inside the row, counted from 0, rising at boundaries.
    """

    tokens: Int[Array, "n l"]
    targets: Int[Array, "n l"]
    ids: Int[Array, " n"]
    segments: Int[Array, "n l"]


class Stats(NamedTuple):
    """By-products of one forward pass that every later part may read.

    features: what the output head reads, [B, L, D].
    logsumexp: log of the partition function in nats, [B, L].
    entropy:   of the predictive distribution in nats, [B, L].
    collision: sum of squared probabilities, [B, L]; with the probability of the
               target it gives EL2N = sqrt(collision - 2 p_target + 1).

    Of a mixture of experts, else None:

    penalty: what is added to the loss in training, to balance the experts.
    load:    share of a layer's assignments that each expert was sent, [layers, E].
    dropped: share of all assignments that found their expert full.
    """

    features: Float[Array, "b l d"]
    logsumexp: Float[Array, "b l"]
    entropy: Float[Array, "b l"]
    collision: Float[Array, "b l"]
    penalty: Float[Array, ""] | None = None
    load: Float[Array, "layers e"] | None = None
    dropped: Float[Array, ""] | None = None


class Gates(NamedTuple):
    """Factors on the units of each layer; n is 1, or B: a factor per row.

    heads:  on each head's output.
    hidden: on each hidden unit of the MLP, before its last matrix.

    Ones change nothing. The biases of the last matrices get the mean factor, so that
    zeros take a layer's attention or MLP away.
    """

    heads: Float[Array, "layers n h"]
    hidden: Float[Array, "layers n f"]


class Taps(NamedTuple):
    """What can be read inside the blocks, layer by layer.

    inputs:  the residual stream before each block.
    outputs: and after it.
    queries: after norm and rotation, as attention uses them.
    keys:    likewise.
    hidden:  what the MLP's last matrix reads; with experts, the sum over those of a
             token, weighted as the router weighs them.
    """

    inputs: Float[Array, "layers b l d"]
    outputs: Float[Array, "layers b l d"]
    queries: Float[Array, "layers b l h k"]
    keys: Float[Array, "layers b l g k"]
    hidden: Float[Array, "layers b l f"]


class Hypers(NamedTuple):
    """Hyper-parameters that are traced: a grid over them shares one executable."""

    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    warmup: Float[Array, ""]  # steps
    steps: Float[Array, ""]  # horizon of the schedule


class Moment(NamedTuple):
    """What a step shows to its parts.

    params:   before the update.
    assets:   arrays that come from data or from training elsewhere, the same in every
              step of a run.
    progress: share of the run's steps that are done, in [0, 1].
    key:      of this step, for this part alone.
    """

    params: Params
    assets: Any
    progress: Float[Array, ""]
    key: Key[Array, ""]


class TrainState(NamedTuple):
    """Everything a step reads and writes; saved and restored as one pytree."""

    step: Int[Array, ""]
    key: Key[Array, ""]
    params: Params
    opt: Any
    hypers: Hypers
    parts: dict[str, Any]  # one sub-state per filled slot, keyed by the slot's name
