"""`/control/...`, `/approvals`, `/sessions`, `/logs`: what the operator changes and reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from aiohttp import web

from gateway.agent.approvals import Approvals
from gateway.agent.heartbeat import Heartbeat
from gateway.ledger.conversations import LAST
from gateway.ledger.reading import Reader
from gateway.ledger.transcript import as_jsonl, as_markdown, markdown_head
from gateway.models.models import Models
from protocols.approvals import Approval, ApprovalAnswer, ApprovalList
from protocols.control import (
    Acted,
    HeartbeatChange,
    LogList,
    ModelChange,
    ModelChanged,
    SessionList,
    Transcript,
    TranscriptMessage,
)
from protocols.errors import ProtocolError
from protocols.events import LogEvent
from runtime.logs import LEVELS, tail
from runtime.service.app import Access, Call, Route

_FORMATS = {"markdown": "text/markdown", "jsonl": "application/jsonl"}
"""Exports of a session -> their media types."""
PAGE_MESSAGES = 200
MOST_MESSAGES = 1000
"""Messages of a page: where nothing else is asked for, and at most."""
_OFTEN_SECONDS = 60.0
"""Below it a heartbeat's pace is told as what it comes to in a day."""
_DAY_SECONDS = 86400.0

_PAGE = {
    "limit": f"how many messages, the newest; {PAGE_MESSAGES} by default, all of them in an export",
    "before": "the page before: `before` of an answer",
    "format": "json (the default), or an export: markdown, jsonl",
}


class ControlApi:
    """What the operator does to one agent."""

    def __init__(
        self,
        agent: str,
        reader: Reader,
        models: Models,
        heartbeat: Heartbeat,
        approvals: Approvals,
        log_path: Path,
        *,
        set_heartbeat: Callable[[HeartbeatChange], None],
        on_model: Callable[[], None],
        drain: Callable[[], None],
        draining: Callable[[], bool],
        reload: Callable[[], Awaitable[str]],
    ) -> None:
        self._agent = agent
        self._reader = reader
        self._models = models
        self._heartbeat = heartbeat
        self._approvals = approvals
        self._log_path = log_path
        self._set_heartbeat = set_heartbeat
        self._on_model = on_model
        self._drain = drain
        self._draining = draining
        self._reload = reload

    def routes(self) -> list[Route]:
        op, watch = Access.OPERATOR, Access.WATCH
        logs = {"level": "least level", "since": "unix seconds", "limit": "how many, the newest"}
        return [
            Route(
                "PUT", "/control/model", self.model, op, "Swap the model from the next turn on", ModelChanged,
                body=ModelChange,
            ),
            Route(
                "PUT", "/control/heartbeat", self.heartbeat, op, "Switch or pace the heartbeat", Acted,
                body=HeartbeatChange,
            ),
            Route("POST", "/control/heartbeat/now", self.beat, op, "Beat at once", Acted),
            Route("POST", "/control/drain", self.drain, op, "Take no more work until a restart", Acted),
            Route("POST", "/control/reload", self.reload, op, "Read configuration and secrets again", Acted),
            Route("GET", "/approvals", self.approvals, Access.ANY, "Questions that wait for a person", ApprovalList),
            Route(
                "POST", "/approvals/{id}", self.answer, op, "Answer a question", Approval, body=ApprovalAnswer
            ),
            Route("GET", "/sessions", self.sessions, watch, "Conversations", SessionList),
            Route(
                "GET", "/sessions/{key:.+}", self.session, watch, "One conversation", Transcript,
                query=_PAGE,
            ),
            Route("GET", "/logs", self.logs, watch, "Log lines, oldest first", LogList, query=logs),
        ]  # fmt: skip

    async def model(self, call: Call) -> ModelChanged:
        change = await call.body(ModelChange)
        changed = self._models.swap(change.model)
        self._on_model()
        return changed

    async def heartbeat(self, call: Call) -> Acted:
        change = await call.body(HeartbeatChange)
        if change.enabled is None and change.every_seconds is None:
            raise ProtocolError(400, "nothing_to_do", "give `enabled`, `everySeconds`, or both")
        self._set_heartbeat(change)
        config = self._heartbeat.config
        state = f"every {config.every:.0f} s" if self._heartbeat.on else "off"
        model = config.model or self._models.status().active
        if self._heartbeat.on and config.every < _OFTEN_SECONDS and not model.startswith("offline/"):
            beats = f"at most {_DAY_SECONDS / config.every:,.0f} beats a day"
            state += (
                f": {beats}, each at least one call of {model}, which may cost money; [budget] limits what a day costs"
            )
        return Acted(ok=True, outcome=f"the heartbeat is {state}")

    async def beat(self, call: Call) -> Acted:
        if self._draining():
            raise ProtocolError(
                503,
                "draining",
                f"{self._agent} is draining: no run starts until it is restarted",
                headers={"Retry-After": "5"},
            )
        return Acted(ok=True, outcome=self._heartbeat.beat_now())

    async def drain(self, call: Call) -> Acted:
        self._drain()
        return Acted(
            ok=True,
            outcome="draining: no run starts until this gateway is restarted; those under way end within 10 s or go"
            " back into the queue",
        )

    async def reload(self, call: Call) -> Acted:
        return Acted(ok=True, outcome=await self._reload())

    async def approvals(self, call: Call) -> ApprovalList:
        return ApprovalList(approvals=self._approvals.list(every=call.query("all") in ("1", "true")))

    async def answer(self, call: Call) -> Approval:
        answer = await call.body(ApprovalAnswer)
        return await self._approvals.answer(
            call.part("id"),
            approve=answer.decision == "approve",
            revision=answer.revision,
            by=call.caller,
            reason=answer.reason,
        )

    async def sessions(self, call: Call) -> SessionList:
        return SessionList(sessions=self._reader.conversations.sessions())

    async def session(self, call: Call) -> Transcript | web.StreamResponse:
        key, form = call.part("key"), call.query("format") or "json"
        if form not in ("json", *_FORMATS):
            raise ProtocolError(400, "bad_query", f"query `format`: {form!r} is none of json, {', '.join(_FORMATS)}")
        limit = int(call.number("limit", PAGE_MESSAGES, 1, MOST_MESSAGES))
        before = None if call.query("before") is None else int(call.number("before", 0, 0, LAST))
        conversations = self._reader.conversations
        if not conversations.exists(key):
            raise ProtocolError(404, "unknown_session", f"there is no session {key!r}; GET /sessions lists them")
        if form != "json" and before is None and call.query("limit") is None:
            return await self._export(call.request, key, form, conversations.pages(key))
        messages, earlier = conversations.page(key, limit, before)
        if form == "json":
            return Transcript(key=key, messages=messages, before=earlier)
        return await self._export(call.request, key, form, iter([messages]))

    async def _export(
        self, request: web.Request, key: str, form: str, pages: Iterator[list[TranscriptMessage]]
    ) -> web.StreamResponse:
        """As a document, sent page by page: a gateway holds one of them at a time, however long the session is."""
        response = web.StreamResponse(headers={"Content-Type": f"{_FORMATS[form]}; charset=utf-8"})
        await response.prepare(request)
        if form == "markdown":
            await response.write(markdown_head(key, self._agent).encode())
        run_id = ""
        for page in pages:
            pieces = as_jsonl(page) if form == "jsonl" else as_markdown(self._agent, page, run_id)
            await response.write((await asyncio.to_thread("".join, pieces)).encode())
            run_id = page[-1].run_id if page else run_id
        await response.write_eof()
        return response

    async def logs(self, call: Call) -> LogList:
        level = call.query("level") or "info"
        if level not in LEVELS:
            raise ProtocolError(400, "bad_query", f"query `level`: {level!r} is none of {', '.join(LEVELS)}")
        since = call.number("since", 0.0, 0.0, 1e12)
        limit = int(call.number("limit", 200, 1, 5000))
        lines = await asyncio.to_thread(tail, self._log_path, level=level, since=since, limit=limit)
        return LogList(
            lines=[
                LogEvent(
                    at=line.at,
                    agent=self._agent,
                    level=line.level,
                    logger=line.logger,
                    message=line.message,
                    run_id=line.run_id,
                )
                for line in lines
            ]
        )
