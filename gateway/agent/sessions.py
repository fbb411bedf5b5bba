"""A session's conversation, as a model is given it: from the ledger's rows, mended where a run was cut short."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal

import msgspec

from gateway.ledger.records import StoredCompaction, StoredMessage
from gateway.models.provider import Block, Image, Message, Native, Text, ToolCall, ToolResult

HISTORY_CHARS = 240_000
"""Characters of a conversation where no window says more; older exchanges are left out, visibly."""

RESULT_CHARS = 2000
"""Characters of a tool's result in a plain-text transcript."""

IMAGE_CHARS = 6400
"""What an image counts for: providers take about 1600 tokens for a large one, and a token is about four characters."""

_blocks: msgspec.json.Decoder[list[Block]] = msgspec.json.Decoder(list[Block])
_encode = msgspec.json.Encoder().encode

INTERRUPTED = "interrupted: the process ended while this was under way; whether it took effect is not known"


def encode_blocks(blocks: Iterable[Block]) -> bytes:
    return _encode(list(blocks))


def decode_blocks(content: str) -> list[Block]:
    """A stored message's blocks."""
    return _blocks.decode(content)


def load_messages(
    rows: Iterable[StoredMessage],
    current_run: str,
    compaction: StoredCompaction | None = None,
    most_chars: int = HISTORY_CHARS,
) -> list[Message]:
    """Messages of a session from its rows, oldest first; what `compaction` stands for is in its summary.

    Tool calls that never got a result (their run failed or was cancelled) get one that says so, except those of
    `current_run`, which its turn completes. A past of more than `most_chars` is cut between exchanges, with a marker.
    """
    messages: list[Message] = []
    owners: list[str] = []
    for row in rows:
        if not messages and row.has_results:
            continue  # its call lies before what was read
        _close_calls(messages, row.role == "user" and row.run_id == (owners[-1] if owners else None), row.content)
        role: Literal["user", "assistant"] = "user" if row.role == "user" else "assistant"
        messages.append(Message(role=role, content=_blocks.decode(row.content)))
        owners.append(row.run_id)
    if messages and messages[-1].tool_calls and owners[-1] != current_run:
        messages.append(_results_for(messages[-1]))
    if compaction is not None:
        content: list[Block] = [Text(compaction_text(compaction))]
        messages.insert(0, Message(role="user", content=content))
    return _cut(messages, most_chars)


def compaction_text(compaction: StoredCompaction) -> str:
    """What stands in a conversation for its summarised part: a visible marker, the summary, the checkpoint."""
    return (
        f"[Earlier messages of this conversation were summarised; they are kept in its transcript.]\n\n"
        f"{compaction.summary}\n\n[Checkpoint, written by code]\n{compaction.checkpoint}"
    )


def transcript_text(messages: Iterable[Message]) -> str:
    """A conversation as plain text, long tool results shortened."""
    lines: list[str] = []
    for message in messages:
        for block in message.content:
            if isinstance(block, Text):
                lines.append(f"{message.role}: {block.text}")
            elif isinstance(block, Image):
                lines.append(f"{message.role}: [image {block.path}]")
            elif isinstance(block, ToolCall):
                lines.append(f"call {block.name}: {json.dumps(block.arguments)[:RESULT_CHARS]}")
            elif isinstance(block, ToolResult):
                text = block.content
                cut = f" [{len(text) - RESULT_CHARS} characters cut]" if len(text) > RESULT_CHARS else ""
                lines.append(f"result of {block.name}: {text[:RESULT_CHARS]}{cut}")
    return "\n\n".join(lines)


def message_chars(message: Message) -> int:
    """A message's size in characters, its provider's own copy not counted."""
    return sum(_size(block) for block in message.content if not isinstance(block, Native))


def _close_calls(messages: list[Message], same_run: bool, content: str) -> None:
    if messages and messages[-1].tool_calls and not (same_run and '"tool_result"' in content):
        messages.append(_results_for(messages[-1]))


def _results_for(answer: Message) -> Message:
    results: list[Block] = [
        ToolResult(id=c.id, name=c.name, content=INTERRUPTED, is_error=True) for c in answer.tool_calls
    ]
    return Message(role="user", content=results)


def _cut(messages: list[Message], most_chars: int) -> list[Message]:
    """The newest exchanges that fit, the last one always.

    A cut falls before a plain user message, so no tool call loses its result.
    """
    size = 0
    keep_from = 0
    for index in range(len(messages) - 1, -1, -1):
        size += message_chars(messages[index])
        starts_exchange = messages[index].role == "user" and isinstance(messages[index].content[0], Text)
        if size > most_chars and keep_from:
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
    if isinstance(block, Image):
        return IMAGE_CHARS
    return len(json.dumps(msgspec.to_builtins(block)))
