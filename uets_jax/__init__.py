"""uets_jax: the Ultra-Efficient Training System, language models for less compute.

Importing the package loads nothing else. The ways in are `uets_jax.train.loop.train`
(a whole run), `uets_jax.build.build` (a config's functions) and
`uets_jax.step.train_step` (one pure step, for a loop of one's own).
"""

__version__ = "0.1.0"
