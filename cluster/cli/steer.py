"""`atomizer model`, `atomizer heartbeat` and `atomizer reload`."""

from __future__ import annotations

import sys

import click

from cluster.cli import exits
from cluster.cli.context import CommandFailure, Invocation, pass_invocation, shared_options


@click.command()
@click.argument("agent")
@click.argument("model", required=False, metavar="[MODEL]")
@click.option("--reset", "--undo", "reset", is_flag=True, help="Go back to the configured model.")
@shared_options
@pass_invocation
def model(call: Invocation, agent: str, model: str | None, reset: bool) -> None:
    """List an agent's models, or swap to one from its next turn on.

    \b
    Examples:
      atomizer model secretary
      atomizer model secretary google/gemini-3.8-flash
      atomizer model secretary --undo
    """
    from protocols.control import ModelChange, ModelChanged
    from protocols.status import AgentStatus

    if model and reset:
        raise click.UsageError("give a model or --undo, not both", click.get_current_context())
    ask = call.ask(agent)
    if model or reset:
        changed = ask.send("PUT", "/control/model", ModelChange(model=None if reset else model), ModelChanged)
        if changed.model == changed.previous:
            call.answer(changed, f"{agent}: {changed.model} as before; nothing was changed")
            return
        back = f"atomizer model {agent} {changed.undo or '--undo'}"
        call.answer(changed, f"{agent}: {changed.previous} -> {changed.model}, from its next turn (back: {back})")
        return
    found = ask.get("/status", AgentStatus).model

    def text() -> str:
        lines = [f"{agent}: {found.active} ({found.origin})" + (f": {found.reason}" if found.reason else "")]
        if found.active != found.configured:
            lines.append(f"configured: {found.configured}")
        width = max((len(choice.id) for choice in found.choices), default=0)
        for choice in found.choices:
            mark = ">" if choice.id == found.active else " " if choice.available else "x"
            why = [choice.reason] if choice.reason else []
            if choice.retires and choice.retires not in choice.reason:
                why.append(f"ends on {choice.retires}" + (f", then {choice.successor}" if choice.successor else ""))
            lines.append(f"{mark} {choice.id.ljust(width)}  {'; '.join(why)}".rstrip())
        return "\n".join(lines)

    call.answer({"ok": True, "agent": agent, "model": found}, text)


@click.command()
@click.argument("agent")
@click.argument("what", nargs=-1, metavar="[now | on | off | every SPAN]")
@shared_options
@pass_invocation
def heartbeat(call: Invocation, agent: str, what: tuple[str, ...]) -> None:
    """Show an agent's heartbeat, beat now, switch it on or off, or set its pace.

    \b
    Examples:
      atomizer heartbeat manager
      atomizer heartbeat manager now
      atomizer heartbeat manager every 10m
    """
    from protocols.control import Acted, HeartbeatChange
    from protocols.status import AgentStatus
    from runtime.config import parse_duration

    match what:
        case ():
            beat = call.ask(agent).get("/status", AgentStatus).heartbeat
            call.answer({"ok": True, "agent": agent, "heartbeat": beat}, lambda: f"{agent}: {_beat_words(beat)}")
            return
        case ("now",):
            acted = call.ask(agent).send("POST", "/control/heartbeat/now", {}, Acted)
        case ("on",) | ("off",):
            change = HeartbeatChange(enabled=what[0] == "on")
            acted = call.ask(agent).send("PUT", "/control/heartbeat", change, Acted)
        case ("every", span):
            try:
                seconds = parse_duration(span)
            except ValueError as error:
                raise click.UsageError(str(error), click.get_current_context()) from None
            change = HeartbeatChange(every_seconds=seconds)
            acted = call.ask(agent).send("PUT", "/control/heartbeat", change, Acted)
        case _:
            raise click.UsageError(
                f"{' '.join(what)!r} is none of: now, on, off, every SPAN (`every 10m`)", click.get_current_context()
            )
    call.answer(acted, f"{agent}: {acted.outcome}")


def _beat_words(beat: object) -> str:
    import time

    from cluster.cli.status import ago
    from protocols.status import HeartbeatStatus

    assert isinstance(beat, HeartbeatStatus)
    now = time.time()
    words = [f"{beat.state}, every {ago(beat.every_seconds)}"]
    if beat.last_at:
        words.append(f"last {ago(now - beat.last_at)} ago: {beat.last_outcome}")
    if beat.next_at:
        words.append(f"next in {ago(beat.next_at - now)}")
    if beat.failures:
        words.append(f"{beat.failures} failures in a row")
    if beat.reason:
        words.append(beat.reason)
    return "; ".join(words)


@click.command()
@click.argument("agents", nargs=-1, metavar="[AGENT...]")
@shared_options
@pass_invocation
def reload(call: Invocation, agents: tuple[str, ...]) -> None:
    """Have agents read their configuration and secrets again, all that run if none is named. Nothing is interrupted.

    \b
    Examples:
      atomizer reload
      atomizer reload secretary
    """
    from cluster.cli.access import running_agents
    from cluster.cli.context import classify
    from protocols.control import Acted
    from protocols.errors import AtomizerError

    named = [str(call.agent(agent).name) for agent in agents] or running_agents(call)
    if not named:
        raise CommandFailure("no agent runs: they read their configuration when they start", exits.UNREACHABLE, "down")
    outcomes: dict[str, str] = {}
    failures: dict[str, AtomizerError] = {}
    for agent in named:
        try:
            outcomes[agent] = call.ask(agent).send("POST", "/control/reload", {}, Acted).outcome
        except AtomizerError as error:
            failures[agent] = error
    failed = {agent: str(error) for agent, error in failures.items()}
    lines = [f"{agent}: {text}" for agent, text in (outcomes | failed).items()]
    call.answer({"ok": not failed, "reloaded": outcomes, "failed": failed}, "\n".join(lines))
    if failures:
        sys.exit(max(classify(error)[0] for error in failures.values()))
