"""What can be done to agents, wherever one is chosen: handlers of the scope `fleet`."""

from __future__ import annotations

from console.dialogs.confirm import ConfirmDialog, TypedConfirmDialog
from console.dialogs.pick import Choice, PickDialog, fitting
from console.rows import AgentState, Write, WriteState
from console.screens.base import ConsoleScreen
from console.show import plural, span
from protocols.control import HeartbeatChange
from runtime.config import parse_duration


class AgentKeys(ConsoleScreen):
    """Handlers that act on `targets`, or on `current` where only one makes sense."""

    @property
    def targets(self) -> list[str]:
        """The agents that an action is for."""
        raise NotImplementedError

    @property
    def current(self) -> str | None:
        """The agent under the cursor."""
        raise NotImplementedError

    @property
    def has_target(self) -> bool:
        return bool(self.targets)

    # work

    def do_delegate(self) -> None:
        from console.dialogs.delegate import DelegateDialog

        app = self.app
        names = self._switched_on(self.targets)
        if not names:
            return
        notes = []
        if off := len(self.targets) - len(names):
            notes.append(f"{off} marked and switched off: left out")
        absent = [n for n in names if not app.store.agents[n].live]
        if absent:
            notes.append(f"not up: {', '.join(absent)}")
        if any((s := app.store.agents[n].status) and s.model.offline for n in names):
            notes.append("offline profile: answers come from retrieval, no model is asked")
        app.ask(DelegateDialog(app.draft, names, notes), lambda _: app.send_draft())

    # processes

    def do_restart(self) -> None:
        self._ask_first("restart", self._switched_on(self.targets))

    def do_stop(self) -> None:
        self._ask_first("stop", self._switched_on(self.targets))

    async def do_start(self) -> None:
        await self._supervise("start", self._switched_on(self.targets))

    def _switched_on(self, names: list[str]) -> list[str]:
        """`names` without those that are switched off; if that is all of them, say how to switch one on."""
        on = [n for n in names if self.app.store.agents[n].word != "off"]
        if names and not on:
            self.app.tell(f"{names[0]} is switched off; `atomizer agent enable {names[0]}` switches it on", "warning")
        return on

    async def _supervise(self, verb: str, names: list[str]) -> None:
        if names:
            for write in await self.app.operations.supervise(verb, names):
                if write.state is not WriteState.DONE:
                    self.app.tell(f"{verb} {write.agent}: {write.detail}", "error")
                    break

    def _ask_first(self, verb: str, names: list[str]) -> None:
        """Ask, then do; more than one agent: Cancel is focused; stopping all: the cluster's name is typed."""
        app = self.app
        if not names:
            return
        on = [a.name for a in app.store.agents.values() if a.enabled]
        if verb == "stop" and len(names) > 1 and set(on) <= set(names):
            question = f"Stop the whole cluster, {plural(len(names), 'agent')}?"
            app.ask(TypedConfirmDialog(verb, question, app.cluster.name), lambda _: self._supervise(verb, names))
            return
        question = f"{verb.capitalize()} {names[0] if len(names) == 1 else plural(len(names), 'agent')}?"
        consequences = [", ".join(names)] if len(names) > 1 else []
        consequences += [text for n in names if (text := at_work(app.store.agents[n], verb))]
        dialog = ConfirmDialog(verb.capitalize(), question, consequences, cancel_first=len(names) > 1)
        app.ask(dialog, lambda _: self._supervise(verb, names))

    # model

    def do_model(self) -> None:
        name, app = self.current, self.app
        status = app.store.agents[name].status if name else None
        if name is None or status is None:
            app.tell(f"{name} has not been heard yet, so its models are not known", "warning")
            return
        model = status.model
        choices = [Choice("", "as configured", f"{model.configured}; undoes an override")]
        for choice in model.choices:
            notes = ["now"] if choice.id == model.active else []
            if choice.retires:
                then = f", then {choice.successor}" if choice.successor else ""
                notes.append(f"ends {choice.retires}{then}")
            blocked = "" if choice.available else choice.reason or "not available"
            notes += [choice.reason] if choice.available and choice.reason else []
            choices.append(Choice(choice.id, choice.id, "; ".join(notes), blocked))
        title = f"Model of {name}, from its next turn"
        if not app.store.agents[name].live:
            title += " (this list is the last that was heard)"

        async def picked(model_id: str) -> None:
            self._report(await app.operations.set_model(name, model_id or None), "`u` goes back")

        app.ask(PickDialog(title, lambda typed: fitting(typed, choices), "type to narrow", model.active), picked)

    # heartbeat

    def do_heartbeat(self) -> None:
        name, app = self.current, self.app
        status = app.store.agents[name].status if name else None
        if name is None or status is None:
            app.tell(f"{name} has not been heard yet, so its heartbeat is not known", "warning")
            return
        beat = status.heartbeat
        now = f"{beat.state}, every {span(beat.every_seconds)}" if beat.enabled else "off"
        if beat.reason:
            now += f" ({beat.reason})"

        async def picked(key: str) -> None:
            if key == "now":
                self._report(await app.operations.beat_now(name))
                return
            switch = HeartbeatChange(enabled=key == "on")
            change = switch if key in ("on", "off") else HeartbeatChange(enabled=True, every_seconds=float(key))
            self._report(await app.operations.set_heartbeat(name, change), "`u` undoes")

        title = f"Heartbeat of {name}: {now}"
        app.ask(PickDialog(title, lambda t: beats(t, beat.enabled), "an interval, e.g. 20m"), picked)

    def _report(self, write: Write, then: str = "") -> None:
        good = write.state in (WriteState.DONE, WriteState.ACCEPTED)
        text = f"{write.agent}: {write.label}: {write.state.value}"
        text += f", {write.detail}" if write.detail else ""
        self.app.tell(text + (f"; {then}" if good and then else ""), "information" if good else "error")


def at_work(agent: AgentState, verb: str) -> str:
    """What a restart or stop would interrupt, or an empty text."""
    if not agent.live or agent.status is None or not agent.status.current:
        return ""
    run = agent.status.current[0]
    more = f" and {len(agent.status.current) - 1} more" if len(agent.status.current) > 1 else ""
    after = "goes on after it" if verb == "restart" else "goes on when it is started again"
    return f"{agent.name} is at work: {run.task}{more}; this {after}."


def beats(typed: str, enabled: bool) -> list[Choice]:
    """The choices of the heartbeat dialog; an interval that was typed is the first."""
    choices = [
        Choice("now", "beat now", "one beat at once, whatever the interval"),
        Choice("off", "switch off", "no beats until it is switched on") if enabled else Choice("on", "switch on"),
        *(Choice(str(parse_duration(every)), f"every {every}") for every in ("5m", "15m", "30m", "1h", "4h")),
    ]
    try:
        seconds = parse_duration(typed)
    except ValueError:
        return fitting(typed, choices)
    problem = "" if 1 <= seconds <= 7 * 86400 else "between 1s and 7d"
    return [Choice(str(seconds), f"every {typed.strip()}", "as typed", problem)]
