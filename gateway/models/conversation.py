"""A conversation made fit for a provider: roles alternate, nothing is empty, every tool call has its result.

Sessions are cut by crashes, compaction and swaps of model; providers answer 400 to what is left. The repair happens
here, on the way out, so that the ledger keeps what really happened.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.models.provider import Block, Message, Native, Text, ToolCall, ToolResult

INTERRUPTED = "interrupted: no result was recorded"
"""What the model reads for a call whose result is missing."""
_OPENING = "(The beginning of this conversation is not shown.)"
_GO_ON = "Continue."


CONTEXT = "<context>\n{}\n</context>"
"""How what changes from run to run (the time, the run) is shown to the model, in a message of the user's side."""


def where_context_stands(turns: list[list[Message]]) -> tuple[int, int | None]:
    """(the turn that began this run, the one that began the run before it): the newest with nothing but words.

    Words right behind tool results would teach a model to expect them there and to stop early.
    """
    plain = [
        at
        for at, turn in enumerate(turns)
        if turn[0].role == "user" and not any(isinstance(b, ToolResult) for message in turn for b in message.content)
    ]
    if not plain:
        return len(turns) - 1, None
    return plain[-1], plain[-2] if len(plain) > 1 else None


def tidy_with_context(messages: Iterable[Message], provider: str, volatile: str) -> list[list[Message]]:
    """As `tidy`, with what changes from run to run behind the words that began this run.

    In the system prompt it would stand before the whole conversation, and no cache of prefixes would ever hold any.
    """
    turns = tidy(messages, provider)
    if volatile.strip():
        turns[where_context_stands(turns)[0]].append(Message("user", [Text(CONTEXT.format(volatile.strip()))]))
    return turns


def tidy(messages: Iterable[Message], provider: str) -> list[list[Message]]:
    """Turns of alternating role, the first and the last the user's; a turn is one or more messages of one role.

    Messages of the assistant stay whole, for the Native block of `provider` stands for all of the others.
    """
    turns: list[list[Message]] = []
    for message in messages:
        message = _without_empty(message, provider)
        if not message.content:
            continue
        if turns and turns[-1][0].role == message.role:
            turns[-1].append(message)
        else:
            turns.append([message])
    if not turns or turns[0][0].role == "assistant":
        turns.insert(0, [Message("user", [Text(_OPENING)])])
    if turns[-1][0].role == "assistant":
        asks = any(message.tool_calls for message in turns[-1])
        turns.append([Message("user", [] if asks else [Text(_GO_ON)])])
    turns = _with_unique_ids(turns, provider)
    return [turn if turn[0].role == "assistant" else _answering(turns[i - 1], turn) for i, turn in enumerate(turns)]


def _with_unique_ids(turns: list[list[Message]], provider: str) -> list[list[Message]]:
    """No id twice: providers count calls in their own ways, and a session may have known several.

    What `provider` itself said keeps its ids. Results follow their calls, first to first.
    """
    taken: set[str] = set()
    open_calls: list[tuple[str, str]] = []
    done: list[list[Message]] = []
    for turn in turns:
        if turn[0].role == "user":
            done.append([_renamed_results(message, open_calls) for message in turn])
            continue
        open_calls, said = [], []
        for message in turn:
            keep = native_of(message, provider) is not None
            content: list[Block] = []
            for block in message.content:
                if isinstance(block, ToolCall):
                    id = block.id if keep else _free(block.id, taken)
                    taken.add(id)
                    open_calls.append((block.id, id))
                    block = msgspec.structs.replace(block, id=id)
                content.append(block)
            said.append(Message(message.role, content))
        done.append(said)
    return done


def _renamed_results(message: Message, open_calls: list[tuple[str, str]]) -> Message:
    content: list[Block] = []
    for block in message.content:
        if isinstance(block, ToolResult):
            found = next((pair for pair in open_calls if pair[0] == block.id), None)
            if found is not None:
                open_calls.remove(found)
                block = msgspec.structs.replace(block, id=found[1])
        content.append(block)
    return Message(message.role, content)


def _free(id: str, taken: set[str]) -> str:
    count, free = 1, id
    while free in taken:
        count += 1
        free = f"{id}-{count}"
    return free


def _answering(asked: list[Message], turn: list[Message]) -> list[Message]:
    """The user's turn as one message: the results of exactly the calls before it, in their order, then the rest."""
    calls = [] if asked[0].role == "user" else [call for message in asked for call in message.tool_calls]
    blocks = [block for message in turn for block in message.content]
    results: dict[str, ToolResult] = {}
    rest: list[Block] = []
    expected = {call.id for call in calls}
    for block in blocks:
        if isinstance(block, ToolResult):
            if block.id in expected and block.id not in results:
                results[block.id] = block
            else:
                rest.append(Text(f"[result of {block.name}] {block.content}"))
        else:
            rest.append(block)
    answers: list[Block] = [results.get(call.id) or _interrupted(call) for call in calls]
    return [Message("user", answers + rest)]


def _interrupted(call: ToolCall) -> ToolResult:
    return ToolResult(id=call.id, name=call.name, content=INTERRUPTED, is_error=True)


def _without_empty(message: Message, provider: str) -> Message:
    kept = [block for block in message.content if not _is_empty(block, provider)]
    return Message(message.role, kept)


def _is_empty(block: Block, provider: str) -> bool:
    match block:
        case Text(text=text):
            return not text.strip()
        case Native(provider=name):
            return name != provider
        case _:
            return False


def native_of(message: Message, provider: str) -> Native | None:
    """The block in which `provider` said this message, if it did."""
    return next((b for b in message.content if isinstance(b, Native) and b.provider == provider), None)
