"""What a tool is, for the turn: a schema, a way to replay it after a crash, and one call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from gateway.ledger.records import ClaimedRun
from gateway.models.provider import ToolSpec
from protocols.errors import AtomizerError

MAX_OUTPUT = 60_000
"""Characters of a tool's result that a model is given; the rest is cut, visibly."""


class Replay(StrEnum):
    """What happens to a call that had begun when the process died."""

    SAFE = "safe"
    """It only reads: call it again."""
    KEYED = "keyed"
    """Call it again with the same key: it does its work once for a key."""
    NEVER = "never"
    """It may have had effects: the model is told that it was interrupted."""


class ToolError(AtomizerError):
    """The call could not be carried out; the model reads the message and may try otherwise."""

    def __init__(self, message: str, code: str = "failed") -> None:
        """`code`: a stable snake_case word, for programs that call tools."""
        super().__init__(message)
        self.code = code


class ToolContext:
    """The call's surroundings."""

    __slots__ = ("below", "key", "park", "run")

    def __init__(
        self,
        run: ClaimedRun,
        key: str,
        park: Callable[[str], AbstractAsyncContextManager[None]],
        below: Callable[[Tool, dict[str, Any], int], Awaitable[str]] | None = None,
    ) -> None:
        self.run = run
        self.key = key
        """Unique for this call, and the same when it is replayed."""
        self.park = park
        """`async with park(reason)`: the run is `waiting` and its place free while the block lasts."""
        self.below = below
        """`await below(tool, arguments, number)`: a call that this call makes, as a step of its own, for as long as
        the run lasts. `number` is its own among those of this call. Raises ToolError."""


class Tool(Protocol):
    """One tool. `call` returns the result's text; raises ToolError. It is cancelled with its run: clean up then."""

    spec: ToolSpec
    replay: Replay
    parallel: bool
    """May run beside other such calls of the same answer; the others run alone, in order."""

    def subject(self, arguments: dict[str, Any]) -> str:
        """What a permission pattern is matched against and a person is shown: the command line, the path, the URL.

        Never raises: arguments may be anything.
        """
        ...

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str: ...


class BaseTool:
    """What most tools share: they run alone, and their subject is one argument's text."""

    parallel = False
    subject_field: str | None = None

    def subject(self, arguments: dict[str, Any]) -> str:
        return str(arguments.get(self.subject_field, "")) if self.subject_field else ""


def spec_of(name: str, description: str, arguments: type[msgspec.Struct]) -> ToolSpec:
    """A ToolSpec whose JSON Schema is the Struct `arguments`; its fields' `Meta(description=...)` are kept."""
    schema = msgspec.json.schema(arguments)
    definition = schema["$defs"][arguments.__name__] if "$ref" in schema else schema
    definition = {k: v for k, v in definition.items() if k not in ("title", "description")}
    return ToolSpec(name=name, description=description, parameters=definition)


def decode_arguments(kind: type[Any], arguments: dict[str, Any], name: str) -> Any:
    """The arguments as `kind`; raises ToolError naming the field."""
    from protocols.decoding import decode_json
    from protocols.errors import DecodeError

    try:
        return decode_json(msgspec.json.encode(arguments), kind, f"tool {name}")
    except DecodeError as error:
        raise ToolError(str(error)) from None
