"""`/pairings`: whose direct messages are answered, read and taken back by the operator."""

from __future__ import annotations

from gateway.channels.pairing import paired_mark, paired_people
from gateway.ledger.ledger import Ledger
from gateway.ledger.reading import Reader
from protocols.control import Acted
from protocols.errors import ProtocolError
from protocols.pairings import Pairing, PairingList
from protocols.targets import TargetError, parse_target
from runtime.service.app import Access, Call, Route


class PairingsApi:
    """The pairings of one agent."""

    def __init__(self, agent: str, ledger: Ledger, reader: Reader) -> None:
        self._agent = agent
        self._ledger = ledger
        self._reader = reader

    def routes(self) -> list[Route]:
        op = Access.OPERATOR
        return [
            Route("GET", "/pairings", self.list, op, "Whose direct messages are answered", PairingList),
            Route("DELETE", "/pairings/{target}", self.remove, op, "Make somebody a stranger again", Acted),
        ]

    async def list(self, call: Call) -> PairingList:
        people = paired_people(self._reader.posts)
        return PairingList(
            pairings=[
                Pairing(target=str(person), name=paired.name, approved_by=paired.by, approved_at=paired.at)
                for person, paired in people
            ]
        )

    async def remove(self, call: Call) -> Acted:
        text = call.part("target")
        try:
            person = parse_target(text)
        except TargetError as error:
            raise ProtocolError(400, "bad_target", str(error)) from None
        if person.kind != "user":
            raise ProtocolError(400, "bad_target", f"{text!r} is no person: write {person.provider}:user:<id>")
        if not await self._ledger.posts.unmark(paired_mark(person)):
            raise ProtocolError(
                404, "unknown_pairing", f"{person} is not paired with {self._agent}; GET /pairings lists who is"
            )
        return Acted(ok=True, outcome=f"{person} is not paired any more")
