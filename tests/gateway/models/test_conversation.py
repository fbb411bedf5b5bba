"""Whatever is left of a conversation, what is sent alternates and answers every call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.models.anthropic_wire import to_params
from gateway.models.conversation import INTERRUPTED, tidy
from gateway.models.gemini_wire import to_contents
from gateway.models.provider import Message, Native, Text, ToolCall, ToolResult
from tests.gateway.models.conftest import ask
from tests.standins.models.server import wrong_contents, wrong_messages

IDS = st.sampled_from(["a", "b", "c", "toolu_1", "local-9", "x:1"])
NATIVE = st.sampled_from(
    [
        Native("anthropic", {"role": "assistant", "content": [{"type": "text", "text": "said"}]}),
        Native("google", {"role": "model", "parts": [{"text": "said"}]}),
        Native("other", {"anything": 1}),
    ]
)
TEXT = st.builds(Text, st.sampled_from(["", "  ", "hello", "why?"]))
USER = st.builds(
    Message,
    st.just("user"),
    st.lists(TEXT | st.builds(ToolResult, IDS, st.just("tool"), st.sampled_from(["", "done"])), max_size=3),
)
SAID = st.builds(Message, st.just("assistant"), st.lists(TEXT | NATIVE, max_size=2))
ASKED = st.builds(
    lambda text, ids: Message("assistant", [text, *[ToolCall(id, "tool", {}) for id in ids]]),
    TEXT,
    st.lists(IDS, min_size=1, max_size=3, unique=True),
)


@given(st.lists(USER | SAID | ASKED, max_size=8))
def test_any_history_makes_a_request_that_both_providers_accept(messages: list[Message]) -> None:
    params = to_params(ask(messages=messages), None)
    assert wrong_messages(params) is None
    contents = to_contents(messages, "gemini-3.8-flash")
    assert wrong_contents({"contents": contents}) is None
    assert [c["role"] for c in contents] == ["user", "model"] * (len(contents) // 2) + ["user"]


def test_a_call_without_a_result_reads_as_interrupted() -> None:
    turns = tidy([Message("user", [Text("go")]), Message("assistant", [ToolCall("a", "tool", {})])], "anthropic")
    assert turns[-1][0].content == [ToolResult("a", "tool", INTERRUPTED, is_error=True)]


def test_a_result_without_its_call_is_kept_as_text() -> None:
    turns = tidy([Message("user", [ToolResult("a", "weather", "rain")])], "anthropic")
    assert turns[-1][0].content == [Text("[result of weather] rain")]


def test_a_good_conversation_is_left_as_it_is() -> None:
    messages = [
        Message("user", [Text("go")]),
        Message("assistant", [Text("looking"), ToolCall("a", "tool", {})]),
        Message("user", [ToolResult("a", "tool", "done")]),
    ]
    assert [turn[0] for turn in tidy(messages, "anthropic")] == messages


def test_ids_that_two_providers_both_gave_are_told_apart() -> None:
    round_of_calls = [
        Message("assistant", [ToolCall("call-1", "tool", {})]),
        Message("user", [ToolResult("call-1", "tool", "done")]),
    ]
    turns = tidy([Message("user", [Text("go")]), *round_of_calls, *round_of_calls], "anthropic")
    calls = [call.id for turn in turns for message in turn for call in message.tool_calls]
    results = [b.id for turn in turns for m in turn for b in m.content if isinstance(b, ToolResult)]
    assert calls == results == ["call-1", "call-1-2"]
