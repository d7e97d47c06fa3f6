"""`python -m uets_jax` is `uets`."""

import sys

from uets_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
