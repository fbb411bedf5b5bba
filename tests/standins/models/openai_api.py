"""OpenAI's two APIs as the stand-in speaks them: Chat Completions and Responses, events and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.standins.models.anthropic_api import pieces
from tests.standins.models.script import Call, Fault, Reply

ERROR_TYPES = {401: "invalid_request_error", 403: "invalid_request_error", 429: "requests", 500: "server_error"}
CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


def error(fault: Fault) -> dict[str, Any]:
    return {
        "error": {
            "message": fault.message,
            "type": fault.type or ERROR_TYPES.get(fault.status, "invalid_request_error"),
            "param": None,
            "code": fault.code or CODES.get(fault.status),
        }
    }


def chat_error_event(fault: Fault) -> bytes:
    return _chunk(error(fault))


def chat_events(reply: Reply, model: str) -> Iterator[tuple[bytes, bool]]:
    """The stream's chunks; True marks those with text, which faults count."""

    def choice(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return _chunk(_envelope(model) | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield choice({"role": "assistant", "content": ""}), False
    for piece in pieces(reply.text, reply.piece):
        yield choice({"content": piece}), True
    for index, call in enumerate(reply.calls):
        function = {"name": call.name, "arguments": ""}
        start: dict[str, Any] = {"index": index, "type": "function", "function": function}
        yield choice({"tool_calls": [start | ({"id": call.id} if call.id else {})]}), False
        for piece in pieces(_written(call, reply), reply.piece):
            yield choice({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}), False
    yield choice({}, reply.stop or ("tool_calls" if reply.calls else "stop")), False
    yield _chunk(_envelope(model) | {"choices": [], "usage": _chat_usage(reply)}), False
    yield b"data: [DONE]\n\n", False


def responses_error_event(fault: Fault) -> bytes:
    inner = {"code": fault.code or CODES.get(fault.status, "server_error"), "message": fault.message}
    return _event("response.failed", response={"id": "resp_1", "status": "failed", "error": inner})


def responses_events(reply: Reply, model: str) -> Iterator[tuple[bytes, bool]]:
    """The stream's events; True marks the deltas of text, which faults count."""
    yield _event("response.created", response=_response(model, "in_progress", [], None)), False
    done: list[dict[str, Any]] = []
    for item in _items(reply):
        index = len(done)
        yield _event("response.output_item.added", output_index=index, item=item | {"status": "in_progress"}), False
        if item["type"] == "message":
            for piece in pieces(reply.text, reply.piece):
                place = {"item_id": item["id"], "output_index": index, "content_index": 0, "logprobs": []}
                yield _event("response.output_text.delta", delta=piece, **place), True
        yield _event("response.output_item.done", output_index=index, item=item), False
        done.append(item)
    if reply.stop:
        ended = _response(model, "incomplete", done, reply) | {"incomplete_details": {"reason": reply.stop}}
        yield _event("response.incomplete", response=ended), False
    else:
        yield _event("response.completed", response=_response(model, "completed", done, reply)), False


def _items(reply: Reply) -> Iterator[dict[str, Any]]:
    if reply.thinking:
        yield {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA-" + reply.thinking}
    if reply.text:
        content = [{"type": "output_text", "text": reply.text, "annotations": []}]
        yield {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
    for call in reply.calls:
        yield {
            "type": "function_call",
            "id": f"fc_{call.id}",
            "call_id": call.id,
            "name": call.name,
            "arguments": _written(call, reply),
            "status": "incomplete" if reply.stop else "completed",
        }


def _written(call: Call, reply: Reply) -> str:
    written = json.dumps(call.arguments)
    return written[: len(written) // 2] if reply.stop in ("length", "max_output_tokens") else written


def _response(model: str, status: str, output: list[dict[str, Any]], reply: Reply | None) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "model": model,
        "status": status,
        "output": output,
        "usage": _responses_usage(reply) if reply is not None else None,
    }


def _chat_usage(reply: Reply) -> dict[str, Any]:
    tokens = reply.tokens
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output + tokens.thoughts,
        "total_tokens": tokens.input + tokens.output + tokens.thoughts,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
        "completion_tokens_details": {"reasoning_tokens": tokens.thoughts},
    }


def _responses_usage(reply: Reply) -> dict[str, Any]:
    tokens = reply.tokens
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
        "output_tokens": tokens.output + tokens.thoughts,
        "output_tokens_details": {"reasoning_tokens": tokens.thoughts},
        "total_tokens": tokens.input + tokens.output + tokens.thoughts,
    }


def _envelope(model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-standin", "object": "chat.completion.chunk", "created": 0, "model": model}


def _chunk(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _event(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': 0} | data)}\n\n".encode()


def wrong_chat(body: dict[str, Any]) -> str | None:
    """What the real API refuses in a request, in its words; None if nothing."""
    messages = body.get("messages")
    if not messages:
        return "Missing required parameter: 'messages'."
    asked: list[str] = []
    for at, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in asked:
                return "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
            asked.remove(message["tool_call_id"])
            continue
        if asked:
            return f"An assistant message with 'tool_calls' must be followed by tool messages: {asked}"
        if not message.get("content") and not message.get("tool_calls"):
            return f"Invalid value for 'content': messages.[{at}] is empty"
        asked = [call["id"] for call in message.get("tool_calls") or []]
    if asked:
        return f"An assistant message with 'tool_calls' must be followed by tool messages: {asked}"
    return None


def wrong_responses(body: dict[str, Any]) -> str | None:
    """The same for the Responses API."""
    if not isinstance(body.get("input"), list) or not body["input"]:
        return "Missing required parameter: 'input'."
    if not body.get("stream") or body.get("store") is not False:
        return "the stand-in speaks to clients that stream and store nothing"
    calls: set[str] = set()
    for item in body["input"]:
        if "id" in item:
            return f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false."
        if item.get("type") == "function_call":
            calls.add(item["call_id"])
        elif item.get("type") == "function_call_output":
            if item["call_id"] not in calls:
                return f"No tool call found for function call output with call_id {item['call_id']}."
            calls.discard(item["call_id"])
    return f"No tool output found for function call {min(calls)}." if calls else None
