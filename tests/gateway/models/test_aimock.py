"""The providers against somebody else's idea of their APIs: npm's @copilotkit/aimock, where it is installed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.models.anthropic import AnthropicProvider
from gateway.models.gemini import GeminiProvider
from gateway.models.openai import OpenAIProvider
from gateway.models.provider import ErrorKind, Message, Provider, ProviderError, Text, ToolResult, ToolSpec
from tests.gateway.models.conftest import ask, collect

ROOT = Path(__file__).resolve().parents[3]
CLI = Path(os.environ.get("AIMOCK_CLI_PATH") or ROOT / "node_modules/@copilotkit/aimock/dist/cli.js")
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
    pytest.mark.skipif(not CLI.is_file(), reason=f"no aimock: npm i @copilotkit/aimock@1.43.0 (looked for {CLI})"),
]
WEATHER = ToolSpec("get_weather", "Weather", {"type": "object", "properties": {"city": {"type": "string"}}})
FIXTURES = [
    {"match": {"userMessage": "hello"}, "response": {"content": "Hello from aimock, in pieces."}},
    {
        "match": {"userMessage": "weather", "hasToolResult": False},
        "response": {"toolCalls": [{"name": "get_weather", "arguments": '{"city":"Oslo"}'}]},
    },
    {"match": {"userMessage": "weather", "hasToolResult": True}, "response": {"content": "Rain."}},
    {
        "match": {"userMessage": "busy"},
        "response": {"error": {"message": "slow down", "type": "rate_limit_error"}, "status": 429, "retryAfter": 3},
    },
    {
        "match": {"userMessage": "break"},
        "response": {"content": "a text that will never be whole"},
        "truncateAfterChunks": 2,
        "chunkSize": 6,
    },
]


@pytest.fixture
async def aimock(tmp_path: Path) -> AsyncIterator[str]:
    fixtures = tmp_path / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, str(CLI), "-p", str(port), "-f", str(fixtures), "--strict", "--log-level", "silent"
    )
    try:
        async with asyncio.timeout(20):
            while not await answers(port):
                assert process.returncode is None, "aimock did not start"
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_each_provider_answers_calls_tools_and_fails_as_told(aimock: str) -> None:
    claude = AnthropicProvider("any-key-1234", base_url=aimock)
    gemini = GeminiProvider("any-key-1234", base_url=aimock, api_version="v1beta")
    chat = OpenAIProvider("any-key-1234", base_url=f"{aimock}/v1")
    responses = OpenAIProvider("any-key-1234", base_url=f"{aimock}/v1", api="responses")
    asked: list[tuple[Provider, str]] = [
        (claude, "claude-opus-4-6"),
        (gemini, "gemini-3.8-flash"),
        (chat, "qwen3-32b"),
        (responses, "gpt-6.1-sol"),
    ]
    for provider, model in asked:
        _, answer = await collect(provider.stream(ask("hello", model=model)))
        assert answer.message.text == "Hello from aimock, in pieces."
        question = Message("user", [Text("weather?")])
        _, calling = await collect(provider.stream(ask(model=model, messages=[question], tools=[WEATHER])))
        assert calling.stop == "tool_use"
        call = calling.message.tool_calls[0]
        assert (call.name, call.arguments) == ("get_weather", {"city": "Oslo"})
        result = Message("user", [ToolResult(call.id, call.name, "rain")])
        history = [question, calling.message, result]
        _, answer = await collect(provider.stream(ask(model=model, messages=history, tools=[WEATHER])))
        assert answer.message.text == "Rain."
        for word, kind in (("busy", ErrorKind.RATE), ("break", ErrorKind.NETWORK)):
            with pytest.raises(ProviderError) as caught:
                await collect(provider.stream(ask(word, model=model)))
            assert caught.value.kind is kind, (model, word, str(caught.value))
        await provider.close()
