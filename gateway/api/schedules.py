"""`/schedules`: what an agent will begin by itself, read and changed by the operator."""

from __future__ import annotations

from gateway.agent.schedule import Scheduler, ScheduleRefused
from gateway.agent.timing import TimingError
from gateway.ledger.reading import Reader
from protocols.control import Acted
from protocols.errors import ProtocolError
from protocols.schedules import NewSchedule, Schedule, ScheduleChange, ScheduleList
from runtime.service.app import Access, Call, Route


class SchedulesApi:
    """The schedules of one agent."""

    def __init__(self, agent: str, scheduler: Scheduler, reader: Reader) -> None:
        self._agent = agent
        self._scheduler = scheduler
        self._reader = reader

    def routes(self) -> list[Route]:
        op, watch = Access.OPERATOR, Access.WATCH
        return [
            Route("GET", "/schedules", self.list, watch, "What begins by itself, the next first", ScheduleList),
            Route("POST", "/schedules", self.add, op, "Keep a schedule", Schedule, body=NewSchedule),
            Route(
                "PUT", "/schedules/{id}", self.change, op, "Switch a schedule on or off", Schedule, body=ScheduleChange
            ),
            Route("DELETE", "/schedules/{id}", self.remove, op, "Remove a schedule; its runs stay", Acted),
        ]

    async def list(self, call: Call) -> ScheduleList:
        return ScheduleList(schedules=self._reader.schedules.all())

    async def add(self, call: Call) -> tuple[int, Schedule]:
        new = await call.body(NewSchedule)
        try:
            return 201, await self._scheduler.add(new, by=call.caller)
        except TimingError as error:
            raise ProtocolError(400, "bad_time", str(error)) from None
        except ScheduleRefused as error:
            raise ProtocolError(400, "bad_schedule", str(error)) from None

    async def change(self, call: Call) -> Schedule:
        change = await call.body(ScheduleChange)
        try:
            changed = await self._scheduler.enable(call.part("id"), change.enabled)
        except (ScheduleRefused, TimingError) as error:
            raise ProtocolError(409, "nothing_to_come", str(error)) from None
        if changed is None:
            raise self._unknown(call.part("id"))
        return changed

    async def remove(self, call: Call) -> Acted:
        if not await self._scheduler.remove(call.part("id")):
            raise self._unknown(call.part("id"))
        return Acted(ok=True, outcome=f"{call.part('id')} is removed")

    def _unknown(self, schedule_id: str) -> ProtocolError:
        return ProtocolError(
            404, "unknown_schedule", f"{self._agent} has no schedule {schedule_id!r}; GET /schedules lists them"
        )
