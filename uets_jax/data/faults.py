"""Documents that can't be used: why, and what is done about them."""

from typing import Literal

from uets_jax.errors import UserError

OnError = Literal["error", "skip"]


class BadDocument(Exception):
    """Why a document, a line or a whole file can't be used.

    reason: one of a few fixed phrases; skipped documents are counted by it.
    detail: what to say instead of the reason, where there is more to say.
    offset: byte of the document where the trouble starts.
    """

    def __init__(self, reason: str, detail: str = "", offset: int = 0) -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.offset = offset


class Faults:
    """The policy: `error` stops at the first bad document, `skip` counts them."""

    def __init__(self, on_error: OnError) -> None:
        self.on_error = on_error
        self.counts: dict[str, int] = {}

    def report(self, where: str, bad: BadDocument) -> None:
        """Counts `bad`, found at `where` (a file and line, or an example).

        Raises:
          UserError: under the policy `error`.
        """
        if self.on_error == "error":
            raise UserError(
                f"{where}: {bad}; mend it or leave it out with --data.on-error skip"
            ) from bad
        self.counts[bad.reason] = self.counts.get(bad.reason, 0) + 1


def usable(raw: bytes | str) -> str:
    """The text of a document that has some, all of it UTF-8 and without NUL bytes.

    Raises:
      BadDocument: "empty", "not UTF-8", "lone surrogate" or "NUL byte".
    """
    if not raw:
        raise BadDocument("empty")
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        nul = (raw if isinstance(raw, bytes) else raw.encode()).find(b"\0")
    except UnicodeDecodeError as error:
        raise BadDocument("not UTF-8", offset=error.start) from None
    except UnicodeEncodeError:
        raise BadDocument("lone surrogate") from None
    if nul >= 0:
        raise BadDocument("NUL byte", offset=nul)
    return text
