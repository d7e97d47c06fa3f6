"""Loss, perplexity and bits per byte of a session's text."""

from uets_jax.evaluate.perplexity import bits_per_byte, perplexity, target_bytes
from uets_jax.train.mesh import put_batch
from uets_jax.train.session import Session
from uets_jax.types import Params


def validation(
    session: Session, params: Params, split: str, tokens: int
) -> dict[str, float | int]:
    """`valid_loss`, `perplexity`, `bits_per_byte` and counts on a split.

    Args:
      session: names the text, the program and the mesh.
      params: parameters of the program.
      split: train or valid.
      tokens: at most so many, from the beginning; 0: all.
    """
    put = lambda batch: put_batch(batch, session.mesh, shared=True)
    batches = lambda: session.evaluation(split, tokens)
    found = perplexity(session.program, params, batches(), put)
    size = target_bytes(batches(), session.store.tokenizer.token_bytes)
    return {**found, "bits_per_byte": bits_per_byte(found["valid_nats"], size)}
