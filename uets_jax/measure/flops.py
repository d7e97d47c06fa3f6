"""Matmul FLOPs in closed form: what a step costs before anything is compiled.

A multiply-add counts as 2. Attention counts the full L x L square, as dense kernels
compute it (and as the MFU convention of Chowdhery et al. 2022 does).
"""

from uets_jax.config import (
    ExperimentConfig,
    ModelConfig,
    expert_rows,
    window_length,
)

_ITERATIONS = 5  # of Newton-Schulz in Muon
Matrices = list[tuple[int, int]]


def attention_matrices(m: ModelConfig) -> Matrices:
    """(inputs, outputs) of every matrix of one attention."""
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    return [(m.width, q), (m.width, kv), (m.width, kv), (q, m.width)]


def mlp_matrices(m: ModelConfig) -> Matrices:
    """(inputs, outputs) of every matrix of one MLP, or of one expert."""
    into = [(m.width, m.hidden)] * (2 if m.activation == "swiglu" else 1)
    return [*into, (m.hidden, m.width)]


def block_matrices(m: ModelConfig) -> Matrices:
    """(inputs, outputs) of every matrix of one block, biases and router left out."""
    return attention_matrices(m) + mlp_matrices(m) * max(m.experts, 1)


def parameters(m: ModelConfig) -> int:
    """Number of parameters of a model."""
    matrices = block_matrices(m)
    norm = m.width * (2 if m.bias else 1)
    block = sum(a * b for a, b in matrices) + 2 * norm + m.width * m.experts
    block += sum(b for _, b in matrices) if m.bias else 0
    block += 2 * m.head_dim if m.qk_norm else 0
    block += 1 if m.value_residual else 0
    tables = m.vocab * m.width * (1 if m.tied else 2)
    tables += m.context * m.width if m.position == "learned" else 0
    tables += m.memory_rows * m.width * (m.memory_order - 1)
    if longer := max(0, m.backoff_order - 2):
        tables += m.vocab**2 + longer * (4 * m.backoff_pairs + 1)
        tables += m.width + longer + 1  # the gate
    return tables + m.depth * block + norm


def forward_pass_flops(m: ModelConfig, length: int, tokens: int) -> int:
    """Of one forward pass over `tokens` tokens in windows of `length`."""
    return m.depth * block_flops(m, length, tokens) + 2 * tokens * m.width * m.vocab


def block_flops(m: ModelConfig, length: int, tokens: int) -> int:
    """Of one block in such a pass.

    Experts compute the rows that they have places for, filled or not.
    """
    rows = m.experts * expert_rows(m, tokens) if m.experts else tokens
    size = lambda matrices: sum(a * b for a, b in matrices)
    block = tokens * (size(attention_matrices(m)) + m.width * m.experts)
    block += rows * size(mlp_matrices(m))
    attention = 2 * tokens * length * m.heads * m.head_dim
    return 2 * (block + attention)


def train_pass_flops(m: ModelConfig, length: int, tokens: int) -> int:
    """Of one forward and backward pass over `tokens` tokens.

    Frozen blocks have no backward pass, which costs two forward ones. `remat` adds one
    more pass of the others, less their last matrix: nothing in the backward pass needs
    its output. (With experts the router's gradient does.)
    """
    forward, block = (f(m, length, tokens) for f in (forward_pass_flops, block_flops))
    both = 3 * forward - 2 * m.frozen * block
    if not m.remat:
        return both
    last = 0 if m.experts else 2 * tokens * m.width * m.hidden
    return both + (m.depth - m.frozen) * (block - last)


def forward_flops(m: ModelConfig, length: int) -> int:
    """Of one forward pass, per token, in windows of `length` tokens.

    With experts the mean over one window, rounded up.
    """
    return -(-forward_pass_flops(m, length, length) // length)


def train_flops(m: ModelConfig, length: int) -> int:
    """Of forward and backward, per token, as `forward_flops` counts them."""
    return -(-train_pass_flops(m, length, length) // length)


def optimizer_flops(config: ExperimentConfig) -> int:
    """Newton-Schulz of one update with Muon, NorMuon and a learned rule, else none: the
    gate, and SOAP's matmuls, are counted in the traced step alone.
    """
    if config.optim.name not in ("muon", "normuon", "learned"):
        return 0
    total = 0
    for a, b in block_matrices(config.model):
        n, k = min(a, b), max(a, b)
        total += _ITERATIONS * (4 * n * n * k + 2 * n**3)
    return config.model.depth * total


def step_flops(config: ExperimentConfig) -> dict[str, int]:
    """Of one training step, by category."""
    length = window_length(config)
    parts = config.train.microbatches
    tokens = config.train.batch * length // parts
    return {
        "forward_backward": parts * train_pass_flops(config.model, length, tokens),
        "optimizer": optimizer_flops(config),
    }
