"""Matmul FLOPs in closed form: what a step costs before anything is compiled.

A multiply-add counts as 2. Attention counts the full L x L square, as dense kernels
compute it (and as the MFU convention of Chowdhery et al. 2022 does).
"""

from uets_jax.config import ExperimentConfig, ModelConfig, window_length

_ITERATIONS = 5  # of Newton-Schulz in Muon


def block_matrices(m: ModelConfig) -> list[tuple[int, int]]:
    """(inputs, outputs) of every matrix of one block, biases left out."""
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    into = [(m.width, m.hidden)] * (2 if m.activation == "swiglu" else 1)
    attention = [(m.width, q), (m.width, kv), (m.width, kv), (q, m.width)]
    return [*attention, *into, (m.hidden, m.width)]


def parameters(m: ModelConfig) -> int:
    """Number of parameters of a model."""
    matrices = block_matrices(m)
    norm = m.width * (2 if m.bias else 1)
    block = sum(a * b for a, b in matrices) + 2 * norm
    block += sum(b for _, b in matrices) if m.bias else 0
    block += 2 * m.head_dim if m.qk_norm else 0
    block += 1 if m.value_residual else 0
    tables = m.vocab * m.width * (1 if m.tied else 2)
    tables += m.context * m.width if m.position == "learned" else 0
    tables += m.memory_rows * m.width * (m.memory_order - 1)
    return tables + m.depth * block + norm


def forward_flops(m: ModelConfig, length: int) -> int:
    """Of one forward pass, per token, in windows of `length` tokens."""
    matmul = 2 * m.depth * sum(a * b for a, b in block_matrices(m))
    attention = 4 * m.depth * length * m.heads * m.head_dim
    return matmul + attention + 2 * m.width * m.vocab


def train_flops(m: ModelConfig, length: int) -> int:
    """Of forward and backward, per token.

    `remat` adds one more pass of the blocks, less their last matrix: nothing in the
    backward pass needs its output.
    """
    forward = forward_flops(m, length)
    last = 2 * m.width * (m.vocab + m.depth * m.hidden)
    again = forward - last if m.remat else 0
    return 3 * forward + again


def optimizer_flops(config: ExperimentConfig) -> int:
    """Matmuls of one update: Newton-Schulz with Muon, else none."""
    if config.optim.name != "muon":
        return 0
    total = 0
    for a, b in block_matrices(config.model):
        n, k = min(a, b), max(a, b)
        total += _ITERATIONS * (4 * n * n * k + 2 * n**3)
    return config.model.depth * total


def step_flops(config: ExperimentConfig) -> dict[str, int]:
    """Of one training step, by category."""
    length = window_length(config)
    tokens = config.train.batch * length
    return {
        "forward_backward": tokens * train_flops(config.model, length),
        "optimizer": optimizer_flops(config),
    }
