"""memory_search and memory_write."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec

from gateway.agent.memory import Memory
from gateway.agent.tool import BaseTool, Replay, ToolContext, ToolError, decode_arguments, spec_of
from gateway.ledger.ledger import Ledger
from runtime.home import explain_os_error


class SearchArguments(msgspec.Struct, forbid_unknown_fields=True):
    query: Annotated[str, msgspec.Meta(min_length=1, max_length=2000, description="What to look for, in plain words")]
    limit: Annotated[int, msgspec.Meta(ge=1, le=20, description="Most passages to return")] = 5


class WriteArguments(msgspec.Struct, forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=4000, description="One fact worth keeping, as one line")]
    pin: Annotated[
        bool, msgspec.Meta(description="Keep it in sight of this conversation, also once it is summarised")
    ] = False


class MemorySearch(BaseTool):
    """Finds passages in the agent's notes and the shared knowledge, each with its `file:line`."""

    spec = spec_of(
        "memory_search",
        "Search your own notes and the shared knowledge. Returns passages with their source as file:line, or none.",
        SearchArguments,
    )
    replay = Replay.SAFE
    parallel = True
    subject_field = "query"

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: SearchArguments = decode_arguments(SearchArguments, arguments, "memory_search")
        found = await asyncio.to_thread(self._memory.search, asked.query, asked.limit)
        passages = [
            {"source": p.citation, "text": p.text, "under": p.heading, "score": p.score} for p in found.passages
        ]
        return msgspec.json.encode({"passages": passages, "unknown": found.unknown}).decode()


class MemoryWrite(BaseTool):
    """Appends one line to today's note, once however often the call is replayed."""

    spec = spec_of("memory_write", "Keep one fact for later: appends a line to today's memory note.", WriteArguments)
    replay = Replay.KEYED

    def __init__(self, memory: Memory, ledger: Ledger) -> None:
        self._memory = memory
        self._ledger = ledger

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: WriteArguments = decode_arguments(WriteArguments, arguments, "memory_write")
        try:
            where = await asyncio.to_thread(self._memory.note, asked.text, context.key)
        except OSError as error:
            raise ToolError(explain_os_error(error, "the note was not written")) from None
        if asked.pin:
            await self._ledger.steps.pin(context.run, " ".join(asked.text.split()))
        return where
