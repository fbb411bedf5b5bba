"""A message that was heard, made into a run: its session, where the answer goes, and what its model reads around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from gateway.channels.channel import Author, Heard, Place
from gateway.channels.recent import shown_name
from gateway.ledger.records import NewRun, Origin, Picture, RunOptions
from gateway.models.outside import as_data
from protocols.runs import RunSource, new_run_id

REPLY_CHARS = 1000
"""Of the message that is answered."""
_NO_WORDS = "(a mention without words)"
_ONLY_FILES = "(files without words)"
_OPENING, _CLOSING = frozenset("[\uff3b\u3010"), frozenset("]\uff3d\u3011")
"""Brackets, and what looks like them."""
_ONLY_FORWARDED = "(a forwarded message without words)"


class File(msgspec.Struct, frozen=True):
    """A file that came with a message, as it was taken in."""

    name: str
    note: str
    """Where it lies, or why it was not taken in."""
    text: str = ""
    """What is in it, where it is text and not long."""
    picture: Picture | None = None


class Around(msgspec.Struct, frozen=True):
    """What belongs to a message beside its words."""

    answers: Heard | None = None
    """The message it is a reply to."""
    before: Sequence[Heard] = ()
    """What others said in the channel since the last answer, oldest first."""
    parent: str = ""
    """For the first run of a thread: what went on in its channel."""
    files: Sequence[File] = ()


def key_of(provider: str, message_id: str) -> str:
    """The idempotency key: one message is one run, over any repeat, restart and catching up."""
    return f"{provider}:{message_id}"


def session_of(agent: str, place: Place, author: Author, direct: str) -> str:
    """A channel and a thread have sessions of their own; direct messages as `[discord] dm_session` says."""
    if place.kind != "direct":
        return f"agent:{agent}:{place.target.provider}:channel:{place.target.id}"
    return (
        f"agent:{agent}:main" if direct == "main" else f"agent:{agent}:{author.target.provider}:user:{author.target.id}"
    )


def words_of(heard: Heard) -> str:
    """What the person wrote, or that they wrote nothing."""
    nothing = _ONLY_FORWARDED if heard.forwarded else _ONLY_FILES if heard.attachments else _NO_WORDS
    return own_words(heard.text) or nothing


def own_words(text: str) -> str:
    """What a person wrote. A line that looks like the one with which we begin somebody's words is quoted."""
    lines = text.strip().splitlines()
    if not any(map(_like_ours, lines)):
        return text.strip()
    return "\n".join(f"> {line}" if _like_ours(line) else line for line in lines)


def _like_ours(line: str) -> bool:
    """Does it look like `[discord:user:1 (Ann) writes, in a direct message:]`? In linear time, whatever it is."""
    start, end = 0, len(line)
    while start < end and not line[start].isalnum():
        start += 1
    while end > start and not line[end - 1].isalnum():
        end -= 1
    closing = line[end:]
    in_brackets = bool(_OPENING & set(line[:start])) and bool(_CLOSING & set(closing)) and ":" in closing
    return in_brackets and ("writes" in line or ":user:" in line)


def compose(
    heard: Heard, place: Place, session_key: str, around: Around, redact: Callable[[str], str] = lambda text: text
) -> NewRun:
    """The run. `place` is where it is answered: the message's own, or a thread made from it."""
    author = heard.author
    return NewRun(
        run_id=new_run_id(),
        source=RunSource.CHAT,
        name=shown_name(heard.author.name),
        caller=str(author.target),
        people=not author.bot,
        session_key=session_key,
        message=redact(words_of(heard)),
        options=RunOptions(
            to=str(author.target if place.kind == "direct" else place.target),
            origin=Origin(str(heard.place.target), heard.id, str(author.target), shown_name(author.name)),
            context=redact(_context(heard, around)),
            pictures=[file.picture for file in around.files if file.picture is not None],
        ),
        idempotency_key=key_of(author.target.provider, heard.id),
    )


def _context(heard: Heard, around: Around) -> str:
    """Who wrote, and what was said and sent around it. Only the words of the message itself are a request."""
    parts = []
    if around.parent:
        parts.append(as_data(around.parent, "the channel in which this thread was begun"))
    if around.before:
        parts.append(as_data("\n".join(map(line_of, around.before)), f"{where(heard.place)}, before the message below"))
    if answered := around.answers:
        text = _all_of(answered)
        text = text[:REPLY_CHARS] + ("…" if len(text) > REPLY_CHARS else "")
        parts.append(as_data(text, f"the message of {who(answered)} that the one below answers"))
    if heard.forwarded:
        parts.append(
            as_data(heard.forwarded, f"a message from elsewhere that {who(heard)} forwards with the one below")
        )
    for file in around.files:
        line = f"[file {shown_name(file.name)}: {file.note}]"
        parts.append(f"{line}\n{as_data(file.text, f'the file {shown_name(file.name)}')}" if file.text else line)
    at = time.strftime("%Y-%m-%d %H:%M", time.gmtime(heard.at))
    parts.append(f"[{who(heard)} writes, {where(heard.place)}, {at} UTC:]")
    return "\n\n".join(parts)


def who(heard: Heard) -> str:
    if heard.own:
        return "yours"
    kind = "the bot " if heard.author.bot else ""
    return f"{kind}{heard.author.target} ({shown_name(heard.author.name)})"


def where(place: Place) -> str:
    if place.kind == "direct":
        return "in a direct message"
    name = f"#{shown_name(place.name)} " if place.name else ""
    return f"in the {place.kind} {name}({place.target})"


def line_of(heard: Heard) -> str:
    """A message of the history on a line of its own; further lines of it are indented."""
    text = "\n    ".join(_all_of(heard).splitlines())
    return f"[{time.strftime('%H:%M', time.gmtime(heard.at))}] {who(heard)}: {text}"


def _all_of(heard: Heard) -> str:
    """What is in a message of others', its own words first."""
    return f"{heard.text}\n[forwarded] {heard.forwarded}".strip() if heard.forwarded else heard.text.strip()
