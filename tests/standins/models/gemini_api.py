"""The Gemini API as the stand-in speaks it: chunks, responses and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.standins.models.anthropic_api import pieces
from tests.standins.models.script import Fault, Reply

STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error(fault: Fault) -> dict[str, Any]:
    inner: dict[str, Any] = {
        "code": fault.status or 500,
        "message": fault.message,
        "status": fault.type or STATUS_NAMES.get(fault.status, "UNKNOWN"),
    }
    if fault.details:
        inner["details"] = fault.details
    return {"error": inner}


def response(reply: Reply, model: str) -> dict[str, Any]:
    """The whole response, as of `generateContent`."""
    if reply.blocked:
        return {"promptFeedback": {"blockReason": reply.blocked}} | _tail(reply, model)
    parts = [part for part, _ in _parts(reply, whole=True)]
    return {"candidates": [_candidate(parts, _stop(reply))]} | _tail(reply, model)


def events(reply: Reply, model: str) -> Iterator[tuple[bytes, bool]]:
    """The stream's chunks; True marks those with text, which faults count."""
    if reply.blocked:
        yield _chunk({"promptFeedback": {"blockReason": reply.blocked}} | _tail(reply, model)), False
        return
    for part, is_text in _parts(reply, whole=False):
        yield _chunk({"candidates": [_candidate([part], None)]} | _tail(reply, model)), is_text
    last = [{"text": ""}] if not reply.stop else []
    yield _chunk({"candidates": [_candidate(last, _stop(reply))]} | _tail(reply, model)), False


def error_event(fault: Fault) -> bytes:
    return _chunk(error(fault))


def _chunk(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\r\n\r\n".encode()


def _candidate(parts: list[dict[str, Any]], stop: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0}
    if parts:
        candidate["content"] = {"role": "model", "parts": parts}
    if stop:
        candidate["finishReason"] = stop
    return candidate


def _parts(reply: Reply, *, whole: bool) -> Iterator[tuple[dict[str, Any], bool]]:
    if reply.thinking:
        yield {"text": reply.thinking, "thought": True}, False
    for piece in [reply.text] if whole and reply.text else pieces(reply.text, reply.piece):
        yield {"text": piece}, True
    for call in reply.calls:
        asked: dict[str, Any] = {"name": call.name, "args": call.arguments}
        if call.id:
            asked["id"] = call.id
        yield {"functionCall": asked} | ({"thoughtSignature": call.signature} if call.signature else {}), False


def _tail(reply: Reply, model: str) -> dict[str, Any]:
    tokens = reply.tokens
    usage = {
        "promptTokenCount": tokens.input,
        "candidatesTokenCount": tokens.output,
        "totalTokenCount": tokens.input + tokens.output + tokens.thoughts,
    }
    if tokens.cache_read:
        usage["cachedContentTokenCount"] = tokens.cache_read
    if tokens.thoughts:
        usage["thoughtsTokenCount"] = tokens.thoughts
    return {"usageMetadata": usage, "modelVersion": model, "responseId": "standin"}


def _stop(reply: Reply) -> str:
    return reply.stop or "STOP"
