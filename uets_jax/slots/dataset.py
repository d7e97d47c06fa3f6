"""The text that the system is given: a source, or a path that stands for one."""

from pathlib import Path

from uets_jax.data.corpus import READERS
from uets_jax.errors import UserError


def source_of(dataset: str | Path) -> str:
    """The source that a path stands for; a source stays itself.

    Raises:
      UserError: for neither of the two.
    """
    text = str(dataset)
    schemes = (*READERS, "builtin", "tokens")
    if isinstance(dataset, str) and text.partition(":")[0] in schemes:
        return text
    path = Path(text).expanduser()
    if path.is_dir():
        whole = (path / "meta.json").is_file()
        return f"tokens:{path}" if whole else f"files:{path}/**"
    if not path.is_file():
        raise UserError(
            f"dataset: {text!r}: no such file or folder, and no source such as builtin "
            "or files:GLOB"
        )
    return f"jsonl:{path}" if ".jsonl" in path.suffixes else f"files:{path}"
