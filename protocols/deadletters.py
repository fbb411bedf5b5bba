"""Dead letters: what could not be delivered, kept whole, as `GET /dead-letters` shows it."""

from __future__ import annotations

from protocols.hooks import Wire


class DeadLetter(Wire):
    """One effect that ended undelivered (`dead`), or of which nobody knows (`unknown`)."""

    id: int
    run_id: str
    kind: str
    """`deliver` (a run's answer), `message` (sent by the message tool), `report` or `log`."""
    state: str
    target: str | None
    text: str
    """What was to be sent, whole."""
    detail: str
    """Why it was not."""
    attempts: int
    created_at: float
    finished_at: float | None = None


class DeadLetterList(Wire):
    letters: list[DeadLetter]
    total: int


class Replay(Wire):
    """Body of `POST /dead-letters/{id}/replay`."""

    to: str | None = None
    """Another target, `provider:kind:id`; default the same again."""


class Replayed(Wire):
    ok: bool
    outcome: str
    letter: DeadLetter
