"""Anthropic's Messages API: a neutral request as its parameters, its message as a neutral answer. No SDK needed."""

from __future__ import annotations

import re
from typing import Any

from gateway.models.catalogue import KnownModel
from gateway.models.conversation import CONTEXT, native_of, tidy, where_context_stands
from gateway.models.provider import Answer, Block, Image, Message, Native, Request, Stop, Text, ToolCall, ToolResult
from protocols.hooks import Thinking
from protocols.runs import Usage

NAME = "anthropic"

_CACHED = {"type": "ephemeral"}
"""Kept five minutes; at most four blocks of a request may be marked, and none of thinking."""
_STOPS: dict[str, Stop] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "tool_use": "tool_use",
    "max_tokens": "max_tokens",
    "refusal": "refusal",
    "pause_turn": "pause",
    "model_context_window_exceeded": "overflow",
}
_BUDGETS: dict[Thinking, int] = {"low": 2048, "medium": 8192, "high": 16384}
_LEAST_BUDGET = 1024
_THOUGHTS = ("thinking", "redacted_thinking")
"""A message of nothing but these is refused when sent back."""


def to_params(request: Request, known: KnownModel | None) -> dict[str, Any]:
    """The arguments of `messages.stream`."""
    params: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_output_tokens,
        "messages": _messages(request.messages, request.volatile.strip()),
    }
    if request.stable.strip():
        params["system"] = [{"type": "text", "text": request.stable, "cache_control": _CACHED}]
    if request.tools:
        tools: list[dict[str, Any]] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
            for tool in request.tools
        ]
        tools[-1]["cache_control"] = _CACHED
        params["tools"] = tools
    params.update(_thinking(request, known))
    return params


def _thinking(request: Request, known: KnownModel | None) -> dict[str, Any]:
    """Adaptive thinking with an effort; a budget of tokens for the models that know nothing newer."""
    if request.thinking == "off" or (known is not None and known.thinking == "none"):
        return {}
    if known is not None and known.thinking == "budget":
        budget = min(_BUDGETS[request.thinking], request.max_output_tokens - _LEAST_BUDGET)
        return {"thinking": {"type": "enabled", "budget_tokens": budget}} if budget >= _LEAST_BUDGET else {}
    return {"thinking": {"type": "adaptive"}, "output_config": {"effort": request.thinking}}


def _messages(messages: list[Message], volatile: str) -> list[dict[str, Any]]:
    """The turns, with what changes from run to run behind the words that began this run.

    In the system prompt it would change the prefix of everything, and no conversation would ever be read from a cache.
    Two marks: all up to the newest words or results, which the next step repeats; and up to the words before these,
    where the last run's first request was marked, for a cache is looked for at most twenty blocks before a mark.
    """
    tidied = tidy(messages, NAME)
    turns: list[dict[str, Any]] = [
        {"role": turn[0].role, "content": [block for message in turn for block in _blocks(message)]} for turn in tidied
    ]
    said, before = where_context_stands(tidied)
    for at in {len(turns) - 1, before}:
        if at is not None:
            turns[at]["content"][-1]["cache_control"] = _CACHED
    if volatile:
        turns[said]["content"].append({"type": "text", "text": CONTEXT.format(volatile)})
    return turns


def _blocks(message: Message) -> list[dict[str, Any]]:
    native = native_of(message, NAME)
    if native is not None:
        return list(native.data["content"])
    blocks: list[dict[str, Any]] = []
    for block in message.content:
        match block:
            case Text(text=text):
                blocks.append({"type": "text", "text": text})
            case Image(media_type=media_type, data=data):
                source = {"type": "base64", "media_type": media_type, "data": data}
                blocks.append({"type": "image", "source": source})
            case ToolCall(id=id, name=name, arguments=arguments):
                blocks.append({"type": "tool_use", "id": _id(id), "name": name, "input": arguments})
            case ToolResult(id=id, content=content, is_error=is_error):
                result: dict[str, Any] = {
                    "type": "tool_result",
                    "tool_use_id": _id(id),
                    "content": content or "(nothing)",
                }
                blocks.append(result | ({"is_error": True} if is_error else {}))
            case Native():
                pass
    return blocks


def _id(id: str) -> str:
    """A call's id as Anthropic takes it, whoever made it."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", id) or "call"


def to_answer(message: dict[str, Any], model: str) -> Answer:
    """The finished message, as the SDK's `to_dict` gives it; `model` as `provider/model`."""
    stop = _STOPS.get(message.get("stop_reason") or "", "end")
    content: list[dict[str, Any]] = list(message["content"])
    if stop not in ("tool_use", "end") and content and content[-1]["type"] == "tool_use":
        content.pop()  # cut off while its arguments were being written: nobody may run it
    blocks: list[Block] = []
    for block in content:
        if block["type"] == "text" and block["text"]:
            blocks.append(Text(block["text"]))
        elif block["type"] == "tool_use":
            arguments = block["input"] if isinstance(block["input"], dict) else {}
            blocks.append(ToolCall(id=block["id"], name=block["name"], arguments=arguments))
    if stop == "refusal" and not blocks:
        blocks.append(Text(_refusal(message.get("stop_details") or {})))
    sendable = [block for block in content if not (block["type"] == "text" and not block["text"].strip())]
    if any(block["type"] not in _THOUGHTS for block in sendable):
        blocks.append(Native(provider=NAME, data={"role": "assistant", "content": sendable}))
    return Answer(message=Message("assistant", blocks), usage=usage_of(message["usage"]), stop=stop, model=model)


def _refusal(details: dict[str, Any]) -> str:
    category = details.get("category")
    told = f" ({category})" if category else ""
    return f"[declined by {NAME}{told}] {details.get('explanation') or ''}".rstrip()


def usage_of(usage: dict[str, Any]) -> Usage:
    """Anthropic counts cached input apart; here `input_tokens` counts everything."""
    read = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    return Usage(
        input_tokens=(usage.get("input_tokens") or 0) + read + written,
        output_tokens=usage.get("output_tokens") or 0,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
