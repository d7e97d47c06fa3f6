"""uets_jax: the Ultra-Efficient Training System, language models for less compute.

Importing the package loads nothing else: `uets_jax.optim` and the other rooms are
imported when they are first named. The ways in are `uets_jax.train.loop.train`
(a whole run), `uets_jax.build.build` (a config's functions) and
`uets_jax.step.train_step` (one pure step, for a loop of one's own).
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """A room or module of the package."""
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
