"""The errors every room shares: each says what was expected, what came, and what to do."""

from __future__ import annotations


class AtomizerError(Exception):
    """Root of the tree. `str(error)` is one plain line fit for a person."""


class ProtocolError(AtomizerError):
    """A request that was refused.

    `status` is the HTTP status, `code` a stable snake_case word for scripts, `message` a sentence for people.
    """

    def __init__(self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


class DecodeError(AtomizerError):
    """Input that does not fit its type: names the field, what was expected, and where it came from.

    `source` is a file (`/x/cluster.toml`) or a request (`POST /hooks/agent`); `line` is 1-based, or None.
    """

    def __init__(self, source: str, problem: str, *, field: str | None = None, line: int | None = None) -> None:
        where = f"{source}:{line}" if line is not None else source
        super().__init__(f"{where}: {problem}")
        self.source = source
        self.problem = problem
        self.field = field
        self.line = line


class Unreachable(AtomizerError):
    """Nobody answered at the address: refused, timed out, or cut off."""


class StorageFull(AtomizerError):
    """The disk has no room for what was to be written; nothing of it was."""
