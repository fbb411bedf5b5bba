"""The wire as a real gateway speaks it: both clients, the event stream and its own description."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from protocols.client import GatewayClient
from protocols.control import HeartbeatChange, LogList, SessionList
from protocols.errors import ProtocolError
from protocols.events import HelloEvent, RunEvent, StatusEvent, StepEvent
from protocols.health import SERVICE, Health, Ready
from protocols.hooks import AgentHook
from protocols.runs import Run, RunState
from protocols.status import AgentStatus
from tests.conftest import ClusterHome
from tests.gateway.process import GatewayProcess, running
from tests.openapi import check_openapi


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    home = ClusterHome(("manager", "webster"))
    try:
        with running(home, "webster") as (process,):
            yield process
    finally:
        home.close()


@pytest.fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[GatewayClient]:
    async with aiohttp.ClientSession() as session:
        yield GatewayClient(session, gateway.port, gateway.home.token())


def test_everything_it_answers_is_of_our_types(gateway: GatewayProcess) -> None:
    ask = gateway.ask
    assert ask.get("/health", Health).service == SERVICE
    assert ask.get("/ready", Ready) == Ready(ready=True)
    assert ask.get("/status", AgentStatus).agent == "webster"
    assert ask.get("/logs?level=debug", LogList).lines
    assert isinstance(ask.get("/sessions", SessionList).sessions, list)


def test_its_description_is_sound_and_names_every_call_of_the_design(gateway: GatewayProcess) -> None:
    document: dict[str, Any] = gateway.ask.get("/openapi.json", dict)
    check_openapi(document)
    calls = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert calls >= {
        "GET /health",
        "GET /ready",
        "GET /status",
        "GET /metrics",
        "POST /hooks/agent",
        "POST /hooks/wake",
        "GET /hooks/runs",
        "GET /hooks/runs/{id}",
        "POST /hooks/runs/{id}/cancel",
        "GET /events",
        "GET /logs",
        "GET /sessions",
        "GET /sessions/{key}",
        "PUT /control/model",
        "PUT /control/heartbeat",
        "POST /control/heartbeat/now",
        "POST /control/drain",
        "POST /control/reload",
        "GET /approvals",
        "POST /approvals/{id}",
        "GET /openapi.json",
    }
    assert "202" in document["paths"]["/hooks/agent"]["post"]["responses"]


async def test_a_run_is_seen_from_queued_to_its_end(client: GatewayClient) -> None:
    states: list[RunState] = []
    stepped = 0
    last_id = None
    async with asyncio.timeout(20), contextlib.aclosing(client.events()) as events:
        assert isinstance((await anext(events))[1], HelloEvent)
        assert isinstance((await anext(events))[1], StatusEvent)
        accepted = await client.delegate(AgentHook(message="status", idempotency_key="seen"))
        async for ident, event in events:
            last_id = ident or last_id
            stepped += isinstance(event, StepEvent) and event.run_id == accepted.run_id
            if isinstance(event, RunEvent) and event.run.run_id == accepted.run_id:
                states.append(event.run.state)
            if states and states[-1].ended and stepped:
                break
    assert states[0] is RunState.QUEUED
    assert states[-1] is RunState.SUCCEEDED
    run = await client.run(accepted.run_id, wait=5)
    assert isinstance(run, Run)
    assert run.text.startswith("[offline]")
    assert 1 <= stepped <= len(run.steps)
    assert (await client.transcript(run.session_key)).messages[0].role == "user"
    async with asyncio.timeout(20), contextlib.aclosing(client.events(last_id)) as events:
        async for ident, event in events:
            assert ident is None or int(ident.rpartition("-")[2]) > int(str(last_id).rpartition("-")[2])
            if isinstance(event, StatusEvent):
                break


async def test_control_is_decoded_and_refusals_are_told(client: GatewayClient) -> None:
    changed = await client.set_model("offline/echo")
    assert (changed.model, changed.undo) == ("offline/echo", None)
    assert (await client.set_model(changed.undo)).model == changed.previous
    assert (await client.set_heartbeat(HeartbeatChange(every_seconds=3600))).ok
    with pytest.raises(ProtocolError) as caught:
        await client.set_model("nobody/nothing")
    assert (caught.value.status, caught.value.code) == (400, "unknown_provider")
    with pytest.raises(ProtocolError) as caught:
        await client.run("run-0000000000")
    assert (caught.value.status, caught.value.code) == (404, "unknown_run")


async def test_a_viewer_reads_and_an_agent_sees_its_own(gateway: GatewayProcess) -> None:
    async with aiohttp.ClientSession() as session:
        viewer = GatewayClient(session, gateway.port, gateway.home.token("viewer"))
        manager = GatewayClient(session, gateway.port, gateway.home.token("manager"))
        assert (await viewer.status()).agent == "webster"
        with pytest.raises(ProtocolError, match="a viewer reads"):
            await viewer.delegate(AgentHook(message="x"))
        with pytest.raises(ProtocolError, match="for the operator and viewers"):
            await anext(manager.events())
        mine = (await manager.delegate(AgentHook(message="status"))).run_id
        assert [run.run_id for run in (await manager.runs()).runs] == [mine]
