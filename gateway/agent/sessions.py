"""A session's conversation, as a model is given it: from the ledger's rows, mended where a run was cut short."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec

from gateway.models.provider import Block, Message, Text, ToolResult

HISTORY_CHARS = 240_000
"""Characters of a conversation that a model is given; older exchanges are left out, visibly."""

_blocks: msgspec.json.Decoder[list[Block]] = msgspec.json.Decoder(list[Block])
_encode = msgspec.json.Encoder().encode

INTERRUPTED = "interrupted: the process ended while this was under way; whether it took effect is not known"


def encode_blocks(blocks: Iterable[Block]) -> bytes:
    return _encode(list(blocks))


def load_messages(rows: Iterable[tuple[str, str, str]], current_run: str) -> list[Message]:
    """Messages of a session from its rows (role, blocks as JSON, run id), oldest first.

    Tool calls that never got a result (their run failed or was cancelled) get one that says so, except those of
    `current_run`, which its turn completes. Too long a past is cut between exchanges, with a marker.
    """
    messages: list[Message] = []
    owners: list[str] = []
    for role, content, run_id in rows:
        _close_calls(messages, role == "user" and run_id == (owners[-1] if owners else None), content)
        messages.append(Message(role="user" if role == "user" else "assistant", content=_blocks.decode(content)))
        owners.append(run_id)
    if messages and messages[-1].tool_calls and owners[-1] != current_run:
        messages.append(_results_for(messages[-1]))
    return _cut(messages)


def _close_calls(messages: list[Message], same_run: bool, content: str) -> None:
    if messages and messages[-1].tool_calls and not (same_run and '"tool_result"' in content):
        messages.append(_results_for(messages[-1]))


def _results_for(answer: Message) -> Message:
    results: list[Block] = [
        ToolResult(id=c.id, name=c.name, content=INTERRUPTED, is_error=True) for c in answer.tool_calls
    ]
    return Message(role="user", content=results)


def _cut(messages: list[Message]) -> list[Message]:
    """The newest exchanges that fit; a cut falls before a plain user message, so no tool call loses its result."""
    size = 0
    keep_from = 0
    for index in range(len(messages) - 1, -1, -1):
        size += sum(_size(block) for block in messages[index].content)
        starts_exchange = messages[index].role == "user" and isinstance(messages[index].content[0], Text)
        if size > HISTORY_CHARS and index < len(messages) - 1:
            break
        if starts_exchange:
            keep_from = index
    if keep_from == 0:
        return messages
    marker: Block = Text(f"[{keep_from} earlier messages of this conversation are not shown]\n\n")
    first = messages[keep_from]
    return [Message(role=first.role, content=[marker, *first.content]), *messages[keep_from + 1 :]]


def _size(block: Block) -> int:
    if isinstance(block, Text):
        return len(block.text)
    if isinstance(block, ToolResult):
        return len(block.content)
    return len(json.dumps(msgspec.to_builtins(block)))
