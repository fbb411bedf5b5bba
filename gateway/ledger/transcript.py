"""A session's messages as people read them, and as they can be read back: Markdown and JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from protocols.control import TranscriptMessage

FOLD_CHARS = 4_000
"""Characters of a tool's arguments or result in Markdown."""


def message_lines(message: TranscriptMessage, limit: int) -> list[str]:
    """A message in plain text, each block cut at `limit` characters; tool calls and results on a line each."""
    at = time.strftime("%Y-%m-%d %H:%M", time.gmtime(message.at))
    lines = [f"{message.role} ({at} UTC, {message.run_id}):"]
    for block in message.content:
        kind = block.get("type")
        if kind == "text":
            lines.append(_cut(str(block.get("text", "")), limit))
        elif kind == "image":
            lines.append(f"[image {block.get('path')}]")
        elif kind == "tool_call":
            lines.append(f"[calls {block.get('name')} {_cut(_compact(block.get('arguments')), 300)}]")
        elif kind == "tool_result":
            mark = "failed" if block.get("is_error") else "result"
            lines.append(f"[{mark} of {block.get('name')}: {_cut(str(block.get('content', '')), 300)}]")
    return lines


def markdown_head(key: str, agent: str) -> str:
    """How a session begins as a Markdown document."""
    return f"# Session `{key}` of {agent}\n\nTimes are UTC. Tool calls are folded.\n"


def as_markdown(agent: str, messages: Iterable[TranscriptMessage], run: str = "") -> Iterator[str]:
    """Messages as Markdown, a piece at a time; `run`: the one that the message before them was of."""
    for message in messages:
        if message.run_id != run:
            run = message.run_id
            yield f"\n## {run}\n"
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(message.at))
        blocks = list(message.content)
        if any(block.get("type") in ("text", "image") for block in blocks):
            yield f"\n### {agent if message.role == 'assistant' else 'given'}, {at}\n\n"
        for block in blocks:
            yield _block(block)


def _block(block: dict[str, Any]) -> str:
    kind = block.get("type")
    if kind == "text":
        return f"{block.get('text', '')}\n"
    if kind == "image":
        return f"\n[image `{block.get('path')}`]\n"
    if kind == "tool_call":
        return _folded(f"calls {block.get('name')}", json.dumps(block.get("arguments"), ensure_ascii=False, indent=2))
    if kind == "tool_result":
        word = "failed" if block.get("is_error") else "result of"
        return _folded(f"{word} {block.get('name')}", str(block.get("content", "")))
    return ""


def _folded(title: str, text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"\n<details><summary>{title}</summary>\n\n{fence}\n{_cut(text, FOLD_CHARS)}\n{fence}\n\n</details>\n"


def as_jsonl(messages: Iterable[TranscriptMessage]) -> Iterator[str]:
    """One message a line, whole."""
    for message in messages:
        yield msgspec.json.encode(message).decode() + "\n"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} characters more)"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
