"""A server that takes the request and says nothing: each provider gives up in its time, as a failure of the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.models.anthropic import AnthropicProvider
from gateway.models.gemini import GeminiProvider
from gateway.models.openai import OpenAIProvider
from gateway.models.provider import ErrorKind, ProviderError
from tests.gateway.models.conftest import ask, collect

MADE: dict[str, Callable[[str], Any]] = {
    "anthropic": lambda url: AnthropicProvider("sk-mute", base_url=url, silence=0.3),
    "google": lambda url: GeminiProvider("sk-mute", base_url=url, first=0.3),
    "openai": lambda url: OpenAIProvider("sk-mute", base_url=url, first=0.3),
}


@pytest.mark.parametrize("name", MADE)
async def test_a_server_that_never_answers_is_given_up(name: str) -> None:
    gone = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    provider = MADE[name](url)
    try:
        await provider._open()  # the SDK's import has its own time
        with pytest.raises(ProviderError) as caught:
            async with asyncio.timeout(5):
                await collect(provider.stream(ask()))
        assert caught.value.kind is ErrorKind.NETWORK
        assert url in str(caught.value)
        await asyncio.wait_for(gone.wait(), 5)
    finally:
        await provider.close()
        server.close()
