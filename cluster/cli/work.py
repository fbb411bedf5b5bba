"""`atomizer delegate`, `runs` and `run`."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from cluster.cli import exits
from cluster.cli.context import CommandFailure, Invocation, json_text, pass_invocation, shared_options
from cluster.cli.run_page import reason_of, run_page
from protocols.text import printable

if TYPE_CHECKING:
    from protocols.runs import Run, RunSummary

T = TypeVar("T")

POLL_SECONDS = 20.0
"""One long poll; a gateway answers earlier when the run ends."""
FIRST_POLL_SECONDS = 2.0
"""The first one, so that who waits soon hears why there is no answer."""
ABSENCE_SECONDS = 90.0
"""How long a gateway may be away while we wait: its restart with the longest backoff, and some."""


@click.command()
@click.argument("agent")
@click.argument("text")
@click.option("--wait", is_flag=True, help="Wait until the run has ended, and print its answer.")
@click.option("--session", metavar="KEY", help="Continue this conversation instead of a fresh one.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Seconds that --wait waits at most."
)
@click.option("--key", metavar="KEY", help="Idempotency key: a repeat gives the same run, not a second one.")
@click.option("--deliver/--no-deliver", default=True, help="Also send the answer to the agent's channel.")
@shared_options
@pass_invocation
def delegate(
    call: Invocation,
    agent: str,
    text: str,
    wait: bool,
    session: str | None,
    timeout: float | None,
    key: str | None,
    deliver: bool,
) -> None:
    """Give an agent a piece of work. TEXT `-` reads it from stdin.

    With --wait the exit code tells how the run ended: 0 succeeded, 1 failed, 5 not ended within --timeout (it goes on).

    \b
    Examples:
      atomizer delegate webster "Find the CTE of Zerodur Class 0 between 20 and 40 C" --wait
      atomizer delegate manager - --wait --json < request.txt
      atomizer delegate webster "nightly check" --key nightly-2026-11-25
    """
    from protocols.hooks import AgentAccepted, AgentHook
    from protocols.runs import RunState

    message = sys.stdin.read() if text == "-" else text
    if not message.strip():
        raise click.UsageError("the text is empty", click.get_current_context())
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is how long --wait waits; give both", click.get_current_context())
    began = time.monotonic()
    ask = call.ask(agent)
    # A key of our own makes it safe to ask again where the answer was lost.
    hook = AgentHook(
        message=message,
        name="atomizer delegate",
        session_key=session,
        idempotency_key=key or _fresh_key(),
        deliver=deliver,
    )
    accepted = _retrying(
        call, agent, lambda: ask.send("POST", "/hooks/agent", hook, AgentAccepted), ABSENCE_SECONDS if wait else 1.0
    )
    if key and RunState(accepted.status).ended:
        call.note(f"the key {key} names this run already; no other was begun")
    if not wait:
        call.answer(
            accepted, f"{accepted.run_id} {accepted.status} (atomizer run show {accepted.run_id} --agent {agent})"
        )
        return
    run = wait_for(call, agent, accepted.run_id, None if timeout is None else began + timeout)
    if call.json:
        click.echo(json_text(run))
    elif run.state == "succeeded":
        click.echo(printable(run.text) if sys.stdout.isatty() else run.text)
    if run.state != "succeeded" and not call.json:
        raise CommandFailure(f"{run.run_id} {run.state}: {reason_of(run)}", exits.FAILED, "run_failed")
    sys.exit(exits.OK if run.state == "succeeded" else exits.FAILED)


def wait_for(call: Invocation, agent: str, run_id: str, until: float | None) -> Run:
    """The run once it has ended, through restarts of its gateway; raises CommandFailure at `until` (monotonic)."""
    from protocols.runs import Run, RunState

    ask = call.ask(agent)
    told: set[str] = set()
    poll = FIRST_POLL_SECONDS
    while True:
        left = poll if until is None else min(poll, until - time.monotonic())
        poll = POLL_SECONDS
        if left <= 0:
            raise CommandFailure(
                f"{run_id} has not ended in time and goes on; see `atomizer run show {run_id} --agent {agent}`",
                exits.TIMEOUT,
                "timeout",
            )
        patience = ABSENCE_SECONDS if until is None else min(ABSENCE_SECONDS, until - time.monotonic())
        run = _retrying(call, agent, functools.partial(ask.run, run_id, wait=max(0.1, left)), patience)
        assert isinstance(run, Run)
        if run.state.ended:
            return run
        if run.state is RunState.WAITING and run.reason not in told:
            told.add(run.reason)
            mend = "; `atomizer approvals` shows what a person is asked" if run.reason.startswith("approval ") else ""
            call.note(f"{run_id} is waiting: {run.reason}{mend}")


def _retrying(call: Invocation, agent: str, attempt: Callable[[], T], patience: float) -> T:
    """What `attempt` answers, tried again for `patience` seconds while the gateway is away and may come back."""
    from protocols.errors import ProtocolError, Unreachable

    until = time.monotonic() + patience
    while True:
        try:
            return attempt()
        except (Unreachable, ProtocolError) as error:
            draining = isinstance(error, ProtocolError) and error.status == 503
            if time.monotonic() >= until or not (draining or isinstance(error, Unreachable)):
                raise
            call.revive()
            _raise_if_down(call, agent)
        time.sleep(0.25)


def _raise_if_down(call: Invocation, agent: str) -> None:
    """Raises CommandFailure if nobody is going to start this agent."""
    if why := call.why_down(agent):
        raise CommandFailure(f"{agent} is down ({why}); `atomizer start {agent}`", exits.UNREACHABLE, "agent_down")


@click.command()
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Newest runs to show.")
@shared_options
@pass_invocation
def runs(call: Invocation, agents: tuple[str, ...], limit: int) -> None:
    """List runs, newest last, of some agents or all that answer.

    \b
    Examples:
      atomizer runs
      atomizer runs webster --limit 5 --json
    """
    from protocols.errors import Unreachable
    from protocols.runs import RunList

    names: list[str] = [call.agent(name).name for name in agents] or [spec.name for spec in call.cluster.enabled]
    found: list[RunSummary] = []
    away: dict[str, str] = {}
    for name in names:
        try:
            found += call.ask(name).get(f"/hooks/runs?limit={limit}", RunList).runs
        except Unreachable as error:
            if agents:
                raise
            away[name] = str(error)
    if away and len(away) == len(names):
        raise CommandFailure("no agent answers; `atomizer up` starts them", exits.UNREACHABLE, "unreachable")
    found = sorted(found, key=lambda run: run.created_at)[-limit:]
    for silent in away:
        call.note(f"{silent} does not answer")
    call.answer({"ok": True, "runs": found, "unreachable": away}, lambda: "\n".join(_line(run) for run in found))


@click.group()
@shared_options
def run() -> None:
    """Show, cancel, export or replay one run.

    \b
    Examples:
      atomizer run show run-0193c1f2b3a4d5e6f7a8b
      atomizer run cancel run-0193c1f2b3a4d5e6f7a8b
    """


@run.command()
@click.argument("run_id")
@click.option("--agent", help="Whose run it is; without it all that answer are asked.")
@click.option("--full", is_flag=True, help="Arguments and results of the steps whole, not folded.")
@shared_options
@pass_invocation
def show(call: Invocation, run_id: str, agent: str | None, full: bool) -> None:
    """Show a run: its state, steps with their time and cost, delivery and answer.

    \b
    Examples:
      atomizer run show run-0193c1f2b3a4d5e6f7a8b
      atomizer run show run-0193c1f2b3a4d5e6f7a8b --full
    """
    found = _find(call, run_id, agent, whole=full)
    call.answer(found, lambda: run_page(found, full))


@run.command()
@click.argument("run_id")
@click.option("--agent", help="Whose run it is; without it all that answer are asked.")
@shared_options
@pass_invocation
def cancel(call: Invocation, run_id: str, agent: str | None) -> None:
    """Cancel a run, and what it delegated.

    \b
    Example:
      atomizer run cancel run-0193c1f2b3a4d5e6f7a8b
    """
    from protocols.control import Acted

    found = _find(call, run_id, agent)
    acted = call.ask(found.agent).send("POST", f"/hooks/runs/{run_id}/cancel", {}, Acted)
    call.answer(acted, f"{run_id}: {acted.outcome}")


@run.command()
@click.argument("run_id")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Where to; default RUN_ID.json here.")
@click.option("--agent", help="Whose run it is; without it all that answer are asked.")
@shared_options
@pass_invocation
def export(call: Invocation, run_id: str, output: str | None, agent: str | None) -> None:
    """Save a run as one file, to be replayed later or elsewhere.

    \b
    Example:
      atomizer run export run-0193c1f2b3a4d5e6f7a8b -o odd-answer.json
    """
    from pathlib import Path

    import msgspec

    from protocols.recordings import Recording
    from runtime.home import explain_os_error, write_atomic

    found = _find(call, run_id, agent)
    recording = call.ask(found.agent).get(f"/hooks/runs/{run_id}/recording", Recording)
    path = Path(output or f"{run_id}.json").absolute()
    try:
        write_atomic(path, msgspec.json.format(msgspec.json.encode(recording), indent=1), mode=0o600)
    except OSError as error:
        raise CommandFailure(explain_os_error(error, "the run was not saved"), exits.FAILED, "not_saved") from None
    call.answer({"ok": True, "file": str(path)}, f"saved to {path}; `atomizer run replay {path}` goes through it again")


@run.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--prompt", is_flag=True, help="Compare the system prompt with what this home makes today, too.")
@shared_options
@pass_invocation
def replay(call: Invocation, file: str, prompt: bool) -> None:
    """Go through a saved run step by step, without a model, a tool or a network.

    Ends with 1 where today's code goes another way than was recorded.

    \b
    Examples:
      atomizer run replay odd-answer.json
      atomizer run replay odd-answer.json --prompt
    """
    import os
    import sys

    compared = ["--home", str(call.home.root)] if prompt else []
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "gateway.replay", os.path.abspath(file), *compared])


def _find(call: Invocation, run_id: str, agent: str | None, whole: bool = False) -> Run:
    from protocols.errors import ProtocolError, Unreachable
    from protocols.runs import Run

    names = [call.agent(agent).name] if agent else [spec.name for spec in call.cluster.enabled]
    away = 0
    for name in names:
        try:
            found = call.ask(name).run(run_id, whole=whole)
            assert isinstance(found, Run)
            return found
        except Unreachable:
            if agent:
                raise
            away += 1
        except ProtocolError as error:
            if agent or error.status != 404:
                raise
    if away:
        raise CommandFailure(
            f"no run {run_id} at the agents that answer; {away} of {len(names)} do not",
            exits.UNREACHABLE,
            "unreachable",
        )
    raise CommandFailure(f"no agent has a run {run_id}; `atomizer runs` lists them", exits.REFUSED, "not_found")


def _line(run: RunSummary) -> str:
    at = time.strftime("%m-%d %H:%M:%S", time.localtime(run.created_at))
    tail = run.preview if run.state == "succeeded" else run.reason
    return f"{at}  {run.run_id}  {run.state:<9}  {run.agent}  {run.task}" + (f"  => {tail}" if tail else "")


def _fresh_key() -> str:
    import os

    return f"cli-{os.urandom(12).hex()}"
