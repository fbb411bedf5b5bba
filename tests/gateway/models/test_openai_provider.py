"""OpenAI and servers like it: the real SDK against a server that speaks both of its APIs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.models.openai import Api, OpenAIProvider
from gateway.models.provider import ErrorKind, Message, Native, ProviderError, Text, ToolCall, ToolResult, ToolSpec
from protocols.runs import Usage
from tests.gateway.models.conftest import ask as ask_any
from tests.gateway.models.conftest import collect
from tests.standins.models import KEY, Call, Fault, ModelServer, Reply, Tokens

WEATHER = ToolSpec("weather", "The weather in a city", {"type": "object", "properties": {"city": {"type": "string"}}})


def ask(text: str = "hello", **fields: Any) -> Any:
    return ask_any(text, **({"model": "gpt-6.1-sol"} | fields))


@pytest.fixture(params=["chat", "responses"])
def api(request: pytest.FixtureRequest) -> Api:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
async def gpt(server: ModelServer, api: Api) -> AsyncIterator[OpenAIProvider]:
    provider = OpenAIProvider(KEY, base_url=f"{server.url}/v1", api=api)
    yield provider
    await provider.close()


@pytest.fixture
async def chat(server: ModelServer) -> AsyncIterator[OpenAIProvider]:
    provider = OpenAIProvider(KEY, base_url=f"{server.url}/v1", name="workshop")
    yield provider
    await provider.close()


@pytest.fixture
async def responses(server: ModelServer) -> AsyncIterator[OpenAIProvider]:
    provider = OpenAIProvider(KEY, base_url=f"{server.url}/v1", api="responses")
    yield provider
    await provider.close()


async def failure(provider: OpenAIProvider, **request: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await collect(provider.stream(ask(**request)))
    return caught.value


class TestAnswers:
    async def test_text_comes_in_pieces_and_then_whole(self, server: ModelServer, gpt: OpenAIProvider) -> None:
        server.script.add(Reply(text="The CTE is 0.02 ppm/K."))
        deltas, answer = await collect(gpt.stream(ask()))
        assert len(deltas) > 1
        assert "".join(deltas) == answer.message.text == "The CTE is 0.02 ppm/K."
        assert (answer.stop, answer.model) == ("end", "openai/gpt-6.1-sol")

    async def test_a_server_of_ones_own_is_asked_over_chat_and_named(
        self, server: ModelServer, chat: OpenAIProvider
    ) -> None:
        server.script.add(Reply(text="ok"))
        _, answer = await collect(chat.stream(ask(model="qwen3-32b")))
        assert answer.model == "workshop/qwen3-32b"
        assert server.seen[0].path == "/v1/chat/completions"

    async def test_usage_counts_cached_and_reasoning_tokens(self, server: ModelServer, gpt: OpenAIProvider) -> None:
        tokens = Tokens(input=127, output=3, cache_read=100, cache_write=20, thoughts=40)
        server.script.add(Reply(text="ok", tokens=tokens))
        _, answer = await collect(gpt.stream(ask()))
        assert answer.usage == Usage(input_tokens=127, output_tokens=43, cache_read_tokens=100, cache_write_tokens=20)

    async def test_tool_calls_and_their_results_make_a_round(self, server: ModelServer, gpt: OpenAIProvider) -> None:
        calls = [Call("weather", {"city": "Oslo"}, id="call_1"), Call("weather", {"city": "Bergen"}, id="call_2")]
        server.script.add(Reply(text="Let me look.", thinking="which?", calls=calls), Reply(text="Rain."))
        _, first = await collect(gpt.stream(ask("weather?", tools=[WEATHER], thinking="medium")))
        assert first.stop == "tool_use"
        assert first.message.tool_calls == [
            ToolCall("call_1", "weather", {"city": "Oslo"}),
            ToolCall("call_2", "weather", {"city": "Bergen"}),
        ]
        results = [ToolResult("call_1", "weather", "8 C"), ToolResult("call_2", "weather", "no such city", True)]
        messages = [Message("user", [Text("weather?")]), first.message, Message("user", [*results])]
        _, second = await collect(gpt.stream(ask(messages=messages, tools=[WEATHER])))
        assert second.message.text == "Rain."

    async def test_chat_sends_results_as_messages_of_their_own(self, server: ModelServer, chat: OpenAIProvider) -> None:
        server.script.add(Reply(text="ok"))
        messages = [
            Message("user", [Text("?")]),
            Message("assistant", [Text("I look."), ToolCall("c1", "weather", {"city": "Oslo"})]),
            Message("user", [ToolResult("c1", "weather", "8 C"), Text("and hurry")]),
        ]
        await collect(chat.stream(ask(messages=messages)))
        call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
        assert server.bodies[0]["messages"] == [
            {"role": "system", "content": "You are Webster."},
            {"role": "user", "content": "?\n\n<context>\nToday is Monday.\n</context>"},
            {"role": "assistant", "content": "I look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "8 C"},
            {"role": "user", "content": "and hurry"},
        ]

    async def test_thoughts_go_back_encrypted_and_without_ids(
        self, server: ModelServer, responses: OpenAIProvider
    ) -> None:
        call = Call("weather", {"city": "Oslo"}, id="call_1")
        server.script.add(Reply(thinking="which city?", calls=[call]), Reply(text="Rain."))
        _, first = await collect(responses.stream(ask(tools=[WEATHER], thinking="high")))
        result = Message("user", [ToolResult("call_1", "weather", "8 C")])
        await collect(responses.stream(ask(messages=[Message("user", [Text("?")]), first.message, result])))
        thought, asked, answered = server.bodies[1]["input"][2:]
        assert thought == {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA-which city?"}
        assert (asked["call_id"], "id" in asked, "status" in asked) == ("call_1", False, False)
        assert answered == {"type": "function_call_output", "call_id": "call_1", "output": "8 C"}

    async def test_what_one_api_said_the_other_can_be_told(
        self, server: ModelServer, chat: OpenAIProvider, responses: OpenAIProvider
    ) -> None:
        server.script.add(
            Reply(calls=[Call("weather", {"city": "Oslo"}, id="call_1")]), Reply(text="a"), Reply(text="b")
        )
        _, first = await collect(responses.stream(ask(tools=[WEATHER])))
        native = Native("anthropic", {"role": "assistant", "content": []})
        said = Message("assistant", [*first.message.content, native])
        history = [Message("user", [Text("?")]), said, Message("user", [ToolResult("call_1", "weather", "8 C")])]
        for provider in (chat, responses):
            _, answer = await collect(provider.stream(ask(messages=history)))
            assert answer.stop == "end"

    @pytest.mark.parametrize(
        ("reason", "stop"),
        [("stop", "end"), ("length", "max_tokens"), ("content_filter", "refusal"), ("one_of_the_future", "end")],
    )
    async def test_finish_reasons(self, server: ModelServer, chat: OpenAIProvider, reason: str, stop: str) -> None:
        server.script.add(Reply(text="some", stop=reason))
        _, answer = await collect(chat.stream(ask()))
        assert answer.stop == stop

    @pytest.mark.parametrize(
        ("reason", "stop"), [("", "end"), ("max_output_tokens", "max_tokens"), ("content_filter", "refusal")]
    )
    async def test_incomplete_responses(
        self, server: ModelServer, responses: OpenAIProvider, reason: str, stop: str
    ) -> None:
        server.script.add(Reply(text="some", stop=reason))
        _, answer = await collect(responses.stream(ask()))
        assert answer.stop == stop

    async def test_an_empty_refusal_says_who_declined(self, server: ModelServer, gpt: OpenAIProvider) -> None:
        server.script.add(Reply(stop="content_filter"))
        _, answer = await collect(gpt.stream(ask()))
        assert (answer.stop, answer.message.text) == ("refusal", "[declined by openai]")

    async def test_a_tool_call_cut_by_the_token_limit_is_not_run(
        self, server: ModelServer, gpt: OpenAIProvider, api: Api
    ) -> None:
        stop = "length" if api == "chat" else "max_output_tokens"
        server.script.add(Reply(text="Looking", calls=[Call("weather", {"city": "Trondheim"})], stop=stop))
        _, answer = await collect(gpt.stream(ask(tools=[WEATHER])))
        assert (answer.stop, answer.message.tool_calls) == ("max_tokens", [])

    async def test_calls_without_ids_get_our_own(self, server: ModelServer, chat: OpenAIProvider) -> None:
        calls = [Call("weather", {"city": "Oslo"}, id=""), Call("weather", {"city": "Bergen"}, id="")]
        server.script.add(Reply(calls=calls, stop="stop"))
        _, answer = await collect(chat.stream(ask(tools=[WEATHER])))
        assert answer.stop == "tool_use"
        assert len({call.id for call in answer.message.tool_calls}) == 2


class TestRequests:
    async def test_thinking_is_asked_for_in_each_api_s_own_words(
        self, server: ModelServer, chat: OpenAIProvider, responses: OpenAIProvider
    ) -> None:
        server.script.add(Reply(text="ok", times=5))
        await collect(chat.stream(ask(thinking="high")))
        await collect(chat.stream(ask()))
        await collect(responses.stream(ask(thinking="high")))
        await collect(responses.stream(ask(model="gpt-6-sol")))
        await collect(responses.stream(ask(model="gpt-4.1", thinking="high")))
        high, off, deep, least, none = server.bodies
        assert (high["reasoning_effort"], "reasoning_effort" in off) == ("high", False)
        assert (deep["reasoning"], deep["include"]) == ({"effort": "high"}, ["reasoning.encrypted_content"])
        assert least["reasoning"] == {"effort": "none"}
        assert "reasoning" not in none

    async def test_limits_and_tools(self, server: ModelServer, chat: OpenAIProvider, responses: OpenAIProvider) -> None:
        server.script.add(Reply(text="ok", times=2))
        await collect(chat.stream(ask(tools=[WEATHER], max_output_tokens=77)))
        await collect(responses.stream(ask(tools=[WEATHER], max_output_tokens=77)))
        first, second = server.bodies
        assert (first["max_tokens"], first["stream_options"]) == (77, {"include_usage": True})
        assert first["tools"][0]["function"]["parameters"] == WEATHER.parameters
        assert (second["max_output_tokens"], second["store"]) == (77, False)
        assert (second["tools"][0]["name"], second["instructions"]) == (
            "weather",
            "You are Webster.",
        )

    async def test_no_sdk_retry_and_no_key_outside_its_header(self, server: ModelServer, gpt: OpenAIProvider) -> None:
        server.script.add(Reply(fault=Fault(status=503)), Reply(text="never asked for"))
        error = await failure(gpt)
        assert len(server.seen) == 1
        assert KEY not in str(error) + server.seen[0].query + server.seen[0].path + json.dumps(server.bodies)
        assert [name for name, value in server.seen[0].headers.items() if KEY in value] == ["authorization"]


FAULTS = [
    (Fault(status=400, message="Invalid 'temperature'"), ErrorKind.INVALID),
    (Fault(status=400, code="context_length_exceeded"), ErrorKind.OVERFLOW),
    (Fault(status=400, message="This model's maximum context length is 8192 tokens"), ErrorKind.OVERFLOW),
    (Fault(status=400, type="exceed_context_size_error", message="n_ctx"), ErrorKind.OVERFLOW),
    (Fault(status=400, code="content_filter"), ErrorKind.REFUSED),
    (Fault(status=400, code="invalid_prompt"), ErrorKind.REFUSED),
    (Fault(status=403, code="unsupported_country_region_territory"), ErrorKind.AUTH),
    (Fault(status=404, message="The model `gpt-nope` does not exist"), ErrorKind.CONFIG),
    (Fault(status=413), ErrorKind.INVALID),
    (Fault(status=422), ErrorKind.INVALID),
    (Fault(status=429), ErrorKind.RATE),
    (Fault(status=429, type="insufficient_quota", code="insufficient_quota"), ErrorKind.QUOTA),
    (Fault(status=429, type="usage_limit_reached", code="usage_limit_reached"), ErrorKind.QUOTA),
    (Fault(status=500), ErrorKind.OVERLOAD),
    (Fault(status=503), ErrorKind.OVERLOAD),
    (Fault(status=529), ErrorKind.OVERLOAD),
    (Fault(status=429, breaks="event"), ErrorKind.RATE),
    (Fault(code="server_error", type="server_error", breaks="event"), ErrorKind.OVERLOAD),
    (Fault(code="context_length_exceeded", breaks="event"), ErrorKind.OVERFLOW),
    (Fault(breaks="cut"), ErrorKind.NETWORK),
    (Fault(breaks="end"), ErrorKind.NETWORK),
    (Fault(breaks="garble"), ErrorKind.NETWORK),
    (Fault(breaks="cut", after=0), ErrorKind.NETWORK),
]


class TestFailures:
    @pytest.mark.parametrize(("fault", "kind"), FAULTS)
    async def test_each_is_classified_once(
        self, server: ModelServer, gpt: OpenAIProvider, fault: Fault, kind: ErrorKind
    ) -> None:
        server.script.add(Reply(text="a text of several pieces, long enough to break", fault=fault))
        error = await failure(gpt)
        assert error.kind is kind, str(error)
        assert error.model == "openai/gpt-6.1-sol"
        assert "\n" not in str(error)

    async def test_a_wrong_key_is_an_auth_error_that_does_not_show_it(self, server: ModelServer, api: Api) -> None:
        provider = OpenAIProvider("sk-a-wrong-key-1234", base_url=f"{server.url}/v1", api=api)
        error = await failure(provider)
        await provider.close()
        assert error.kind is ErrorKind.AUTH
        assert "wrong-key" not in str(error)

    async def test_a_key_that_a_server_repeats_is_redacted(self, server: ModelServer, gpt: OpenAIProvider) -> None:
        server.script.add(
            Reply(fault=Fault(status=400, message=f"bad header: {KEY}")),
            Reply(text="some text here", fault=Fault(breaks="event", message=f"key {KEY}", after=0)),
        )
        assert KEY not in str(await failure(gpt))
        assert KEY not in str(await failure(gpt))
        server.script.add(Reply(fault=Fault(status=400, message=f"{'.' * 480} bad header: {KEY}")))
        assert KEY[:6] not in str(await failure(gpt))  # where it is cut too

    async def test_a_call_that_is_no_json_is_asked_for_again(self, server: ModelServer, chat: OpenAIProvider) -> None:
        server.script.add(Reply(calls=[Call("", {})]))
        assert (await failure(chat)).kind is ErrorKind.OVERLOAD

    async def test_retry_after_is_read(self, server: ModelServer, gpt: OpenAIProvider) -> None:
        server.script.add(Reply(fault=Fault(status=429, retry_after="17")))
        assert (await failure(gpt)).retry_after == 17

    async def test_silence_is_a_network_error(self, server: ModelServer, api: Api) -> None:
        provider = OpenAIProvider(KEY, base_url=f"{server.url}/v1", api=api, silence=0.2)
        server.script.add(Reply(text="a text of several pieces", fault=Fault(breaks="stall")))
        error = await failure(provider)
        await provider.close()
        assert error.kind is ErrorKind.NETWORK
        assert "0.2 s" in str(error)

    async def test_nobody_listening_is_a_network_error_that_names_the_address(self) -> None:
        async with ModelServer() as gone:
            url = gone.url
        provider = OpenAIProvider(KEY, base_url=f"{url}/v1")
        error = await failure(provider)
        await provider.close()
        assert error.kind is ErrorKind.NETWORK
        assert url in str(error)

    async def test_cancelling_ends_the_stream_and_the_next_call_works(
        self, server: ModelServer, gpt: OpenAIProvider
    ) -> None:
        server.script.add(Reply(text="a text of several pieces", fault=Fault(breaks="stall")), Reply(text="fine"))
        task = asyncio.create_task(collect(gpt.stream(ask())))
        await server.stalled.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        _, answer = await collect(gpt.stream(ask()))
        assert answer.message.text == "fine"

    async def test_nothing_of_a_call_is_logged_that_holds_the_key(
        self, server: ModelServer, gpt: OpenAIProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server.script.add(Reply(text="ok"), Reply(fault=Fault(status=500)))
        await collect(gpt.stream(ask()))
        await failure(gpt)
        assert KEY not in caplog.text
