"""Gemini through the `google-genai` SDK."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from gateway.models.catalogue import Catalogue
from gateway.models.client import SdkProvider
from gateway.models.failures import of_google, retry_after
from gateway.models.gemini_wire import NAME, Gathering, to_config, to_contents
from gateway.models.provider import Answer, ErrorKind, Message, ProviderError, Request, Text, TextDelta

BASE_URL = "https://generativelanguage.googleapis.com"
API_VERSION = "v1"
FIRST_SECONDS = 300.0
"""Longest time to the first chunk: the API says nothing while the model thinks."""
SILENCE_SECONDS = 120.0
"""Longest time between two chunks."""


class GeminiProvider(SdkProvider):
    """One key at one address. Retries nothing: that is the failover's task."""

    sdk = "google.genai"
    transports = ("aiohttp", "httpx2", "httpcore2", "google")

    def __init__(
        self,
        key: str,
        *,
        base_url: str | None = None,
        api_version: str | None = None,
        catalogue: Catalogue | None = None,
        first: float = FIRST_SECONDS,
        silence: float = SILENCE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(NAME, key, base_url, BASE_URL, catalogue, clock)
        self._key = key
        self._api_version = api_version or API_VERSION
        self._first = first
        self._silence = silence

    async def stream(self, request: Request) -> AsyncIterator[TextDelta | Answer]:
        """Deltas, then one Answer; raises ProviderError."""
        known = self._catalogue.find(f"{NAME}/{request.model}")
        contents = to_contents(request.messages, request.model, request.volatile)
        config = to_config(request, known)
        gathering = Gathering()
        chunks: Any = None
        reading = False
        try:
            client = await self._open()
            async with self._within(self._first):
                chunks = await client.aio.models.generate_content_stream(
                    model=request.model, contents=_typed(contents), config=config
                )
            while True:
                async with self._within(self._silence if reading else self._first):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                reading = True
                text = gathering.add(chunk.model_dump(mode="json", by_alias=True, exclude_none=True))
                if text:
                    yield TextDelta(text)
            answer = gathering.finish(self._answered(request.model, gathering.model))
        except Exception as error:  # the SDK lets its transport's and its decoder's own errors through
            raise self._explain(error, request.model, reading, gathering.used) from None
        finally:
            if chunks is not None:
                await chunks.aclose()
        yield answer

    async def _end(self, client: Any) -> None:
        await client.aio.aclose()
        client.close()

    def _make(self, sdk: Any) -> Any:
        return sdk.Client(
            enterprise=False,
            api_key=self._key,
            http_options=sdk.types.HttpOptions(
                base_url=self._base_url,
                api_version=self._api_version,
                # One attempt; without this option the SDK sleeps up to 10 s and asks again when a connection fails.
                retry_options=sdk.types.HttpRetryOptions(attempts=1),
            ),
        )

    def _rehearse(self, sdk: Any) -> None:
        _rehearse(sdk)

    def _status_of(self, error: Any, name: str) -> ProviderError | None:
        if type(error).__name__ == "UnknownApiResponseError":
            return ProviderError(ErrorKind.NETWORK, "an answer that cannot be read", model=name)
        if not (isinstance(getattr(error, "code", None), int) and hasattr(error, "details")):
            return None
        inner = error.details.get("error", error.details) if isinstance(error.details, dict) else {}
        details = inner.get("details") or [] if isinstance(inner, dict) else []
        said = str(error.message or "no message")
        headers = getattr(error.response, "headers", None) or {}
        return ProviderError(
            of_google(error.code, error.status, said, details),
            self._redact(f"{error.status or f'HTTP {error.code}'}: {said}")[:500],
            retry_after=retry_after({k.lower(): v for k, v in headers.items()}, self._clock(), details),
            model=name,
        )


def _typed(contents: list[dict[str, Any]]) -> list[Any]:
    """As the SDK's types: by way of JSON, for only so are signatures read as base64."""
    import google.genai.types

    return [google.genai.types.Content.model_validate_json(json.dumps(content)) for content in contents]


_PLAY = b'data: {"candidates": [{"content": {"role": "model", "parts": [{"text": "."}]}, "finishReason": "STOP"}]}\n\n'


def _rehearse(sdk: Any) -> None:
    """One answer from nowhere, in this thread: the SDK builds its types on first use, which takes 0.1 s."""
    import httpx2

    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=_PLAY)

    async def play() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(reply)) as nowhere:
            options = sdk.types.HttpOptions(base_url="http://none", httpx_async_client=nowhere)
            client = sdk.Client(enterprise=False, api_key="none", http_options=options)
            request = Request(model="none", stable=".", volatile=".", messages=[Message("user", [Text(".")])])
            contents = _typed(to_contents(request.messages, request.model))
            chunks = await client.aio.models.generate_content_stream(
                model="none", contents=contents, config=to_config(request, None)
            )
            async for chunk in chunks:
                chunk.model_dump(mode="json", by_alias=True, exclude_none=True)
            client.close()

    asyncio.run(play())
