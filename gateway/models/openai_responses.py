"""OpenAI's Responses API: a request as its parameters, its events as an answer. No SDK needed.

OpenAI's own models think and call tools over this API only (over the other they refuse), and the accounts that
`atomizer login openai` signs in to speak nothing else. Nothing is stored there: what the model thought comes back
encrypted, and is sent along again.
"""

from __future__ import annotations

import json
from typing import Any

from gateway.models.catalogue import KnownModel
from gateway.models.conversation import native_of, tidy_with_context
from gateway.models.failures import of_openai
from gateway.models.openai_wire import arguments_of, data_url, result_text
from gateway.models.provider import (
    Answer,
    Block,
    ErrorKind,
    Image,
    Message,
    Native,
    ProviderError,
    Request,
    Stop,
    Text,
    ToolCall,
    ToolResult,
)
from protocols.runs import Usage

_INSTRUCTIONS = "You are a helpful assistant."
"""The API of accounts refuses a request without any."""


def native_name(name: str) -> str:
    """Whose Native blocks these are: the other API cannot take them back."""
    return f"{name}:responses"


def to_params(request: Request, known: KnownModel | None, name: str, *, account: bool) -> dict[str, Any]:
    """The body of `POST /responses`. `account`: the API of signed-in accounts, which takes no limit."""
    native = native_name(name)
    params: dict[str, Any] = {
        "model": request.model,
        "instructions": request.stable.strip() or _INSTRUCTIONS,
        "input": [
            item
            for turn in tidy_with_context(request.messages, native, request.volatile)
            for message in turn
            for item in _items(message, native)
        ],
        "stream": True,
        "store": False,
    }
    if not account:
        params["max_output_tokens"] = request.max_output_tokens
    if request.tools:
        params["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": False,
            }
            for tool in request.tools
        ]
    effort = _effort(request, known)
    if effort:
        params["reasoning"] = {"effort": effort}
        params["include"] = ["reasoning.encrypted_content"]
    return params


def _effort(request: Request, known: KnownModel | None) -> str:
    """Empty: not asked for. A model that is not known may not think at all, and would refuse the word."""
    if known is not None and known.thinking == "none":
        return ""
    if request.thinking == "off":
        return known.least_thinking if known is not None else ""
    return request.thinking


def _items(message: Message, native: str) -> list[dict[str, Any]]:
    own = native_of(message, native)
    if own is not None:
        return list(own.data)
    items: list[dict[str, Any]] = []
    kind = "input_text" if message.role == "user" else "output_text"
    for block in message.content:
        match block:
            case Text(text=text):
                items.append({"role": message.role, "content": [{"type": kind, "text": text}]})
            case Image():
                content = [{"type": "input_image", "detail": "auto", "image_url": data_url(block)}]
                items.append({"role": message.role, "content": content})
            case ToolCall(id=id, name=name, arguments=arguments):
                items.append({"type": "function_call", "call_id": id, "name": name, "arguments": json.dumps(arguments)})
            case ToolResult(id=id):
                items.append({"type": "function_call_output", "call_id": id, "output": result_text(block)})
            case Native():
                pass
    return items


class Gathering:
    """Events, as they came, put together."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._items: list[dict[str, Any]] = []
        self._end: dict[str, Any] | None = None
        self.model = ""

    def add(self, event: dict[str, Any]) -> str:
        """The text in this event; raises ProviderError if it is the end of all hope."""
        match event.get("type"):
            case "response.output_text.delta" | "response.refusal.delta":
                return str(event.get("delta") or "")
            case "response.output_item.done":
                self._items.append(event["item"])
            case "response.completed" | "response.incomplete":
                self._end = event["response"]
                self.model = self._end.get("model") or self.model
            case "response.failed":
                self._end = event.get("response") or {}
                raise _failure((event.get("response") or {}).get("error") or {})
            case "error":
                raise _failure(event.get("error") or event)
        return ""

    def used(self) -> Usage | None:
        """What the server has counted; None: it has said nothing of it."""
        counted = (self._end or {}).get("usage")
        return _usage(counted) if counted else None

    def finish(self, model: str) -> Answer:
        """The whole answer of `model`, as `provider/model`; raises ProviderError if it is none."""
        if self._end is None:
            raise ProviderError(ErrorKind.NETWORK, "the stream ended before the answer did")
        items = self._items or list(self._end.get("output") or [])
        stop = self._stop(items)
        if stop in ("max_tokens", "refusal"):
            items = [i for i in items if i["type"] != "function_call" or i.get("status") == "completed"]
        blocks: list[Block] = []
        for item in items:
            if item["type"] == "message":
                said = "".join(part.get("text") or part.get("refusal") or "" for part in item.get("content") or [])
                if said:
                    blocks.append(Text(said))
            elif item["type"] == "function_call":
                arguments = arguments_of(item["name"], item.get("arguments") or "")
                blocks.append(ToolCall(item["call_id"], item["name"], arguments))
        if stop == "refusal" and not blocks:
            blocks.append(Text(f"[declined by {self._name}]"))
        sendable = _sendable(items)
        if any(item["type"] != "reasoning" for item in sendable):
            blocks.append(Native(native_name(self._name), sendable))
        return Answer(Message("assistant", blocks), usage=_usage(self._end.get("usage") or {}), stop=stop, model=model)

    def _stop(self, items: list[dict[str, Any]]) -> Stop:
        assert self._end is not None
        reason = (self._end.get("incomplete_details") or {}).get("reason")
        if reason is not None:
            return "refusal" if reason == "content_filter" else "max_tokens"
        if any(item["type"] == "function_call" for item in items):
            return "tool_use"
        parts = [part for item in items if item["type"] == "message" for part in item.get("content") or []]
        return "refusal" if parts and all(part.get("type") == "refusal" for part in parts) else "end"


def _sendable(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What goes back: without ids, for nothing is stored that they could name, and with thoughts only if they came."""
    return [
        {key: value for key, value in item.items() if key not in ("id", "status") and value is not None}
        for item in items
        if item["type"] in ("message", "function_call") or (item["type"] == "reasoning" and _has_thoughts(item))
    ]


def _has_thoughts(item: dict[str, Any]) -> bool:
    return bool(item.get("encrypted_content"))


def _failure(error: dict[str, Any]) -> ProviderError:
    code, said = error.get("code"), str(error.get("message") or "no message")
    kind = of_openai(200, error.get("type"), code, said)
    return ProviderError(kind, f"{code or 'error'}: {said[:500]}")


def _usage(usage: dict[str, Any]) -> Usage:
    """`input_tokens` counts cached ones too, `output_tokens` those of reasoning."""
    details = usage.get("input_tokens_details") or {}
    return Usage(
        input_tokens=usage.get("input_tokens") or 0,
        output_tokens=usage.get("output_tokens") or 0,
        cache_read_tokens=details.get("cached_tokens") or 0,
        cache_write_tokens=details.get("cache_write_tokens") or 0,
    )
