"""Update rules and schedules; `learned` is the meta-learned optimizer."""

from uets_jax.optim.learned import learned

__all__ = ["learned"]
