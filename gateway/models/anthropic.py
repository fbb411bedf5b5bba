"""Claude through the `anthropic` SDK; also any server that speaks `/v1/messages` (Ollama, llama.cpp, LM Studio)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from gateway.models.anthropic_wire import NAME, to_answer, to_params, usage_of
from gateway.models.catalogue import Catalogue
from gateway.models.client import SdkProvider
from gateway.models.failures import of_anthropic, retry_after
from gateway.models.provider import Answer, ErrorKind, Message, ProviderError, Request, Text, TextDelta

BASE_URL = "https://api.anthropic.com"
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 90.0
"""Longest time without a byte; Anthropic pings every few seconds, even while the model thinks."""
EVENT_SECONDS = 600.0
"""Longest time without an event that says something."""


class AnthropicProvider(SdkProvider):
    """One key at one address. Retries nothing: that is the failover's task."""

    sdk = "anthropic"
    transports = ("anthropic", "httpx2", "httpcore2", "h11", "anyio")

    def __init__(
        self,
        key: str,
        *,
        base_url: str | None = None,
        catalogue: Catalogue | None = None,
        silence: float = SILENCE_SECONDS,
        patience: float = EVENT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(NAME, key, base_url, BASE_URL, catalogue, clock)
        self._key = key
        self._silence = silence
        self._patience = patience

    async def stream(self, request: Request) -> AsyncIterator[TextDelta | Answer]:
        """Deltas, then one Answer; raises ProviderError."""
        params = to_params(request, self._catalogue.find(f"{NAME}/{request.model}"))
        reading = False
        counted: dict[str, Any] = {}
        try:
            client = await self._open()
            async with self._within(CONNECT_SECONDS + self._patience), contextlib.AsyncExitStack() as stack:
                events = await stack.enter_async_context(client.messages.stream(**params))
                stack = stack.pop_all()
            reading = True
            async with stack:
                finished = False
                iterator = events.__aiter__()
                while True:
                    async with self._within(self._patience):
                        event = await anext(iterator, None)
                    if event is None:
                        break
                    if event.type == "text" and event.text:
                        yield TextDelta(event.text)
                    elif event.type == "message_start":
                        counted = event.message.usage.to_dict(mode="json", warnings=False)
                    elif event.type == "message_delta":
                        counted["output_tokens"] = event.usage.output_tokens
                    finished = finished or event.type == "message_stop"
                if not finished:
                    raise ProviderError(ErrorKind.NETWORK, "the stream ended before the answer did")
                message = events.current_message_snapshot.to_dict(mode="json", warnings=False)
        except Exception as error:  # the SDK lets its transport's and its decoder's own errors through
            raise self._explain(error, request.model, reading, lambda: usage_of(counted) if counted else None) from None
        yield to_answer(message, self._answered(request.model, message.get("model")))

    def _make(self, sdk: Any) -> Any:
        return sdk.AsyncAnthropic(
            api_key=self._key,  # given even where a server needs none: without, the SDK searches the disk for one
            base_url=self._base_url,
            max_retries=0,
            timeout=sdk.Timeout(self._silence, connect=CONNECT_SECONDS),
        )

    def _rehearse(self, sdk: Any) -> None:
        _rehearse(sdk)

    def _status_of(self, error: Any, name: str) -> ProviderError | None:
        if not (hasattr(error, "status_code") and hasattr(error, "error_code")):
            return None
        said = str(error.api_message or error.message or "no message")
        kind = of_anthropic(error.status_code, error.type, error.error_code, said)
        return ProviderError(
            kind,
            self._redact(f"{error.error_code or error.type or f'HTTP {error.status_code}'}: {said}")[:500],
            retry_after=retry_after(error.response.headers, self._clock()),
            model=name,
        )


_ENVELOPE: dict[str, Any] = {
    "id": "",
    "type": "message",
    "role": "assistant",
    "model": "",
    "content": [],
    "stop_reason": None,
}
_PLAY: list[dict[str, Any]] = [
    {"type": "message_start", "message": _ENVELOPE | {"usage": {"input_tokens": 0, "output_tokens": 0}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 0}},
    {"type": "message_stop"},
]


def _rehearse(sdk: Any) -> None:
    """One answer from nowhere, in this thread: the SDK builds its types on first use, which takes 0.1 s."""
    import httpx2

    played = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _PLAY)

    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=played)

    async def play() -> None:
        transport = httpx2.MockTransport(reply)
        async with sdk.AsyncAnthropic(
            api_key="none", base_url="http://none", max_retries=0, http_client=httpx2.AsyncClient(transport=transport)
        ) as client:
            request = Request(model="none", stable=".", volatile=".", messages=[Message("user", [Text(".")])])
            async with client.messages.stream(**to_params(request, None)) as events:
                (await events.get_final_message()).to_dict(mode="json")

    asyncio.run(play())
