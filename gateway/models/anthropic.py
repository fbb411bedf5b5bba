"""Claude through the `anthropic` SDK; also any server that speaks `/v1/messages` (Ollama, llama.cpp, LM Studio)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from gateway.models.anthropic_wire import NAME, to_answer, to_params
from gateway.models.catalogue import Catalogue
from gateway.models.failures import of_anthropic, retry_after
from gateway.models.provider import Answer, ErrorKind, Message, ProviderError, Request, Text, TextDelta
from gateway.models.sdk import load_sdk
from runtime.secrets import Redactor

BASE_URL = "https://api.anthropic.com"
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 90.0
"""Longest time without a byte; Anthropic pings every few seconds, even while the model thinks."""
EVENT_SECONDS = 600.0
"""Longest time without an event that says something."""
_TRANSPORTS = ("anthropic", "httpx2", "httpcore2", "h11", "anyio")
"""Packages whose errors, while no status came, mean that the connection failed."""


class AnthropicProvider:
    """One key at one address. Retries nothing: that is the failover's task."""

    name = NAME

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
        self._key = key
        self._base_url = base_url or BASE_URL
        self._local = base_url is not None
        self._catalogue = catalogue or Catalogue.shipped()
        self._silence = silence
        self._patience = patience
        self._clock = clock
        self._redact = Redactor([key])
        self._client: Any = None
        self._opening = asyncio.Lock()

    async def stream(self, request: Request) -> AsyncIterator[TextDelta | Answer]:
        """Deltas, then one Answer; raises ProviderError."""
        params = to_params(request, self._catalogue.find(f"{NAME}/{request.model}"))
        reading = False
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
                    finished = finished or event.type == "message_stop"
                if not finished:
                    raise ProviderError(ErrorKind.NETWORK, "the stream ended before the answer did")
                message = events.current_message_snapshot.to_dict(mode="json", warnings=False)
        except Exception as error:  # the SDK lets its transport's and its decoder's own errors through
            raise self._explain(error, request.model, reading) from None
        yield to_answer(message, self._answered(request.model, message.get("model")))

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _open(self) -> Any:
        async with self._opening:
            if self._client is None:
                sdk = await load_sdk("anthropic", _rehearse)
                self._client = await asyncio.to_thread(self._make, sdk)
        return self._client

    def _make(self, sdk: Any) -> Any:
        return sdk.AsyncAnthropic(
            api_key=self._key,  # given even where a server needs none: without, the SDK searches the disk for one
            base_url=self._base_url,
            max_retries=0,
            timeout=sdk.Timeout(self._silence, connect=CONNECT_SECONDS),
        )

    @contextlib.asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise ProviderError(ErrorKind.NETWORK, f"no answer for {seconds:g} s") from None

    def _answered(self, asked: str, reported: Any) -> str:
        """The model as it answered: what the provider says, unless that is the one asked for with its date."""
        if self._local or not isinstance(reported, str) or not reported or reported.startswith(asked):
            reported = asked
        return f"{NAME}/{reported}"

    def _explain(self, error: Exception, model: str, reading: bool) -> ProviderError:
        name = f"{NAME}/{model}"
        if isinstance(error, ProviderError):
            error.model = name
            return error
        if hasattr(error, "status_code") and hasattr(error, "error_code"):
            return self._explain_status(error, name)
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _TRANSPORTS:
            cause = error.__cause__ if error.__cause__ and str(error.__cause__) else error
            what = self._redact(str(cause)) or type(error).__name__
            return ProviderError(ErrorKind.NETWORK, f"{self._base_url}: {what}", model=name)
        if isinstance(error, ImportError):
            return ProviderError(ErrorKind.CONFIG, f"its SDK cannot be imported: {error}", model=name)
        kind = ErrorKind.NETWORK if reading else ErrorKind.INVALID
        what = "an answer that cannot be read" if reading else "a request that the SDK refused"
        return ProviderError(kind, self._redact(f"{what}: {type(error).__name__}: {error}"[:300]), model=name)

    def _explain_status(self, error: Any, name: str) -> ProviderError:
        said = str(error.api_message or error.message or "no message")
        kind = of_anthropic(error.status_code, error.type, error.error_code, said)
        return ProviderError(
            kind,
            self._redact(f"{error.error_code or error.type or f'HTTP {error.status_code}'}: {said[:500]}"),
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
