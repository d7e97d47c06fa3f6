"""Files of byte-level BPE tokenizers, checked and brought to one form."""

import functools
import json
from typing import Any

from uets_jax.errors import UserError

EOT = "<|endoftext|>"
SEPARATORS = (EOT, "<|end_of_text|>", "<eos>", "</s>")  # the first one known is it
BYTE_LEVEL = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DEFAULTS = {"single_word": False, "normalized": False, "special": False}
EXACT = {"lstrip": False, "rstrip": False}


@functools.cache
def byte_characters() -> dict[str, int]:
    """The character that GPT-2's vocabulary writes for each byte, and that byte.

    Printable Latin-1 stands for itself; the others take the characters from U+0100 on.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    table = {chr(byte): byte for byte in own}
    return table | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def plain(data: dict[str, Any]) -> dict[str, int]:
    """The vocabulary without the added tokens, which aren't written in byte form."""
    added = {token["content"] for token in data["added_tokens"]}
    return {t: i for t, i in data["model"]["vocab"].items() if t not in added}


def two_files(vocab: str, merges: str, where: str) -> dict[str, Any]:
    """The tokenizer.json of a vocab.json (ids) and a merges.txt (one pair per line).

    Raises:
      UserError: a broken vocab.json.
    """
    try:
        ids = json.loads(vocab)
    except ValueError as error:
        raise UserError(f"{where}/vocab.json: broken JSON ({error})") from None
    if not isinstance(ids, dict):
        raise UserError(f"{where}/vocab.json: not an object of token ids")
    rows = merges.splitlines()
    pairs = [row.split(" ") for row in rows if row and not row.startswith("#version")]
    special = [name for name in SEPARATORS if name in ids]
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": ids[name], "content": name, "special": True} for name in special
        ],
        "pre_tokenizer": {"type": "ByteLevel", **BYTE_LEVEL},
        "decoder": {"type": "ByteLevel", **BYTE_LEVEL},
        "model": {"type": "BPE", "vocab": ids, "merges": pairs},
    }


def canonical(data: Any, where: str) -> tuple[str, int]:
    """JSON text of a lossless byte-level BPE, and the id of its separator.

    Normalizers, prefix spaces, stripping, truncation and padding are removed: text must
    come back as it was.

    Raises:
      UserError: another kind of tokenizer, or one without a separator.
    """
    try:
        kind, known = data["model"].get("type", "BPE"), plain(data)
        added = {token["content"]: int(token["id"]) for token in data["added_tokens"]}
        missing = sum(c not in known for c in byte_characters() if _in_utf8(c))
        odd = [t for t in known if not all(c in byte_characters() for c in t)]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{where}: not a tokenizer.json of a byte-level BPE") from None
    by_bytes = '"ByteLevel"' in json.dumps(data.get("pre_tokenizer"))
    if kind != "BPE" or not by_bytes or missing or odd:
        why = f"it is {kind}, lacks {missing} bytes, has {len(odd)} other tokens"
        raise UserError(
            f"{where}: not a byte-level BPE ({why}); use bpe:VOCAB or bytes"
        )
    eot = next((added[name] for name in SEPARATORS if name in added), None)
    if eot is None:
        raise UserError(f"{where}: has no separator, one of {', '.join(SEPARATORS)}")
    clean = data | dict.fromkeys(("normalizer", "truncation", "padding"))
    clean["added_tokens"] = [DEFAULTS | t | EXACT for t in data["added_tokens"]]
    clean["pre_tokenizer"] = _without_prefix_space(data["pre_tokenizer"])
    spec = json.dumps(clean, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return spec, eot


def _in_utf8(character: str) -> bool:
    """Whether the byte that this character writes occurs in any UTF-8 text."""
    byte = byte_characters()[character]
    return byte < 0xF5 and byte not in (0xC0, 0xC1)


def _without_prefix_space(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_prefix_space(item) for item in value]
    if not isinstance(value, dict):
        return value
    deep = {key: _without_prefix_space(item) for key, item in value.items()}
    return deep | {"add_prefix_space": False} if "add_prefix_space" in deep else deep
