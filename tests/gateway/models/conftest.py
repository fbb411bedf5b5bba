"""What the tests of the models share: a server in the providers' place, and requests to send it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.models.provider import Answer, Message, Request, Reset, Text, TextDelta
from tests.standins.models import ModelServer


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as running:
        yield running


def ask(text: str = "hello", *, model: str = "claude-opus-4-6", **fields: Any) -> Request:
    """A request with one user message, unless `messages` says otherwise."""
    fields.setdefault("messages", [Message("user", [Text(text)])])
    fields.setdefault("stable", "You are Webster.")
    fields.setdefault("volatile", "Today is Monday.")
    return Request(model=model, **fields)


async def collect(stream: AsyncIterator[TextDelta | Reset | Answer]) -> tuple[list[str], Answer]:
    """The deltas (a reset as `<reset>`) and the one answer, which must come last."""
    deltas: list[str] = []
    answer: Answer | None = None
    async for item in stream:
        assert answer is None, "something came after the answer"
        match item:
            case TextDelta(text=text):
                deltas.append(text)
            case Reset():
                deltas.append("<reset>")
            case Answer():
                answer = item
    assert answer is not None, "the stream ended without an answer"
    return deltas, answer
