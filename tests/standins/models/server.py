"""An honest server in the place of the model providers: their paths, their streams, their errors, no wits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web

from tests.standins.models import anthropic_api, gemini_api, openai_api
from tests.standins.models.script import Api, Fault, Reply, Script, Seen

KEY = "standin-key-0123456789"
"""The key that is accepted, by x-api-key or Bearer (Anthropic), Bearer (OpenAI) and x-goog-api-key (Gemini)."""
MODELS = ("claude-opus-4-6", "claude-sonnet-5-5", "claude-haiku-5-5", "gemini-3.8-flash")

Events = Callable[[Reply, str], Iterator[tuple[bytes, bool]]]


class ModelServer:
    """Use as `async with ModelServer(replies...) as server`; `server.seen` holds every request."""

    def __init__(self, *replies: Reply, key: str = KEY) -> None:
        self.script = Script(list(replies))
        self.seen: list[Seen] = []
        self.key = key
        self.accepts: Callable[[str], bool] = lambda given: given == self.key
        """Whether OpenAI's APIs take this key or access token."""
        self.stalled = asyncio.Event()
        """Set when a reply has fallen silent."""
        self._ended = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [seen.body for seen in self.seen]

    async def __aenter__(self) -> ModelServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/v1/messages/count_tokens", self._count_messages)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post(r"/{version:v1|v1beta}/models/{model}:{verb}", self._gemini)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/responses", self._responses)
        app.router.add_get("/__standin/requests", self._requests)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self._ended.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        refused = self._refuse_anthropic(request)
        if refused is not None:
            return refused
        body = await request.json()
        if problem := wrong_messages(body):
            return _anthropic_fault(Fault(status=400, message=problem))
        reply = self._take("anthropic", request, body, body["model"])
        if reply is None:
            return _anthropic_fault(Fault(status=400, message="the stand-in has no scripted answer for this request"))
        if reply.fault is not None and reply.fault.status and reply.fault.breaks is None:
            return _anthropic_fault(reply.fault)
        if not body.get("stream"):
            return web.json_response(anthropic_api.message(reply, body["model"]))
        return await self._stream(request, reply, body["model"], anthropic_api.events, anthropic_api.error_event)

    async def _count_messages(self, request: web.Request) -> web.StreamResponse:
        refused = self._refuse_anthropic(request)
        if refused is not None:
            return refused
        return web.json_response({"input_tokens": len(await request.read()) // 4})

    async def _models(self, request: web.Request) -> web.StreamResponse:
        refused = self._refuse_anthropic(request)
        if refused is not None:
            return refused
        rows = [
            {"type": "model", "id": id, "display_name": id, "created_at": "2026-01-01T00:00:00Z"}
            for id in MODELS
            if id.startswith("claude")
        ]
        return web.json_response(
            {"data": rows, "has_more": False, "first_id": rows[0]["id"], "last_id": rows[-1]["id"]}
        )

    async def _gemini(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("x-goog-api-key") != self.key:
            details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
            return _gemini_fault(Fault(status=400, message="API key not valid.", details=details))
        body = await request.json()
        model, verb = request.match_info["model"], request.match_info["verb"]
        if verb == "countTokens":
            return web.json_response({"totalTokens": len(json.dumps(body)) // 4})
        if problem := wrong_contents(body):
            return _gemini_fault(Fault(status=400, message=problem))
        reply = self._take("gemini", request, body, model)
        if reply is None:
            return _gemini_fault(Fault(status=400, message="the stand-in has no scripted answer for this request"))
        if reply.fault is not None and reply.fault.status and reply.fault.breaks is None:
            return _gemini_fault(reply.fault)
        if verb == "generateContent":
            return web.json_response(gemini_api.response(reply, model))
        if verb != "streamGenerateContent" or request.query.get("alt") != "sse":
            return _gemini_fault(Fault(status=404, message=f"no such method: {verb}"))
        return await self._stream(request, reply, model, gemini_api.events, gemini_api.error_event)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        events, event = openai_api.chat_events, openai_api.chat_error_event
        return await self._openai(request, "chat", openai_api.wrong_chat, events, event)

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        events, event = openai_api.responses_events, openai_api.responses_error_event
        return await self._openai(request, "responses", openai_api.wrong_responses, events, event)

    async def _openai(
        self,
        request: web.Request,
        api: Api,
        wrong: Callable[[dict[str, Any]], str | None],
        events: Events,
        error_event: Callable[[Fault], bytes],
    ) -> web.StreamResponse:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not self.accepts(given):
            told = f"Incorrect API key provided: {given[:4]}****."
            return _openai_fault(Fault(status=401, message=told))
        body = await request.json()
        if problem := wrong(body):
            return _openai_fault(Fault(status=400, message=problem))
        reply = self._take(api, request, body, body["model"])
        if reply is None:
            return _openai_fault(Fault(status=400, message="the stand-in has no scripted answer for this request"))
        if reply.fault is not None and reply.fault.status and reply.fault.breaks is None:
            return _openai_fault(reply.fault)
        return await self._stream(request, reply, body["model"], events, error_event)

    async def _stream(
        self,
        request: web.Request,
        reply: Reply,
        model: str,
        events: Events,
        error_event: Callable[[Fault], bytes],
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "request-id": "req_standin"})
        await response.prepare(request)
        fault = reply.fault
        left = fault.after if fault is not None and fault.breaks else -1
        for _ in range(reply.pings):
            await response.write(b'event: ping\ndata: {"type": "ping"}\n\n')
            await asyncio.sleep(reply.pause)
        for data, is_text in events(reply, model):
            if left == 0 and fault is not None:
                return await self._break(request, response, fault, error_event)
            await response.write(data)
            if is_text:
                left -= 1
                if reply.pause:
                    await asyncio.sleep(reply.pause)
        await response.write_eof()
        return response

    async def _break(
        self,
        request: web.Request,
        response: web.StreamResponse,
        fault: Fault,
        error_event: Callable[[Fault], bytes],
    ) -> web.StreamResponse:
        match fault.breaks:
            case "cut":
                assert request.transport is not None
                request.transport.abort()
            case "stall":
                self.stalled.set()
                await self._ended.wait()  # the handler is cancelled earlier if the client goes
            case "garble":
                await response.write(b'event: content_block_delta\ndata: {"type": "content_blo\n\n')
                await response.write_eof()
            case "event":
                await response.write(error_event(fault))
                await response.write_eof()
            case _:
                await response.write_eof()
        return response

    def _take(self, api: Api, request: web.Request, body: dict[str, Any], model: str) -> Reply | None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(api, request.path, request.query_string, headers, body, model)
        self.seen.append(seen)
        return self.script.take(seen)

    def _refuse_anthropic(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if given != self.key:
            return _anthropic_fault(Fault(status=401, message="invalid x-api-key"))
        if "anthropic-version" not in request.headers:
            return _anthropic_fault(Fault(status=400, message="anthropic-version: header is required"))
        return None

    async def _requests(self, request: web.Request) -> web.Response:
        """Everything seen so far, for a test in another process."""
        rows = [
            {"api": s.api, "path": s.path, "model": s.model, "headers": s.headers, "body": s.body} for s in self.seen
        ]
        return web.json_response(rows)


def wrong_messages(body: dict[str, Any]) -> str | None:
    """What the real API refuses in a request, in its words; None if nothing."""
    messages = body.get("messages")
    if not messages or not isinstance(body.get("max_tokens"), int):
        return "messages: at least one message is required, and max_tokens"
    asked: list[str] = []
    used: set[str] = set()
    for at, message in enumerate(messages):
        if at and messages[at - 1]["role"] == message["role"]:
            return f"messages.{at}: roles must alternate"
        blocks = _content(message)
        if not blocks:
            return f"messages.{at}: content must be non-empty"
        for block in blocks:
            if block["type"] == "text" and not block["text"].strip():
                return f"messages.{at}: text content blocks must contain non-whitespace text"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if sorted(results) != sorted(asked):
            return f"messages.{at}: tool_use ids were found without tool_result blocks immediately after: {asked}"
        if message["role"] == "assistant" and blocks[-1]["type"] in ("thinking", "redacted_thinking"):
            return f"messages.{at}: the final block in an assistant message cannot be `thinking`"
        asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len(set(asked)) < len(asked) or used & set(asked):
            return f"messages.{at}: `tool_use` ids must be unique"
        used |= set(asked)
    if messages[0]["role"] != "user" or messages[-1]["role"] != "user":
        return "messages: the first and the last role must be user; this model does not support prefill"
    if len([1 for block in _all_blocks(body) if "cache_control" in block]) > 4:
        return "a maximum of 4 blocks with cache_control may be provided"
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled" and not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
        return "thinking.budget_tokens: must be at least 1024 and less than max_tokens"
    return None


def _content(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _all_blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    system = body.get("system") or []
    blocks = [block for message in body["messages"] for block in _content(message)]
    return [*(system if isinstance(system, list) else []), *(body.get("tools") or []), *blocks]


def wrong_contents(body: dict[str, Any]) -> str | None:
    """What the real Gemini API refuses; None if nothing."""
    contents = body.get("contents")
    if not contents:
        return "GenerateContentRequest.contents: contents is not specified"
    calls = 0
    for at, content in enumerate(contents):
        if not content.get("parts"):
            return f"GenerateContentRequest.contents[{at}].parts: must include at least one parts field"
        results = len([1 for part in content["parts"] if "functionResponse" in part])
        if results != calls:
            return (
                "the number of function response parts must equal that of function call parts of the function call turn"
            )
        calls = len([1 for part in content["parts"] if "functionCall" in part])
    if contents[-1]["role"] != "user":
        return "the last role must be user"
    return None


def _anthropic_fault(fault: Fault) -> web.Response:
    headers = {"request-id": "req_standin"} | ({"retry-after": fault.retry_after} if fault.retry_after else {})
    return web.json_response(anthropic_api.error(fault), status=fault.status, headers=headers)


def _openai_fault(fault: Fault) -> web.Response:
    headers = {"x-request-id": "req_standin"} | ({"retry-after": fault.retry_after} if fault.retry_after else {})
    return web.json_response(openai_api.error(fault), status=fault.status, headers=headers)


def _gemini_fault(fault: Fault) -> web.Response:
    headers = {"retry-after": fault.retry_after} if fault.retry_after else {}
    return web.json_response(gemini_api.error(fault), status=fault.status, headers=headers)
