"""OpenAI, and every server that speaks one of its APIs, through the `openai` SDK."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, Protocol

import msgspec

from gateway.models import openai_responses, openai_wire
from gateway.models.catalogue import Catalogue
from gateway.models.client import SdkProvider
from gateway.models.failures import of_openai, retry_after
from gateway.models.provider import Answer, ProviderError, Request, TextDelta

NAME = "openai"
BASE_URL = "https://api.openai.com/v1"
CONNECT_SECONDS = 10.0
FIRST_SECONDS = 300.0
"""Longest time to the first text: the APIs may say nothing while the model thinks."""
SILENCE_SECONDS = 120.0
"""Longest time between two events after it."""
_ORIGINATOR = "atomizer"

Api = Literal["chat", "responses"]


class Bearer(msgspec.Struct, frozen=True):
    """What one request is authorized with."""

    token: str
    account: str = ""
    """The account's id, which its API wants to be told."""


class Tokens(Protocol):
    """Where access tokens come from."""

    async def bearer(self, rejected: str | None = None) -> Bearer:
        """One that works; `rejected` is one that did not although it should. Raises ProviderError."""
        ...


class OpenAIProvider(SdkProvider):
    """One key, or one account, at one address. Retries nothing: that is the failover's task."""

    sdk = "openai"
    transports = ("openai", "httpx2", "httpcore2", "h11", "anyio")

    def __init__(
        self,
        key: str | Tokens,
        *,
        name: str = NAME,
        base_url: str | None = None,
        api: Api | None = None,
        catalogue: Catalogue | None = None,
        first: float = FIRST_SECONDS,
        silence: float = SILENCE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`key` is an API key, or where an account's tokens come from. `name` is the part before the model's slash."""
        super().__init__(name, key if isinstance(key, str) else None, base_url, BASE_URL, catalogue, clock)
        self._key = key
        self._account = not isinstance(key, str)
        self._api: Api = api or ("responses" if self._official or self._account else "chat")
        self._first = first
        self._silence = silence

    async def stream(self, request: Request) -> AsyncIterator[TextDelta | Answer]:
        """Deltas, then one Answer; raises ProviderError."""
        known = self._catalogue.find(f"{self.name}/{request.model}")
        gathering: openai_wire.Gathering | openai_responses.Gathering
        if self._api == "chat":
            params = openai_wire.to_params(request, known, self.name, official=self._official)
            gathering = openai_wire.Gathering()
        else:
            params = openai_responses.to_params(request, known, self.name, account=self._account)
            gathering = openai_responses.Gathering(self.name)
        events: Any = None
        reading = said = False
        try:
            events = await self._ask(params)
            reading = True
            iterator = events.__aiter__()
            while True:
                async with self._within(self._silence if said else self._first):
                    event = await anext(iterator, None)
                if event is None:
                    break
                text = gathering.add(event)
                if text:
                    said = True
                    yield TextDelta(text)
            answer = gathering.finish(self._answered(request.model, gathering.model))
        except Exception as error:  # the SDK lets its transport's and its decoder's own errors through
            used = (lambda: None) if self._account else gathering.used
            raise self._explain(error, request.model, reading, used) from None
        finally:
            if events is not None:
                await events.close()
        # A plan is paid for by the month: a token of it has no price.
        yield msgspec.structs.replace(answer, cost_usd=0.0) if self._account else answer

    async def _ask(self, params: dict[str, Any]) -> Any:
        client = await self._open()
        if isinstance(self._key, str):
            return await self._create(client, params, {})
        bearer = await self._key.bearer()
        try:
            return await self._create(client, params, self._headers(bearer))
        except Exception as error:
            if getattr(error, "status_code", None) != 401:
                raise
        # It ended before its time: with a new one the question is asked for the first time.
        bearer = await self._key.bearer(bearer.token)
        return await self._create(client, params, self._headers(bearer))

    async def _create(self, client: Any, params: dict[str, Any], headers: dict[str, str]) -> Any:
        async with self._within(CONNECT_SECONDS + self._first):
            return await _post(client, self._api, params, headers)

    def _headers(self, bearer: Bearer) -> dict[str, str]:
        self._redact.know([bearer.token])
        headers = {"Authorization": f"Bearer {bearer.token}", "originator": _ORIGINATOR}
        return headers | ({"chatgpt-account-id": bearer.account} if bearer.account else {})

    def _make(self, sdk: Any) -> Any:
        return sdk.AsyncOpenAI(
            api_key=self._key if isinstance(self._key, str) else "unused",  # without, the SDK reads the environment
            base_url=self._base_url,
            max_retries=0,
            timeout=sdk.Timeout(self._first, connect=CONNECT_SECONDS),
        )

    def _rehearse(self, sdk: Any) -> None:
        _rehearse(sdk)

    def _status_of(self, error: Any, name: str) -> ProviderError | None:
        """An error with a status, or one inside a stream, which comes with the stream's own, 200."""
        if not (hasattr(error, "status_code") or isinstance(getattr(error, "body", None), dict)):
            return None
        status = getattr(error, "status_code", 200)
        body = error.body if isinstance(error.body, dict) else {}
        said = str(body.get("message") or body.get("detail") or error.message or "no message")
        response = getattr(error, "response", None)
        return ProviderError(
            of_openai(status, error.type, error.code, said),
            self._redact(f"{error.code or error.type or f'HTTP {status}'}: {said}")[:500],
            retry_after=retry_after(response.headers, self._clock()) if response is not None else None,
            model=name,
        )


_PATHS: dict[Api, str] = {"chat": "/chat/completions", "responses": "/responses"}


async def _post(client: Any, api: Api, params: dict[str, Any], headers: dict[str, str]) -> Any:
    """The stream's events as plain dictionaries: the SDK's types for those of `responses` alone take 30 MiB."""
    import openai

    return await client.post(
        _PATHS[api],
        body=params,
        cast_to=object,
        stream=True,
        stream_cls=openai.AsyncStream[object],
        options={"headers": headers},
    )


def _rehearse(sdk: Any) -> None:
    """One answer from nowhere, in this thread: the SDK and its transport load parts on first use."""
    import httpx2

    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text="data: {}\n\n")

    async def play() -> None:
        transport = httpx2.MockTransport(reply)
        async with sdk.AsyncOpenAI(
            api_key="none", base_url="http://none", max_retries=0, http_client=httpx2.AsyncClient(transport=transport)
        ) as client:
            async for _ in await _post(client, "chat", {"model": "none", "stream": True}, {}):
                pass

    asyncio.run(play())
