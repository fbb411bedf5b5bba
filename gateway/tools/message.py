"""message: text to a person or a channel, outside this conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from gateway.agent.tool import BaseTool, Replay, ToolContext, ToolError, decode_arguments, spec_of
from gateway.channels.channel import MAX_UPLOAD
from gateway.channels.outbox import Outbox
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from gateway.ledger.records import NewEffect
from gateway.tools.roots import Roots
from protocols.targets import Target, TargetError, parse_target

SETTLE_SECONDS = 5.0
"""So long the call waits to say what became of the message; the outbox goes on without it."""
MAX_CHARS = 20_000
MAX_FILES = 10


class MessageArguments(msgspec.Struct, forbid_unknown_fields=True):
    to: Annotated[str, msgspec.Meta(description="A target, for example discord:channel:<id>")]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CHARS, pattern=r"\S", description="What to send")]
    files: Annotated[
        list[str], msgspec.Meta(max_length=MAX_FILES, description="Files of your workspace or shared/ to go with it")
    ] = []


class MessageTool(BaseTool):
    """Writes one effect for its key; the outbox carries it out, once over any number of restarts."""

    spec = spec_of(
        "message",
        "Send text, and files, to a typed target (provider:kind:id, never a bare id). Your answer is delivered without"
        " it; use it only for somebody else, or to hand over files.",
        MessageArguments,
    )
    replay = Replay.KEYED
    subject_field = "to"

    def __init__(
        self, ledger: Ledger, reader: Reader, outbox: Outbox, roots: Roots, redact: Callable[[str], str]
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._outbox = outbox
        self._roots = roots
        self._redact = redact

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: MessageArguments = decode_arguments(MessageArguments, arguments, "message")
        target = _target(asked.to)
        key = f"{context.key}/message"
        payload: dict[str, Any] = {"text": self._redact(asked.text)}
        if asked.files:
            payload["files"] = await asyncio.to_thread(self._names, asked.files)
        effect = NewEffect(key=key, kind="message", payload=payload, target=str(target), state="pending")
        await self._outbox.send(context.run.run_id, effect, SETTLE_SECONDS)
        letter = self._reader.letters.by_key(key)
        if letter is None:
            raise ToolError("the message is no longer known")
        if letter.state in ("dead", "unknown"):
            raise ToolError(
                f"not delivered to {target}: {letter.detail}. It is kept as dead letter {letter.id}; a person can send"
                " it again. Do not repeat it"
            )
        if letter.state == "done":
            return f"delivered to {target}"
        return f"accepted for {target}; it is on its way ({letter.detail or 'not tried yet'})"

    def _names(self, files: list[str]) -> list[str]:
        """Each as it is called in the roots; raises ToolError for one that is not there or too large."""
        total = 0
        for path in files:
            total += self._roots.size(path)
            if total > MAX_UPLOAD:
                raise ToolError(f"these files have more than {MAX_UPLOAD / 1e6:.0f} MB together; send fewer or smaller")
        return [self._roots.name_of(path) for path in files]


def _target(text: str) -> Target:
    try:
        target = parse_target(text)
    except TargetError as error:
        raise ToolError(f"to: {error}") from None
    if target.provider == "agent":
        raise ToolError("to: agents are given work with `delegate`, not messages")
    return target
