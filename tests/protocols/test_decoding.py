"""Strict decoding: whatever comes, the answer is a value or one plain line that names the field and the place."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.decoding import decode_json, decode_toml, line_of, nearest
from protocols.errors import DecodeError
from protocols.hooks import AgentHook, ChildReport, WakeHook
from runtime.config import ClusterFile, InstanceFile

SOURCE = "POST /hooks/agent"
FIELDS = sorted(field.encode_name for field in msgspec.structs.fields(AgentHook))

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12)


def problem(decode: Callable[[], object]) -> DecodeError | None:
    """The error of `decode`, if any; another kind of error fails the test."""
    try:
        decode()
    except DecodeError as error:
        return error
    return None


def refused(body: object, kind: type = AgentHook) -> DecodeError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(DecodeError) as caught:
        decode_json(data, kind, SOURCE)
    assert str(caught.value).startswith(SOURCE)
    assert "\n" not in str(caught.value)
    return caught.value


class TestJson:
    @given(anything)
    def test_any_json_is_a_value_or_a_decode_error_of_one_line(self, body: object) -> None:
        for kind in (AgentHook, WakeHook, ChildReport):
            error = problem(lambda kind=kind: decode_json(json.dumps(body).encode(), kind, SOURCE))
            assert error is None or len(str(error).splitlines()) == 1

    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, anything)))
    def test_a_wrong_value_is_blamed_on_a_field_that_was_sent(self, body: dict[str, object]) -> None:
        error = problem(lambda: decode_json(json.dumps({"message": "x", **body}).encode(), AgentHook, SOURCE))
        if error is not None:
            assert error.field is None or error.field.split(".")[0] in body
            assert len(str(error).splitlines()) == 1
            assert len(str(error)) < 400

    @given(st.binary(max_size=60))
    def test_any_bytes_are_a_value_or_a_decode_error(self, data: bytes) -> None:
        refused(data)

    def test_nesting_without_end_is_refused(self) -> None:
        refused(b'{"message":' + b"[" * 100_000)

    def test_half_a_surrogate_is_refused(self) -> None:
        refused(b'{"message":"\\ud800"}')

    @given(st.text(min_size=1, max_size=300).filter(lambda name: name not in FIELDS))
    def test_an_unknown_field_is_named(self, name: str) -> None:
        error = refused({"message": "x", name: 1})
        assert error.field == name
        assert "unknown field" in error.problem
        assert len(str(error)) < 400

    @pytest.mark.parametrize(
        ("wrong", "right"),
        [
            ("agentid", "agentId"),
            ("wake_mode", "wakeMode"),
            ("mesage", "message"),
            ("TimeOutSeconds", "timeoutSeconds"),
        ],
    )
    def test_the_nearest_known_field_is_suggested(self, wrong: str, right: str) -> None:
        assert f"unknown field `{wrong}`; did you mean `{right}`?" in str(refused({"message": "x", wrong: "y"}))

    def test_a_word_near_nothing_gets_the_list(self) -> None:
        assert f"known: {', '.join(FIELDS)}" in str(refused({"message": "x", "qqqqqq": 1}))

    def test_a_missing_field_is_named(self) -> None:
        error = refused({"name": "x"})
        assert (error.field, error.problem) == ("message", "field `message` is required")

    def test_an_enum_names_its_choices(self) -> None:
        assert refused({"message": "x", "wakeMode": "soon"}).problem == (
            "field `wakeMode`: got 'soon', expected one of: now, next-heartbeat"
        )
        assert "expected one of: off, low, medium, high" in refused({"message": "x", "thinking": "a\nb" * 999}).problem

    @pytest.mark.parametrize("body", [{"message": ""}, {"message": " \n\t"}, {"message": None}, {"message": 3}])
    def test_an_empty_message_is_no_message(self, body: object) -> None:
        assert refused(body).field == "message"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("depth", 6),
            ("depth", -1),
            ("timeoutSeconds", 0),
            ("timeoutSeconds", 86401),
            ("idempotencyKey", ""),
            ("idempotencyKey", "k" * 257),
            ("sessionKey", ""),
            ("name", "n" * 81),
            ("parentRunId", "17"),
            ("parentRunId", "run-0123456789\n"),
            ("deliver", "yes"),
        ],
    )
    def test_bounds_are_held_and_blamed_on_their_field(self, field: str, value: object) -> None:
        assert refused({"message": "x", field: value}).field == field


class TestToml:
    def line(self, text: str, kind: type = ClusterFile) -> int | None:
        with pytest.raises(DecodeError) as caught:
            decode_toml(text, kind, "/h/cluster.toml")
        error = caught.value
        assert str(error).startswith(f"/h/cluster.toml:{error.line}: " if error.line else "/h/cluster.toml: ")
        assert len(str(error).splitlines()) == 1
        return error.line

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("name = 3\n", 1),
            ("\n\nnmae = 'x'\n", 3),
            ("[models]\n# why\nprofile = 'liv'\n", 3),
            ("[agents.webster]\nport = 18828\nprot = 1\n", 3),
            ("[agents.webster]\nport = 1\n\n[agents.manager]\nenabled = 'yes'\n", 5),
            ("[agents]\nwebster = { prot = 1 }\n", 2),
            ("agents.webster.prot = 1\n", 1),
            ("[providers.google]\napi = 'v1'\n", 2),
            ("[authority]\nmanager = ['*']\noptimizer = 'nx-expert'\n", 3),
        ],
    )
    def test_a_wrong_key_or_value_has_its_line(self, text: str, line: int) -> None:
        assert self.line(text) == line

    @pytest.mark.parametrize(
        ("text", "line"),
        [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ('\nname = "x\n', 2), ("a = 1\n\nb = [1,\n", 3), ("b", 1)],
    )
    def test_broken_toml_has_its_line(self, text: str, line: int) -> None:
        assert self.line(text) == line

    def test_a_missing_table_is_named(self) -> None:
        with pytest.raises(DecodeError, match="field `primary` is required in `model`") as caught:
            decode_toml("[agent]\ntitle = 'x'\n\n[model]\nfallbacks = []\n", InstanceFile, "i.toml")
        assert caught.value.line == 4

    def test_nesting_without_end_is_refused(self) -> None:
        self.line("a = " + "[" * 20_000)

    @given(st.text("ab=[]{}\"'.\n#1-: ", max_size=40))
    def test_any_text_is_a_value_or_one_line(self, text: str) -> None:
        error = problem(lambda: decode_toml(text, ClusterFile, "f"))
        if error is not None:
            assert len(str(error).splitlines()) == 1
            assert error.line is None or 1 <= error.line <= max(1, len(text.splitlines()))

    @given(words, words, words, st.integers(0, 5))
    def test_line_of_finds_the_line_a_key_was_written_on(self, table: str, name: str, key: str, above: int) -> None:
        text = "# head\n" * above + f"[{table}.{name}]\n{key} = 1\n"
        assert line_of(text, [table, name, key]) == above + 2
        assert line_of(text, [table, name, key + "x"]) == above + 1


def test_nearest_prefers_the_closest_and_may_find_nothing() -> None:
    assert nearest("webstr", ["manager", "webster", "secretary"]) == "webster"
    assert nearest("zzz", ["manager", "webster"]) is None
