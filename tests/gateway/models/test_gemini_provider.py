"""Gemini: the real SDK against a server that speaks its API."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.models.gemini import GeminiProvider
from gateway.models.provider import (
    ErrorKind,
    Message,
    Native,
    ProviderError,
    Text,
    ToolCall,
    ToolResult,
    ToolSpec,
)
from protocols.runs import Usage
from tests.gateway.models.conftest import ask as ask_any
from tests.gateway.models.conftest import collect
from tests.standins.models import KEY, Call, Fault, ModelServer, Reply, Tokens

WEATHER = ToolSpec("weather", "The weather in a city", {"type": "object", "properties": {"city": {"type": "string"}}})
SIGNATURE = base64.b64encode(bytes(range(240, 256)) * 3).decode()
"""Uses both characters in which base64 and its URL-safe kin differ."""


def ask(text: str = "hello", **fields: Any) -> Any:
    return ask_any(text, **({"model": "gemini-3.8-flash"} | fields))


@pytest.fixture
async def gemini(server: ModelServer) -> AsyncIterator[GeminiProvider]:
    provider = GeminiProvider(KEY, base_url=server.url)
    yield provider
    await provider.close()


async def failure(provider: GeminiProvider, **request: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await collect(provider.stream(ask(**request)))
    return caught.value


class TestAnswers:
    async def test_text_comes_in_pieces_and_then_whole(self, server: ModelServer, gemini: GeminiProvider) -> None:
        server.script.add(Reply(text="The CTE is 0.02 ppm/K."))
        deltas, answer = await collect(gemini.stream(ask()))
        assert len(deltas) > 1
        assert "".join(deltas) == answer.message.text == "The CTE is 0.02 ppm/K."
        assert (answer.stop, answer.model) == ("end", "google/gemini-3.8-flash")
        assert server.seen[0].path == "/v1/models/gemini-3.8-flash:streamGenerateContent"

    async def test_the_configured_api_version_is_used(self, server: ModelServer) -> None:
        server.script.add(Reply(text="ok"))
        provider = GeminiProvider(KEY, base_url=server.url, api_version="v1beta")
        await collect(provider.stream(ask()))
        await provider.close()
        assert server.seen[0].path.startswith("/v1beta/")

    async def test_thoughts_are_counted_as_output_and_not_shown(
        self, server: ModelServer, gemini: GeminiProvider
    ) -> None:
        tokens = Tokens(input=100, output=5, cache_read=60, thoughts=40)
        server.script.add(Reply(text="ok", thinking="hm, let me see", tokens=tokens))
        deltas, answer = await collect(gemini.stream(ask()))
        assert answer.usage == Usage(input_tokens=100, output_tokens=45, cache_read_tokens=60)
        assert "".join(deltas) == answer.message.text == "ok"

    async def test_a_tool_call_and_its_result_make_a_round(self, server: ModelServer, gemini: GeminiProvider) -> None:
        call = Call("weather", {"city": "Oslo"}, id="fc-1", signature=SIGNATURE)
        server.script.add(Reply(text="Let me look.", calls=[call]), Reply(text="Rain."))
        _, first = await collect(gemini.stream(ask("weather in Oslo?", tools=[WEATHER], thinking="medium")))
        assert first.stop == "tool_use"
        assert first.message.tool_calls == [ToolCall("fc-1", "weather", {"city": "Oslo"})]
        messages = [
            Message("user", [Text("weather in Oslo?")]),
            first.message,
            Message("user", [ToolResult("fc-1", "weather", "8 C, rain")]),
        ]
        _, second = await collect(gemini.stream(ask(messages=messages, tools=[WEATHER])))
        assert second.message.text == "Rain."
        sent = server.bodies[1]["contents"]
        said, asked = sent[1]["parts"]
        assert said == {"text": "Let me look."}
        assert asked["functionCall"] == {"name": "weather", "args": {"city": "Oslo"}, "id": "fc-1"}
        assert base64.urlsafe_b64decode(asked["thoughtSignature"]) == base64.b64decode(SIGNATURE)
        answered = {"id": "fc-1", "name": "weather", "response": {"output": "8 C, rain"}}
        assert sent[2]["parts"] == [{"functionResponse": answered}]

    async def test_calls_without_ids_get_our_own_which_the_api_never_sees(
        self, server: ModelServer, gemini: GeminiProvider
    ) -> None:
        calls = [Call("weather", {"city": "Oslo"}, id=""), Call("weather", {"city": "Bergen"}, id="")]
        server.script.add(Reply(calls=calls), Reply(text="ok"))
        _, first = await collect(gemini.stream(ask(tools=[WEATHER])))
        ids = [call.id for call in first.message.tool_calls]
        assert len(set(ids)) == 2
        results = Message("user", [ToolResult(id, "weather", "rain", is_error=id == ids[1]) for id in ids])
        await collect(gemini.stream(ask(messages=[Message("user", [Text("?")]), first.message, results])))
        assert [part["functionResponse"] for part in server.bodies[1]["contents"][2]["parts"]] == [
            {"name": "weather", "response": {"output": "rain"}},
            {"name": "weather", "response": {"error": "rain"}},
        ]

    async def test_a_call_of_another_provider_carries_the_signature_that_skips_the_check(
        self, server: ModelServer, gemini: GeminiProvider
    ) -> None:
        server.script.add(Reply(text="ok"))
        native = Native("anthropic", {"role": "assistant", "content": [{"type": "text", "text": "x"}]})
        messages = [
            Message("user", [Text("?")]),
            Message("assistant", [ToolCall("toolu_1", "weather", {"city": "Oslo"}), native]),
            Message("user", [ToolResult("toolu_1", "weather", "rain")]),
        ]
        await collect(gemini.stream(ask(messages=messages)))
        part = server.bodies[0]["contents"][1]["parts"][0]
        assert base64.urlsafe_b64decode(part["thoughtSignature"]) == b"skip_thought_signature_validator"
        assert part["functionCall"] == {"name": "weather", "args": {"city": "Oslo"}}

    @pytest.mark.parametrize(
        ("reason", "stop"),
        [
            ("STOP", "end"),
            ("MAX_TOKENS", "max_tokens"),
            ("SAFETY", "refusal"),
            ("RECITATION", "refusal"),
            ("PROHIBITED_CONTENT", "refusal"),
            ("OTHER", "end"),
        ],
    )
    async def test_finish_reasons(self, server: ModelServer, gemini: GeminiProvider, reason: str, stop: str) -> None:
        server.script.add(Reply(text="some", stop=reason))
        _, answer = await collect(gemini.stream(ask()))
        assert answer.stop == stop

    @pytest.mark.parametrize(
        ("reply", "kind"),
        [
            (Reply(stop="MALFORMED_FUNCTION_CALL"), ErrorKind.OVERLOAD),
            (Reply(stop="UNEXPECTED_TOOL_CALL"), ErrorKind.OVERLOAD),
            (Reply(stop="OTHER"), ErrorKind.OVERLOAD),
            (Reply(stop="MISSING_THOUGHT_SIGNATURE"), ErrorKind.INVALID),
            (Reply(stop="PUP_LIMITED_DISABLED"), ErrorKind.AUTH),
            (Reply(blocked="PROHIBITED_CONTENT"), ErrorKind.REFUSED),
        ],
    )
    async def test_finish_reasons_that_are_no_answer(
        self, server: ModelServer, gemini: GeminiProvider, reply: Reply, kind: ErrorKind
    ) -> None:
        server.script.add(reply)
        assert (await failure(gemini)).kind is kind


class TestRequests:
    async def test_system_tools_and_thinking_level(self, server: ModelServer, gemini: GeminiProvider) -> None:
        server.script.add(Reply(text="ok", times=3))
        await collect(gemini.stream(ask(tools=[WEATHER], thinking="high")))
        await collect(gemini.stream(ask()))
        await collect(gemini.stream(ask(model="gemini-2.5-pro", thinking="low")))
        high, off, old = server.bodies
        assert high["systemInstruction"]["parts"] == [{"text": "You are Webster."}]
        assert high["contents"][-1]["parts"][-1] == {"text": "<context>\nToday is Monday.\n</context>"}
        assert high["tools"][0]["functionDeclarations"][0]["parameters_json_schema"] == WEATHER.parameters
        assert high["generationConfig"]["thinkingConfig"] == {"thinking_level": "HIGH"}
        assert off["generationConfig"]["thinkingConfig"] == {"thinking_level": "MINIMAL"}
        assert old["generationConfig"]["thinkingConfig"] == {"thinking_budget": 1024}

    async def test_the_key_is_in_its_header_only(self, server: ModelServer, gemini: GeminiProvider) -> None:
        server.script.add(Reply(text="ok"))
        await collect(gemini.stream(ask()))
        seen = server.seen[0]
        assert [name for name, value in seen.headers.items() if KEY in value] == ["x-goog-api-key"]
        assert KEY not in seen.path + seen.query


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37.5s"}
DAILY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
}
TOO_LONG = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."


class TestFailures:
    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            (Fault(status=400), ErrorKind.INVALID),
            (Fault(status=400, message=TOO_LONG), ErrorKind.OVERFLOW),
            (Fault(status=400, type="FAILED_PRECONDITION"), ErrorKind.CONFIG),
            (Fault(status=401), ErrorKind.AUTH),
            (Fault(status=403), ErrorKind.AUTH),
            (Fault(status=403, details=[{"reason": "BILLING_DISABLED"}]), ErrorKind.QUOTA),
            (Fault(status=404), ErrorKind.CONFIG),
            (Fault(status=429), ErrorKind.RATE),
            (Fault(status=429, details=[DAILY]), ErrorKind.QUOTA),
            (Fault(status=499), ErrorKind.OVERLOAD),
            (Fault(status=500), ErrorKind.OVERLOAD),
            (Fault(status=503), ErrorKind.OVERLOAD),
            (Fault(status=504), ErrorKind.OVERLOAD),
            (Fault(status=529), ErrorKind.OVERLOAD),
            (Fault(status=503, breaks="event"), ErrorKind.OVERLOAD),
            (Fault(breaks="cut"), ErrorKind.NETWORK),
            (Fault(breaks="end"), ErrorKind.NETWORK),
            (Fault(breaks="garble"), ErrorKind.NETWORK),
        ],
    )
    async def test_each_is_classified_once(
        self, server: ModelServer, gemini: GeminiProvider, fault: Fault, kind: ErrorKind
    ) -> None:
        server.script.add(Reply(text="a text of several pieces, long enough to break", fault=fault))
        error = await failure(gemini)
        assert error.kind is kind, str(error)
        assert error.model == "google/gemini-3.8-flash"
        assert len(server.seen) == 1

    async def test_a_wrong_key_is_an_auth_error_that_does_not_show_it(self, server: ModelServer) -> None:
        provider = GeminiProvider("AIza-a-wrong-key-1234", base_url=server.url)
        error = await failure(provider)
        await provider.close()
        assert error.kind is ErrorKind.AUTH
        assert "wrong-key" not in str(error)

    @pytest.mark.parametrize(
        ("fault", "seconds"),
        [(Fault(status=429, retry_after="17"), 17), (Fault(status=429, details=[RETRY_INFO]), 37.5)],
    )
    async def test_retry_after_is_read(
        self, server: ModelServer, gemini: GeminiProvider, fault: Fault, seconds: float
    ) -> None:
        server.script.add(Reply(fault=fault))
        assert (await failure(gemini)).retry_after == seconds

    async def test_silence_is_a_network_error(self, server: ModelServer) -> None:
        provider = GeminiProvider(KEY, base_url=server.url, silence=0.2)
        server.script.add(Reply(text="a text of several pieces", fault=Fault(breaks="stall")))
        error = await failure(provider)
        await provider.close()
        assert error.kind is ErrorKind.NETWORK
        assert "0.2 s" in str(error)

    async def test_nobody_listening_is_told_at_once(self) -> None:
        async with ModelServer() as gone:
            url = gone.url
        provider = GeminiProvider(KEY, base_url=url)
        async with asyncio.timeout(3):  # the SDK's own second attempt would come after 1 to 10 s
            error = await failure(provider)
        await provider.close()
        assert error.kind is ErrorKind.NETWORK
        assert url in str(error)

    async def test_cancelling_ends_the_stream_and_the_next_call_works(
        self, server: ModelServer, gemini: GeminiProvider
    ) -> None:
        server.script.add(Reply(text="a text of several pieces", fault=Fault(breaks="stall")), Reply(text="fine"))
        task = asyncio.create_task(collect(gemini.stream(ask())))
        await server.stalled.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        _, answer = await collect(gemini.stream(ask()))
        assert answer.message.text == "fine"

    async def test_nothing_of_a_call_is_logged_that_holds_the_key(
        self, server: ModelServer, gemini: GeminiProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server.script.add(Reply(text="ok"), Reply(fault=Fault(status=500)))
        await collect(gemini.stream(ask()))
        await failure(gemini)
        assert KEY not in caplog.text
