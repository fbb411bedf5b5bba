"""The offline provider: no key, no network, no pretence. Every answer begins with `[offline]`.

`offline/retrieval` understands a small grammar and drives the agent's real tools with it; anything else it answers
from the memory search, with the passages cited. `offline/echo` repeats, for plumbing.

    delegate to AGENT: TASK     gives AGENT the task and waits for its answer
    request delegation to AGENT: TASK
                                asks the manager or the tech-lead to have AGENT do it
    remember TEXT               writes TEXT into today's memory note
    read FILE                   shows a file of the workspace
    status                      tells how this agent stands

A request for a delegation that comes to an agent is granted: it is delegated as asked. Whether that agent may delegate
there was checked before the run began, and the receiver checks it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

from gateway.models.provider import Answer, Block, Message, Request, Text, TextDelta, ToolCall, ToolResult
from protocols.hooks import REQUEST_HEAD
from protocols.runs import Usage

MARK = "[offline]"
MODELS = ("retrieval", "echo")

_CHUNK = 48
_CHARS_PER_TOKEN = 4
_DELEGATE = re.compile(r"^\s*delegate\s+to\s+(?P<agent>[\w-]+(?:\s[\w-]+)?)\s*:\s*(?P<task>.+)$", re.I | re.S)
_REQUEST = re.compile(
    r"^\s*request\s+(?:a\s+)?delegation\s+to\s+(?P<agent>[\w-]+(?:\s[\w-]+)?)\s*:\s*(?P<task>.+)$", re.I | re.S
)
_DECIDE = re.compile(rf"^{REQUEST_HEAD}: .*?\nrequest: (?P<data>\{{.*\}})$", re.M)
_REMEMBER = re.compile(r"^\s*remember\s+(?:that\s+)?(?P<text>.+)$", re.I | re.S)
_READ = re.compile(r"^\s*read\s+(?P<path>\S+)\s*$", re.I)
_STATUS = re.compile(r"^\s*status\s*[.?!]?\s*$", re.I)


class OfflineProvider:
    """Answers without a model."""

    name = "offline"

    async def stream(self, request: Request) -> AsyncIterator[TextDelta | Answer]:
        message = self._echo(request) if request.model == "echo" else self._answer(request)
        text = message.text
        for start in range(0, len(text), _CHUNK):
            yield TextDelta(text[start : start + _CHUNK])
        sent = len(request.stable) + len(request.volatile) + sum(_length(m) for m in request.messages)
        usage = Usage(input_tokens=sent // _CHARS_PER_TOKEN, output_tokens=max(1, _length(message) // _CHARS_PER_TOKEN))
        stop = "tool_use" if message.tool_calls else "end"
        yield Answer(message, usage, stop, f"offline/{request.model}", cost_usd=0.0)  # type: ignore[arg-type]

    async def close(self) -> None:
        return None

    def _echo(self, request: Request) -> Message:
        return _say(_question(request))

    def _answer(self, request: Request) -> Message:
        last = request.messages[-1]
        results = [b for b in last.content if isinstance(b, ToolResult)]
        if results:
            return _say("\n\n".join(_relate(result) for result in results))
        question = _question(request)
        if "This is a heartbeat" in request.volatile:
            return _say("HEARTBEAT_OK")
        name, arguments = _parse(question)
        if name not in {tool.name for tool in request.tools}:
            return _say(f"This agent has no tool `{name}`; it is not among [tools] allow in its instance.toml.")
        count = sum(1 for m in request.messages for _ in m.tool_calls)
        return Message("assistant", [ToolCall(f"call-{count + 1}", name, arguments)])


def _parse(question: str) -> tuple[str, dict[str, object]]:
    """The tool that a question asks for, and its arguments."""
    if found := _DELEGATE.match(question):
        agent = re.sub(r"\s+", "-", found["agent"].strip().lower())
        return "delegate", {"agent": agent, "task": found["task"].strip()}
    if found := _REQUEST.match(question):
        agent = re.sub(r"\s+", "-", found["agent"].strip().lower())
        reason = "it was asked for in these words; offline, no reason is made up"
        return "request_delegation", {"agent": agent, "task": found["task"].strip(), "reason": reason}
    if question.startswith(REQUEST_HEAD) and (found := _DECIDE.search(question)):
        data = json.loads(found["data"])
        return "delegate", {"agent": data["agent"], "task": data["task"]}
    if found := _REMEMBER.match(question):
        return "memory_write", {"text": found["text"].strip()}
    if found := _READ.match(question):
        return "read_file", {"path": found["path"]}
    if _STATUS.match(question):
        return "status", {}
    return "memory_search", {"query": question}


def _relate(result: ToolResult) -> str:
    """A tool's result in words."""
    if result.is_error:
        return f"{result.name} failed: {result.content}"
    if result.name == "memory_search":
        return _relate_passages(json.loads(result.content))
    if result.name == "memory_write":
        return f"Remembered, in {result.content}."
    return result.content


def _relate_passages(found: dict[str, object]) -> str:
    passages = found.get("passages")
    if not isinstance(passages, list) or not passages:
        unknown = found.get("unknown")
        hint = (
            f" Nothing here mentions {', '.join(map(str, unknown))}." if isinstance(unknown, list) and unknown else ""
        )
        return f"I found nothing about that in the workspace or the shared knowledge.{hint}"
    lines = ["Found in the workspace and the shared knowledge:"]
    lines += [f"- {p['text']} ({p['source']})" for p in passages]
    return "\n".join(lines)


def _say(text: str) -> Message:
    content: list[Block] = [Text(f"{MARK} {text}")]
    return Message("assistant", content)


def _question(request: Request) -> str:
    """The newest plain text a user sent: its last block, for what stands before that is only around it."""
    for message in reversed(request.messages):
        texts = [block.text for block in message.content if isinstance(block, Text) and block.text]
        if message.role == "user" and texts:
            return texts[-1]
    return ""


def _length(message: Message) -> int:
    size = len(message.text)
    for block in message.content:
        if isinstance(block, ToolResult):
            size += len(block.content)
        elif isinstance(block, ToolCall):
            size += len(json.dumps(block.arguments))
    return size
