"""`/dead-letters`: what could not be delivered, read and sent again by the operator."""

from __future__ import annotations

from gateway.channels.outbox import Outbox
from gateway.ledger.ledger import Ledger
from gateway.ledger.letters import MESSAGES
from gateway.ledger.reading import Reader
from protocols.deadletters import DeadLetter, DeadLetterList, Replay, Replayed
from protocols.errors import ProtocolError
from protocols.targets import TargetError, parse_target
from runtime.service.app import Access, Call, Route

_LOOK_SECONDS = 2.0
"""So long a replay waits to say what became of the letter."""


class DeadLettersApi:
    """The dead letters of one agent."""

    def __init__(self, agent: str, ledger: Ledger, reader: Reader, outbox: Outbox) -> None:
        self._agent = agent
        self._ledger = ledger
        self._reader = reader
        self._outbox = outbox

    def routes(self) -> list[Route]:
        limit = {"limit": "how many, newest first"}
        return [
            Route(
                "GET",
                "/dead-letters",
                self.list,
                Access.WATCH,
                "What could not be delivered, newest first",
                DeadLetterList,
                query=limit,
            ),
            Route(
                "POST",
                "/dead-letters/{id}/replay",
                self.replay,
                Access.OPERATOR,
                "Send a dead letter again",
                Replayed,
                body=Replay,
            ),
        ]

    async def list(self, call: Call) -> DeadLetterList:
        letters, total = self._reader.letters.dead(int(call.number("limit", 50, 1, 500)))
        return DeadLetterList(letters=letters, total=total)

    async def replay(self, call: Call) -> Replayed:
        asked = await call.body(Replay)
        letter = self._find(call.part("id"))
        if asked.to is not None:
            self._check(letter, asked.to)
        done = await self._ledger.letters.replay(letter.id, asked.to, call.caller)
        if done != "again":
            raise ProtocolError(409, "not_dead", f"letter {letter.id} is {letter.state}; only dead ones are sent again")
        await self._outbox.settled(self._reader.letters.key_of(letter.id), _LOOK_SECONDS)
        now = self._find(call.part("id"))
        return Replayed(ok=True, outcome=f"{now.state}: {now.detail}" if now.detail else now.state, letter=now)

    def _find(self, text: str) -> DeadLetter:
        letter = self._reader.letters.find(int(text)) if text.isascii() and text.isdigit() and len(text) < 18 else None
        if letter is None:
            raise ProtocolError(404, "unknown_letter", f"{self._agent} has no dead letter {text!r}; GET /dead-letters")
        return letter

    @staticmethod
    def _check(letter: DeadLetter, to: str) -> None:
        if letter.kind not in MESSAGES:
            raise ProtocolError(400, "bad_target", f"letter {letter.id} is a {letter.kind}, which goes nowhere else")
        try:
            parse_target(to)
        except TargetError as error:
            raise ProtocolError(400, "bad_target", f"field `to`: {error}") from None
