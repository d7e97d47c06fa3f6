"""`builtin`: some megabytes of real text that come with every CPython.

Sources of the standard library (without test suites and generated tables) and the
topics of the language reference.
"""

import io
import os
import sysconfig
from collections.abc import Iterator

from uets_jax.data.faults import BadDocument, usable
from uets_jax.data.files import sections

LEFT_OUT = {
    *("__pycache__", "site-packages", "dist-packages", "lib-dynload"),
    *("test", "tests", "idle_test"),
    *("encodings", "pydoc_data", "entities.py", "sitecustomize.py"),
}


def read_builtin() -> Iterator[str]:
    """Sections of the sources in the order of their paths, then the topics."""
    for path in _sources(sysconfig.get_path("stdlib")):
        with open(path, "rb") as stream:
            yield from _usable_sections(stream.read())
    for text in _topics():
        yield from _usable_sections(text.encode())


def _sources(root: str) -> list[str]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        found += [
            os.path.join(folder, name)
            for name in names
            if name.endswith(".py")
            and name not in LEFT_OUT
            and not name.startswith("_sysconfigdata")
        ]
    return sorted(found)


def _topics() -> list[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # a stripped installation
        return []
    return [topics[name] for name in sorted(topics)]


def _usable_sections(raw: bytes) -> Iterator[str]:
    """An empty `__init__.py` or one file in Latin-1 is nobody's mistake."""
    for section in sections(io.BytesIO(raw)):
        try:
            yield usable(section)
        except BadDocument:
            continue
