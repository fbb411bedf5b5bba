"""Gemini through the `google-genai` SDK."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from gateway.models.catalogue import Catalogue
from gateway.models.failures import of_google, retry_after
from gateway.models.gemini_wire import NAME, Gathering, to_config, to_contents
from gateway.models.provider import Answer, ErrorKind, Message, ProviderError, Request, Text, TextDelta
from gateway.models.sdk import load_sdk
from runtime.secrets import Redactor

BASE_URL = "https://generativelanguage.googleapis.com"
API_VERSION = "v1"
FIRST_SECONDS = 300.0
"""Longest time to the first chunk: the API says nothing while the model thinks."""
SILENCE_SECONDS = 120.0
"""Longest time between two chunks."""
_TRANSPORTS = ("aiohttp", "httpx2", "httpcore2", "google")


class GeminiProvider:
    """One key at one address. Retries nothing: that is the failover's task."""

    name = NAME

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
        self._key = key
        self._base_url = (base_url or BASE_URL).rstrip("/")
        self._api_version = api_version or API_VERSION
        self._local = base_url is not None
        self._catalogue = catalogue or Catalogue.shipped()
        self._first = first
        self._silence = silence
        self._clock = clock
        self._redact = Redactor([key])
        self._client: Any = None
        self._opening = asyncio.Lock()

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
            chunks = await client.aio.models.generate_content_stream(
                model=request.model, contents=_typed(contents), config=config
            )
            while True:
                async with asyncio.timeout(self._silence if reading else self._first):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                reading = True
                text = gathering.add(chunk.model_dump(mode="json", by_alias=True, exclude_none=True))
                if text:
                    yield TextDelta(text)
            answer = gathering.finish(self._answered(request.model, gathering.model))
        except Exception as error:  # the SDK lets its transport's and its decoder's own errors through
            raise self._explain(error, request.model, reading) from None
        finally:
            if chunks is not None:
                await chunks.aclose()
        yield answer

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aio.aclose()
            client.close()

    async def _open(self) -> Any:
        async with self._opening:
            if self._client is None:
                sdk = await load_sdk("google.genai", _rehearse)
                self._client = await asyncio.to_thread(self._make, sdk)
        return self._client

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

    def _answered(self, asked: str, reported: str) -> str:
        """The model as it answered: what the provider says, unless that is the one asked for with its version."""
        if self._local or not reported or reported.startswith(asked):
            reported = asked
        return f"{NAME}/{reported}"

    def _explain(self, error: Exception, model: str, reading: bool) -> ProviderError:
        name = f"{NAME}/{model}"
        if isinstance(error, ProviderError):
            error.model = name
            return error
        if isinstance(error, TimeoutError):
            seconds = self._silence if reading else self._first
            return ProviderError(ErrorKind.NETWORK, f"no answer for {seconds:g} s", model=name)
        if isinstance(getattr(error, "code", None), int) and hasattr(error, "details"):
            return self._explain_status(error, name)
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _TRANSPORTS:
            if type(error).__name__ == "UnknownApiResponseError":
                return ProviderError(ErrorKind.NETWORK, "an answer that cannot be read", model=name)
            what = self._redact(str(getattr(error, "os_error", error))) or type(error).__name__
            return ProviderError(ErrorKind.NETWORK, f"{self._base_url}: {what}", model=name)
        if isinstance(error, ImportError):
            return ProviderError(ErrorKind.CONFIG, f"its SDK cannot be imported: {error}", model=name)
        kind = ErrorKind.NETWORK if reading else ErrorKind.INVALID
        said = "an answer that cannot be read" if reading else "a request that the SDK refused"
        return ProviderError(kind, self._redact(f"{said}: {type(error).__name__}: {error}"[:300]), model=name)

    def _explain_status(self, error: Any, name: str) -> ProviderError:
        inner = error.details.get("error", error.details) if isinstance(error.details, dict) else {}
        details = inner.get("details") or [] if isinstance(inner, dict) else []
        said = str(error.message or "no message")
        headers = getattr(error.response, "headers", None) or {}
        return ProviderError(
            of_google(error.code, error.status, said, details),
            self._redact(f"{error.status or f'HTTP {error.code}'}: {said[:500]}"),
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
