"""Claude: the real SDK against a server that speaks its API."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.models.anthropic import AnthropicProvider
from gateway.models.provider import ErrorKind, Message, Native, ProviderError, Text, ToolCall, ToolResult, ToolSpec
from protocols.runs import Usage
from tests.gateway.models.conftest import ask, collect
from tests.standins.models import KEY, Call, Fault, ModelServer, Reply, Tokens

WEATHER = ToolSpec("weather", "The weather in a city", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.fixture
async def claude(server: ModelServer) -> AsyncIterator[AnthropicProvider]:
    provider = AnthropicProvider(KEY, base_url=server.url)
    yield provider
    await provider.close()


async def failure(provider: AnthropicProvider, **request: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await collect(provider.stream(ask(**request)))
    return caught.value


class TestAnswers:
    async def test_text_comes_in_pieces_and_then_whole(self, server: ModelServer, claude: AnthropicProvider) -> None:
        server.script.add(Reply(text="The CTE is 0.02 ppm/K."))
        deltas, answer = await collect(claude.stream(ask()))
        assert len(deltas) > 1
        assert "".join(deltas) == answer.message.text == "The CTE is 0.02 ppm/K."
        assert (answer.stop, answer.model) == ("end", "anthropic/claude-opus-4-6")

    async def test_usage_counts_cached_tokens_as_input(self, server: ModelServer, claude: AnthropicProvider) -> None:
        server.script.add(Reply(text="ok", tokens=Tokens(input=7, output=3, cache_read=100, cache_write=20)))
        _, answer = await collect(claude.stream(ask()))
        assert answer.usage == Usage(input_tokens=127, output_tokens=3, cache_read_tokens=100, cache_write_tokens=20)

    async def test_a_tool_call_and_its_result_make_a_round(
        self, server: ModelServer, claude: AnthropicProvider
    ) -> None:
        call = Call("weather", {"city": "Oslo"}, id="toolu_9")
        server.script.add(Reply(text="Let me look.", thinking="which city?", calls=[call]), Reply(text="Rain."))
        _, first = await collect(claude.stream(ask("weather in Oslo?", tools=[WEATHER], thinking="medium")))
        assert first.stop == "tool_use"
        assert first.message.tool_calls == [ToolCall("toolu_9", "weather", {"city": "Oslo"})]
        messages = [
            Message("user", [Text("weather in Oslo?")]),
            first.message,
            Message("user", [ToolResult("toolu_9", "weather", "8 C, rain")]),
        ]
        _, second = await collect(claude.stream(ask(messages=messages, tools=[WEATHER])))
        assert second.message.text == "Rain."
        sent = server.bodies[1]["messages"]
        native = next(b for b in first.message.content if isinstance(b, Native))
        assert sent[1] == native.data, (
            "the provider's own message goes back unmodified, thinking and signature included"
        )
        assert [block["type"] for block in sent[1]["content"]] == ["thinking", "text", "tool_use"]
        (result,) = sent[2]["content"]
        assert (result["type"], result["tool_use_id"], result["content"]) == ("tool_result", "toolu_9", "8 C, rain")

    @pytest.mark.parametrize(
        ("reason", "stop"),
        [
            ("end_turn", "end"),
            ("stop_sequence", "end"),
            ("max_tokens", "max_tokens"),
            ("refusal", "refusal"),
            ("pause_turn", "pause"),
            ("model_context_window_exceeded", "overflow"),
            ("a_reason_of_the_future", "end"),
        ],
    )
    async def test_stop_reasons(self, server: ModelServer, claude: AnthropicProvider, reason: str, stop: str) -> None:
        server.script.add(Reply(text="some", stop=reason))
        _, answer = await collect(claude.stream(ask()))
        assert answer.stop == stop

    async def test_an_empty_refusal_says_who_declined(self, server: ModelServer, claude: AnthropicProvider) -> None:
        server.script.add(Reply(stop="refusal"))
        _, answer = await collect(claude.stream(ask()))
        assert (answer.stop, answer.message.text) == ("refusal", "[declined by anthropic (cyber)]")

    async def test_a_tool_call_cut_by_the_token_limit_is_not_run(
        self, server: ModelServer, claude: AnthropicProvider
    ) -> None:
        server.script.add(Reply(text="Looking", calls=[Call("weather", {"city": "Trondheim"})], stop="max_tokens"))
        _, answer = await collect(claude.stream(ask(tools=[WEATHER])))
        assert answer.stop == "max_tokens"
        assert answer.message.tool_calls == []
        native = next(b for b in answer.message.content if isinstance(b, Native))
        assert [block["type"] for block in native.data["content"]] == ["text"]


class TestRequests:
    async def test_the_stable_prefix_tools_and_history_are_marked_for_the_cache(
        self, server: ModelServer, claude: AnthropicProvider
    ) -> None:
        server.script.add(Reply(text="ok"))
        messages = [Message("user", [Text("one")]), Message("assistant", [Text("1")]), Message("user", [Text("two")])]
        await collect(claude.stream(ask(messages=messages, tools=[WEATHER])))
        body = server.bodies[0]
        assert [("cache_control" in block) for block in body["system"]] == [True]
        assert "cache_control" in body["tools"][-1]
        assert [("cache_control" in m["content"][0]) for m in body["messages"]] == [True, False, True]
        assert body["messages"][-1]["content"][1:] == [
            {"type": "text", "text": "<context>\nToday is Monday.\n</context>"}
        ], "what changes comes last, so that it changes no prefix"

    async def test_thinking_is_adaptive_with_an_effort(self, server: ModelServer, claude: AnthropicProvider) -> None:
        server.script.add(Reply(text="ok", times=3))
        await collect(claude.stream(ask(thinking="high")))
        await collect(claude.stream(ask(thinking="off")))
        await collect(claude.stream(ask(thinking="low", model="claude-haiku-4-5")))
        high, off, old = server.bodies
        assert (high["thinking"], high["output_config"]) == ({"type": "adaptive"}, {"effort": "high"})
        assert "thinking" not in off
        assert "output_config" not in off
        assert old["thinking"] == {"type": "enabled", "budget_tokens": 2048}

    async def test_no_sdk_retry_and_no_key_outside_its_header(
        self, server: ModelServer, claude: AnthropicProvider
    ) -> None:
        server.script.add(Reply(fault=Fault(status=529)), Reply(text="never asked for"))
        error = await failure(claude)
        assert len(server.seen) == 1
        assert KEY not in str(error) + server.seen[0].query + server.seen[0].path + json.dumps(server.bodies)
        assert [name for name, value in server.seen[0].headers.items() if KEY in value] == ["authorization"]


class TestFailures:
    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            (Fault(status=400, message="max_tokens: too big"), ErrorKind.INVALID),
            (Fault(status=400, message="prompt is too long: 210000 tokens > 200000 maximum"), ErrorKind.OVERFLOW),
            (Fault(status=400, type="exceed_context_size_error", message="n_ctx"), ErrorKind.OVERFLOW),
            (Fault(status=400, message="Your credit balance is too low to access"), ErrorKind.QUOTA),
            (Fault(status=402), ErrorKind.QUOTA),
            (Fault(status=403), ErrorKind.AUTH),
            (Fault(status=404, message="model: claude-nope"), ErrorKind.CONFIG),
            (Fault(status=413), ErrorKind.INVALID),
            (Fault(status=422), ErrorKind.INVALID),
            (Fault(status=429), ErrorKind.RATE),
            (Fault(status=429, code="enforced_spend_limit_reached"), ErrorKind.QUOTA),
            (Fault(status=500), ErrorKind.OVERLOAD),
            (Fault(status=503), ErrorKind.OVERLOAD),
            (Fault(status=504), ErrorKind.OVERLOAD),
            (Fault(status=529), ErrorKind.OVERLOAD),
            (Fault(status=529, type="overloaded_error", breaks="event"), ErrorKind.OVERLOAD),
            (Fault(status=429, breaks="event"), ErrorKind.RATE),
            (Fault(breaks="cut"), ErrorKind.NETWORK),
            (Fault(breaks="end"), ErrorKind.NETWORK),
            (Fault(breaks="garble"), ErrorKind.NETWORK),
            (Fault(breaks="cut", after=0), ErrorKind.NETWORK),
        ],
    )
    async def test_each_is_classified_once(
        self, server: ModelServer, claude: AnthropicProvider, fault: Fault, kind: ErrorKind
    ) -> None:
        server.script.add(Reply(text="a text of several pieces, long enough to break", fault=fault))
        error = await failure(claude)
        assert error.kind is kind, str(error)
        assert error.model == "anthropic/claude-opus-4-6"
        assert "\n" not in str(error)

    async def test_a_wrong_key_is_an_auth_error_that_does_not_show_it(self, server: ModelServer) -> None:
        provider = AnthropicProvider("sk-ant-a-wrong-key-1234", base_url=server.url)
        error = await failure(provider)
        await provider.close()
        assert error.kind is ErrorKind.AUTH
        assert "wrong-key" not in str(error)

    async def test_a_key_that_a_server_repeats_is_redacted(
        self, server: ModelServer, claude: AnthropicProvider
    ) -> None:
        for before in (0, 465):  # where it is cut too
            server.script.add(Reply(fault=Fault(status=400, message=f"{'.' * before} bad header x-api-key: {KEY}")))
            assert KEY[:8] not in str(await failure(claude))

    async def test_retry_after_is_read(self, server: ModelServer, claude: AnthropicProvider) -> None:
        server.script.add(Reply(fault=Fault(status=429, retry_after="17")))
        assert (await failure(claude)).retry_after == 17

    async def test_silence_is_a_network_error(self, server: ModelServer) -> None:
        provider = AnthropicProvider(KEY, base_url=server.url, silence=0.2)
        server.script.add(Reply(text="a text of several pieces", fault=Fault(breaks="stall")))
        error = await failure(provider)
        await provider.close()
        assert error.kind is ErrorKind.NETWORK

    async def test_pings_are_no_silence(self, server: ModelServer) -> None:
        provider = AnthropicProvider(KEY, base_url=server.url, silence=0.3)
        server.script.add(Reply(text="thought", pings=4, pause=0.15, piece=100))
        _, answer = await collect(provider.stream(ask()))
        await provider.close()
        assert answer.message.text == "thought"

    async def test_nobody_listening_is_a_network_error_that_names_the_address(self) -> None:
        async with ModelServer() as gone:
            url = gone.url
        provider = AnthropicProvider(KEY, base_url=url)
        error = await failure(provider)
        await provider.close()
        assert error.kind is ErrorKind.NETWORK
        assert url in str(error)

    async def test_cancelling_ends_the_stream_and_the_next_call_works(
        self, server: ModelServer, claude: AnthropicProvider
    ) -> None:
        server.script.add(Reply(text="a text of several pieces", fault=Fault(breaks="stall")), Reply(text="fine"))
        task = asyncio.create_task(collect(claude.stream(ask())))
        await server.stalled.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        _, answer = await collect(claude.stream(ask()))
        assert answer.message.text == "fine"

    async def test_nothing_of_a_call_is_logged_that_holds_the_key(
        self, server: ModelServer, claude: AnthropicProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server.script.add(Reply(text="ok"), Reply(fault=Fault(status=500)))
        await collect(claude.stream(ask()))
        await failure(claude)
        assert KEY not in caplog.text
