"""Anthropic's Messages API as the stand-in speaks it: events, messages and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.standins.models.script import Fault, Reply

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error(fault: Fault) -> dict[str, Any]:
    inner: dict[str, Any] = {
        "type": fault.type or ERROR_TYPES.get(fault.status) or _other(fault.status),
        "message": fault.message,
    }
    if fault.code:
        inner["details"] = {"error_code": fault.code}
    return {"type": "error", "error": inner, "request_id": "req_standin"}


def _other(status: int) -> str:
    return "invalid_request_error" if 400 <= status < 500 else "api_error"


def message(reply: Reply, model: str) -> dict[str, Any]:
    """The whole message, as without `stream`."""
    return _envelope(reply, model) | {
        "content": [whole for whole, _ in _blocks(reply)],
        "stop_reason": _stop(reply),
        "stop_details": {"type": "refusal", "category": "cyber"} if reply.stop == "refusal" else None,
        "usage": _usage(reply, reply.tokens.output),
    }


def events(reply: Reply, model: str) -> Iterator[tuple[bytes, bool]]:
    """The stream's events; True marks the deltas of text, which faults count."""
    yield _event("message_start", message=_envelope(reply, model) | {"usage": _usage(reply, 1)}), False
    yield _event("ping"), False
    for index, (whole, deltas) in enumerate(_blocks(reply)):
        yield _event("content_block_start", index=index, content_block=_emptied(whole)), False
        for delta in deltas:
            yield _event("content_block_delta", index=index, delta=delta), delta["type"] == "text_delta"
        yield _event("content_block_stop", index=index), False
    ending: dict[str, Any] = {"stop_reason": _stop(reply), "stop_sequence": None}
    if reply.stop == "refusal":
        ending["stop_details"] = {"type": "refusal", "category": "cyber", "explanation": None}
    yield _event("message_delta", delta=ending, usage=_usage(reply, reply.tokens.output)), False
    yield _event("message_stop"), False


def error_event(fault: Fault) -> bytes:
    return f"event: error\ndata: {json.dumps(error(fault))}\n\n".encode()


def _event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name} | data)}\n\n".encode()


def _envelope(reply: Reply, model: str) -> dict[str, Any]:
    return {
        "id": "msg_standin",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage(reply: Reply, output: int) -> dict[str, Any]:
    return {
        "input_tokens": reply.tokens.input,
        "cache_creation_input_tokens": reply.tokens.cache_write,
        "cache_read_input_tokens": reply.tokens.cache_read,
        "output_tokens": output,
    }


def _blocks(reply: Reply) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each block whole, and as deltas."""
    found: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if reply.thinking:
        deltas = [{"type": "thinking_delta", "thinking": p} for p in pieces(reply.thinking, reply.piece)]
        signature = "c2lnbmF0dXJlOnN0YW5kaW4="
        found.append(
            (
                {"type": "thinking", "thinking": reply.thinking, "signature": signature},
                [*deltas, {"type": "signature_delta", "signature": signature}],
            )
        )
    if reply.text:
        found.append(
            (
                {"type": "text", "text": reply.text},
                [{"type": "text_delta", "text": p} for p in pieces(reply.text, reply.piece)],
            )
        )
    for call in reply.calls:
        written = json.dumps(call.arguments)
        if reply.stop == "max_tokens":
            written = written[: len(written) // 2]
        found.append(
            (
                {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments},
                [{"type": "input_json_delta", "partial_json": p} for p in ("", *pieces(written, reply.piece))],
            )
        )
    return found


def _emptied(block: dict[str, Any]) -> dict[str, Any]:
    match block["type"]:
        case "text":
            return {"type": "text", "text": ""}
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case _:
            return block | {"input": {}}


def _stop(reply: Reply) -> str:
    return reply.stop or ("tool_use" if reply.calls else "end_turn")


def pieces(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]
