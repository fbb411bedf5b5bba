"""OpenAI's Chat Completions, which most other servers speak too: a request as its parameters, its chunks as an answer.

No SDK needed. Servers differ: ids may be missing, a whole call may come in one chunk, usage may never come.
"""

from __future__ import annotations

import json
from typing import Any

from gateway.models.catalogue import KnownModel
from gateway.models.conversation import tidy_with_context
from gateway.models.provider import (
    Answer,
    Block,
    ErrorKind,
    Image,
    Message,
    ProviderError,
    Request,
    Stop,
    Text,
    ToolCall,
    ToolResult,
)
from protocols.runs import Usage

_STOPS: dict[str, Stop] = {
    "stop": "end",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def to_params(request: Request, known: KnownModel | None, name: str, *, official: bool) -> dict[str, Any]:
    """The body of `POST /chat/completions`. `official`: OpenAI itself, which has renamed a parameter."""
    system = request.stable.strip()
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for turn in tidy_with_context(request.messages, name, request.volatile):
        messages += _user(turn) if turn[0].role == "user" else [_assistant(turn)]
    params: dict[str, Any] = {
        "model": request.model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens" if official else "max_tokens": request.max_output_tokens,
    }
    if request.tools:
        params["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
    effort = known.least_thinking if known is not None and request.thinking == "off" else request.thinking
    if effort not in ("", "off") and (known is None or known.thinking != "none"):
        params["reasoning_effort"] = effort
    return params


def _user(turn: list[Message]) -> list[dict[str, Any]]:
    """Results are messages of their own, each after the call it answers."""
    said: list[dict[str, Any]] = []
    texts: list[str] = []
    images: list[dict[str, Any]] = []
    for block in (block for message in turn for block in message.content):
        match block:
            case ToolResult(id=id):
                said.append({"role": "tool", "tool_call_id": id, "content": result_text(block)})
            case Text(text=text):
                texts.append(text)
            case Image():
                images.append({"type": "image_url", "image_url": {"url": data_url(block)}})
            case _:
                pass
    text = "\n\n".join(texts)
    if images:  # a list only where it must be: some servers take nothing but text
        return [*said, {"role": "user", "content": [*images, {"type": "text", "text": text}]}]
    return [*said, {"role": "user", "content": text}] if texts else said


def data_url(image: Image) -> str:
    """An image as both APIs take it."""
    return f"data:{image.media_type};base64,{image.data}"


def result_text(result: ToolResult) -> str:
    """Neither API has a mark for a failed call, so it is said."""
    return f"error: {result.content}" if result.is_error else result.content or "(nothing)"


def _assistant(turn: list[Message]) -> dict[str, Any]:
    text = "".join(message.text for message in turn)
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for message in turn
        for call in message.tool_calls
    ]
    said: dict[str, Any] = {"role": "assistant", "content": text or None}
    return said | ({"tool_calls": calls} if calls else {})


class _Call:
    def __init__(self, id: str) -> None:
        self.id = id
        self.name = ""
        self.arguments = ""


class Gathering:
    """Chunks, as they came, put together."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: list[_Call] = []
        self._at: dict[int, _Call] = {}
        self._finish = ""
        self._usage: dict[str, Any] = {}
        self.model = ""

    def add(self, chunk: dict[str, Any]) -> str:
        """The text in this chunk."""
        self.model = chunk.get("model") or self.model
        self._usage = chunk.get("usage") or self._usage
        choices = chunk.get("choices") or []
        if not choices:
            return ""
        choice = choices[0]
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta") or {}
        for part in delta.get("tool_calls") or []:
            self._add_call(part)
        refusal, text = delta.get("refusal") or "", delta.get("content") or ""
        self._refusal.append(refusal)
        self._text.append(text)
        return str(text)

    def _add_call(self, part: dict[str, Any]) -> None:
        """Pieces of one call share an index; a new id at a known index is another call (some servers count badly)."""
        index, id = part.get("index") or 0, part.get("id") or ""
        call = self._at.get(index)
        if call is None or (id and call.id and id != call.id):
            call = _Call(id)
            self._at[index] = call
            self._calls.append(call)
        call.id = call.id or id
        function = part.get("function") or {}
        call.name = call.name or function.get("name") or ""
        call.arguments += function.get("arguments") or ""

    def used(self) -> Usage | None:
        """What the server has counted; None: it has said nothing of it."""
        return _usage(self._usage) if self._usage else None

    def finish(self, model: str) -> Answer:
        """The whole answer of `model`, as `provider/model`; raises ProviderError if it is none."""
        if not self._finish:
            raise ProviderError(ErrorKind.NETWORK, "the stream ended before the answer did")
        stop = _STOPS.get(self._finish, "end")
        calls = self._calls
        if stop in ("max_tokens", "refusal") and calls:
            calls = calls[:-1]  # cut off while its arguments were being written: nobody may run it
        blocks: list[Block] = []
        text, refusal = "".join(self._text), "".join(self._refusal)
        if text or refusal:
            blocks.append(Text(text or refusal))
        for number, call in enumerate(calls):
            blocks.append(ToolCall(call.id or f"call-{number}", call.name, arguments_of(call.name, call.arguments)))
        if calls and stop == "end":
            stop = "tool_use"
        if stop == "tool_use" and not calls:
            stop = "end"
        if refusal and not text:
            stop = "refusal"
        if stop == "refusal" and not blocks:
            blocks.append(Text(f"[declined by {model.partition('/')[0]}]"))
        return Answer(Message("assistant", blocks), usage=_usage(self._usage), stop=stop, model=model)


def arguments_of(name: str, written: str) -> dict[str, Any]:
    """A call's arguments; raises ProviderError (overload: another try may write them right)."""
    try:
        arguments = json.loads(written) if written.strip() else {}
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict) or not name:
        raise ProviderError(ErrorKind.OVERLOAD, f"the model wrote a call of {name or 'nothing'} that is not JSON")
    return arguments


def _usage(usage: dict[str, Any]) -> Usage:
    """`prompt_tokens` counts cached ones too, `completion_tokens` those of reasoning."""
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        input_tokens=usage.get("prompt_tokens") or 0,
        output_tokens=usage.get("completion_tokens") or 0,
        cache_read_tokens=details.get("cached_tokens") or 0,
        cache_write_tokens=details.get("cache_write_tokens") or 0,
    )
