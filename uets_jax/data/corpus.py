"""A source spec becomes documents, in one fixed order and in bounded memory.

builtin                       text that comes with CPython
files:GLOB                    text files; see `uets_jax.data.files`
jsonl:GLOB[:key]              JSON lines; see `uets_jax.data.jsonl`
tfds:NAME[/CONFIG][:SPLIT]    TensorFlow Datasets; see `uets_jax.data.tfds`
hf:REPO[:CONFIG[:SPLIT]]      Hugging Face data sets; see `uets_jax.data.hf`
"""

from collections.abc import Iterator

from uets_jax.data.builtin import read_builtin
from uets_jax.data.faults import Faults, OnError
from uets_jax.data.files import matching, read_files
from uets_jax.data.hf import parse as parse_hf
from uets_jax.data.hf import read_hf
from uets_jax.data.jsonl import parse, read_jsonl
from uets_jax.data.tfds import read_tfds
from uets_jax.errors import UserError, nearest

READERS = {"files": read_files, "jsonl": read_jsonl, "tfds": read_tfds, "hf": read_hf}
LOOK_UP = {"files": matching, "jsonl": parse, "hf": parse_hf}  # what is named


class Reader:
    """Documents of a source; every iteration reads it again from the start."""

    def __init__(self, spec: str, on_error: OnError) -> None:
        self.spec = spec
        self._on_error: OnError = on_error
        self._faults = Faults(on_error)
        _check(spec)

    @property
    def skipped(self) -> dict[str, int]:
        """Documents left out so far by the latest iteration, by reason."""
        return dict(sorted(self._faults.counts.items()))

    def __iter__(self) -> Iterator[str]:
        faults = self._faults = Faults(self._on_error)
        scheme, _, rest = self.spec.partition(":")
        texts = read_builtin() if scheme == "builtin" else READERS[scheme](rest, faults)
        empty = True
        for text in texts:
            empty = False
            yield text
        if empty:
            counts = ", ".join(f"{n} {why}" for why, n in sorted(faults.counts.items()))
            raise UserError(
                f"{self.spec}: no usable document ({counts or 'nothing there'}); "
                "check --data.source and --data.valid-source"
            )


def documents(spec: str, on_error: OnError = "error") -> Reader:
    """The documents of a source spec.

    Raises:
      UserError: an unknown scheme; while iterating: a bad document under the policy
        `error`, a pattern that matches nothing, no usable document at all.
    """
    return Reader(spec, on_error)


def check(spec: str) -> None:
    """Looks whether a source spec names something, and reads nothing.

    Raises:
      UserError: an unknown scheme, a pattern that matches nothing, no such folder.
    """
    _check(spec)
    scheme, _, rest = spec.partition(":")
    if scheme in LOOK_UP:
        LOOK_UP[scheme](rest)


def _check(spec: str) -> None:
    scheme, colon, rest = spec.partition(":")
    if scheme == "tokens":
        raise UserError(f"{spec}: already tokenized; give text as a source here")
    if scheme not in ("builtin", *READERS):
        raise UserError(
            f"{spec}: unknown source {scheme!r}; "
            + nearest(scheme, ["builtin", "tokens", *READERS])
        )
    if scheme == "builtin" and colon:
        raise UserError(f"{spec}: 'builtin' takes nothing after it")
    if scheme != "builtin" and not rest:
        raise UserError(f"{spec}: write {scheme}: and what to read")
