"""schedule: work for this agent itself, at its time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from gateway.agent.schedule import Scheduler, ScheduleRefused, when_text
from gateway.agent.timing import TimingError
from gateway.agent.tool import BaseTool, Replay, ToolContext, ToolError, decode_arguments, spec_of
from gateway.ledger.reading import Reader
from protocols.runs import one_line
from protocols.schedules import Missed, NewSchedule, Schedule

_Work = Annotated[str, msgspec.Meta(max_length=20_000)]
_When = Annotated[str, msgspec.Meta(max_length=200)]


class ScheduleArguments(msgspec.Struct, forbid_unknown_fields=True):
    action: Annotated[Literal["add", "list", "remove", "enable", "disable"], msgspec.Meta(description="What to do")]
    id: Annotated[str | None, msgspec.Meta(description="For remove, enable, disable: the schedule's id")] = None
    message: Annotated[_Work | None, msgspec.Meta(description="For add: the work, complete in itself")] = None
    name: Annotated[str, msgspec.Meta(max_length=80, description="For add: a short name")] = ""
    at: Annotated[_When | None, msgspec.Meta(description="Once: an ISO time, 2026-12-01T09:00")] = None
    every: Annotated[_When | None, msgspec.Meta(description="Repeated: a duration, 90m; at least 1m")] = None
    cron: Annotated[_When | None, msgspec.Meta(description="Repeated: minute hour day month weekday")] = None
    tz: Annotated[str | None, msgspec.Meta(description="Time zone, Europe/Berlin")] = None
    to: Annotated[str | None, msgspec.Meta(description="Target of the answers, provider:kind:id")] = None
    missed: Annotated[Missed | None, msgspec.Meta(description="Due while down: run once, or skip")] = None


class ScheduleTool(BaseTool):
    """Adds once for its key; the other actions set the same state again."""

    spec = spec_of(
        "schedule",
        "Give yourself work at a time: add (with message and one of at, every, cron), list, remove, enable, disable.",
        ScheduleArguments,
    )
    replay = Replay.KEYED
    subject_field = "action"

    def __init__(self, scheduler: Scheduler, reader: Reader, agent: str) -> None:
        self._scheduler = scheduler
        self._reader = reader
        self._agent = agent

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: ScheduleArguments = decode_arguments(ScheduleArguments, arguments, "schedule")
        try:
            if asked.action == "add":
                return await self._add(asked, context)
            if asked.action == "list":
                lines = [describe(s) for s in self._reader.schedules.all()]
                return "\n".join(lines) or "there are no schedules"
            return await self._change(asked)
        except (TimingError, ScheduleRefused) as error:
            raise ToolError(str(error)) from None

    async def _add(self, asked: ScheduleArguments, context: ToolContext) -> str:
        if not (asked.message or "").strip():
            raise ToolError("tool schedule: add needs `message`, the work to do")
        if context.run.source.value in ("schedule", "heartbeat") and (asked.every or asked.cron):
            raise ToolError("a run that nobody watches may add only `at`; ask for the repeated one in your answer")
        new = NewSchedule(
            message=asked.message or "",
            name=asked.name,
            at=asked.at,
            every=asked.every,
            cron=asked.cron,
            tz=asked.tz,
            to=asked.to,
            missed=asked.missed,
            idempotency_key=context.key,
        )
        return f"kept: {describe(await self._scheduler.add(new, by=self._agent))}"

    async def _change(self, asked: ScheduleArguments) -> str:
        if asked.id is None:
            raise ToolError(f"tool schedule: {asked.action} needs `id`; action list shows them")
        if asked.action == "remove":
            gone = await self._scheduler.remove(asked.id)
            return f"{asked.id} is removed" if gone else f"there is no schedule {asked.id}"
        changed = await self._scheduler.enable(asked.id, asked.action == "enable")
        if changed is None:
            raise ToolError(f"there is no schedule {asked.id!r}; action list shows them")
        return describe(changed)


def describe(schedule: Schedule) -> str:
    """A schedule on one line."""
    next_at = when_text(schedule.next_at, schedule.tz) if schedule.enabled else "off"
    return (
        f"{schedule.id} | {schedule.kind} {schedule.spec} ({schedule.tz}) | next: {next_at}"
        f" | {one_line(schedule.message, 120)}"
    )
