"""What the stand-in answers: replies in order, each for the requests it fits, with the faults of real providers."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Api = Literal["anthropic", "gemini", "chat", "responses"]
"""OpenAI has two: Chat Completions and Responses."""
Break = Literal["cut", "end", "stall", "garble", "event"]
"""How a stream breaks: the connection is cut; it ends in good order too soon; silence; not JSON; an `error` event."""


class Call(msgspec.Struct, forbid_unknown_fields=True):
    """A tool call. Gemini sends no id if `id` is empty; a signature is base64."""

    name: str
    arguments: dict[str, Any] = {}
    id: str = "toolu_01"
    signature: str | None = None


class Tokens(msgspec.Struct, forbid_unknown_fields=True):
    """Counted as each API counts: `input` is without cached tokens for Anthropic, with them for Gemini."""

    input: int = 10
    output: int = 5
    cache_read: int = 0
    cache_write: int = 0
    thoughts: int = 0


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """Instead of an answer (`status`), or in the middle of one (`breaks`)."""

    status: int = 0
    type: str = ""
    """Anthropic's error type or Google's status name; guessed from the status if empty."""
    message: str = "scripted fault"
    code: str | None = None
    """Anthropic's `error_code`, OpenAI's `code`."""
    details: list[dict[str, Any]] = []
    """Google's error details."""
    retry_after: str | None = None
    breaks: Break | None = None
    after: int = 2
    """Pieces of text sent before the stream breaks."""


class Match(msgspec.Struct, forbid_unknown_fields=True):
    """Which requests a reply is for; an absent condition fits all."""

    text: str | None = None
    """In the last user message that has text."""
    model: str | None = None
    api: Api | None = None
    tool_result: bool | None = None
    """Whether the last message carries tool results."""


class Reply(msgspec.Struct, forbid_unknown_fields=True):
    text: str = ""
    thinking: str = ""
    calls: list[Call] = []
    tokens: Tokens = msgspec.field(default_factory=Tokens)
    stop: str = ""
    """The API's own stop reason; the natural one if empty."""
    blocked: str = ""
    """Gemini's blockReason: the prompt is refused, no candidate comes."""
    piece: int = 8
    """Characters in one delta."""
    pause: float = 0.0
    """Seconds between deltas, and between pings."""
    pings: int = 0
    """Pings before the first event (Anthropic only): a model that thinks long."""
    fault: Fault | None = None
    match: Match = msgspec.field(default_factory=Match)
    times: int = 1
    """How often it is given; 0 is for ever."""


class Seen(msgspec.Struct):
    """One request as it came in."""

    api: Api
    path: str
    query: str
    headers: dict[str, str]
    body: dict[str, Any]
    model: str


class Script:
    """Hands out the first reply that fits and is not used up."""

    def __init__(self, replies: list[Reply]) -> None:
        self._replies = [(reply, [reply.times]) for reply in replies]

    def add(self, *replies: Reply) -> None:
        self._replies.extend((reply, [reply.times]) for reply in replies)

    def clear(self) -> None:
        self._replies.clear()

    @property
    def unused(self) -> list[Reply]:
        return [reply for reply, left in self._replies if left[0] > 0]

    def take(self, seen: Seen) -> Reply | None:
        text, has_result = _last_words(seen)
        for reply, left in self._replies:
            if (reply.times and left[0] <= 0) or not _fits(reply.match, seen, text, has_result):
                continue
            left[0] -= 1
            return reply
        return None


def load_script(data: bytes) -> list[Reply]:
    """The replies of a JSON file: a list of them."""
    return msgspec.json.decode(data, type=list[Reply])


def _fits(match: Match, seen: Seen, text: str, has_result: bool) -> bool:
    return (
        (match.text is None or match.text in text)
        and (match.model is None or match.model == seen.model)
        and (match.api is None or match.api == seen.api)
        and (match.tool_result is None or match.tool_result == has_result)
    )


def _last_words(seen: Seen) -> tuple[str, bool]:
    """The text of the last user message that has any, and whether the last message carries tool results."""
    where, content = _FIELDS[seen.api]
    words, has_result = "", False
    for turn in seen.body.get(where) or []:
        if turn.get("type") == "function_call_output" or turn.get("role") == "tool":
            has_result = True
        elif turn.get("role") == "user":
            parts = turn.get(content)
            parts = [{"text": parts}] if isinstance(parts, str) else parts or []
            has_result = any(p.get("type") == "tool_result" or "functionResponse" in p for p in parts)
            texts = [p["text"] for p in parts if isinstance(p.get("text"), str)]
            words = "\n".join(text for text in texts if not text.startswith("<context>")) or words
        else:
            has_result = False
    return words, has_result


_FIELDS = {
    "anthropic": ("messages", "content"),
    "gemini": ("contents", "parts"),
    "chat": ("messages", "content"),
    "responses": ("input", "content"),
}
"""Where each API has its turns, and a turn its parts."""
