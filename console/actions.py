"""The one registry of what the operator can do: keys, footer, help, palette and read-only mode are made from it.

An action's handler is the method `do_<id>` of the screen in front, else of the app.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import msgspec


class Scope(StrEnum):
    """Where an action's keys work."""

    ANYWHERE = "anywhere"
    LISTS = "lists"
    FLEET = "fleet"
    LOGS = "logs"
    RUNS = "runs"
    RUN = "run"
    APPROVALS = "approvals"


class Danger(StrEnum):
    """What an action may change, and so how it is asked for."""

    READ = "read"
    """Nothing."""
    REVERSIBLE = "reversible"
    """Something `u` undoes, or that is only added: no question."""
    DISRUPTIVE = "disruptive"
    """Asked first: `y` or `n`; for the whole cluster its name is typed."""


class Situation(Protocol):
    """What `why_disabled` may look at."""

    @property
    def has_target(self) -> bool:
        """Is there an agent under the cursor or marked?"""
        ...

    @property
    def has_run(self) -> bool:
        """Is there a run under the cursor?"""
        ...

    @property
    def has_cancellable_run(self) -> bool: ...

    @property
    def has_approval(self) -> bool: ...

    @property
    def can_undo(self) -> bool: ...


def _never(_: Situation) -> str:
    return ""


class Action(msgspec.Struct, frozen=True):
    """One thing the operator can do."""

    id: str
    keys: tuple[str, ...]
    """Textual's names of its keys; the first is the one shown."""
    label: str
    """One word or two, for the footer and the palette."""
    help: str
    """One sentence."""
    scope: Scope
    danger: Danger = Danger.READ
    footer: bool = False
    """Shown in the footer of its scope, in the order of the registry, as far as there is room."""
    why_disabled: Callable[[Situation], str] = _never
    """Why it cannot be done now, or an empty text."""

    @property
    def writes(self) -> bool:
        return self.danger is not Danger.READ


def _need_agent(situation: Situation) -> str:
    return "" if situation.has_target else "no agent is chosen: move to one, or clear the filter with esc"


def _need_run(situation: Situation) -> str:
    return "" if situation.has_run else "there is no run here yet; `d` on an agent gives it one"


def _need_living_run(situation: Situation) -> str:
    return "" if situation.has_cancellable_run else "no run here is queued, running or waiting: nothing to cancel"


def _need_approval(situation: Situation) -> str:
    return "" if situation.has_approval else "nothing waits for an answer"


def _need_undo(situation: Situation) -> str:
    return "" if situation.can_undo else "nothing to undo: model swaps and heartbeat changes made here can be"


_A, _LI, _F, _LO, _R, _G = (
    Scope.ANYWHERE,
    Scope.LISTS,
    Scope.FLEET,
    Scope.LOGS,
    Scope.RUNS,
    Scope.APPROVALS,
)
_UNDOABLE, _ASKED = Danger.REVERSIBLE, Danger.DISRUPTIVE

ACTIONS: tuple[Action, ...] = (
    # fleet
    Action("delegate", ("d",), "Delegate", "Give the agent, or every marked agent, a piece of work.", _F, _UNDOABLE,
           True, _need_agent),
    Action("restart", ("r",), "Restart", "Restart the agent or the marked ones; their runs go on afterwards.", _F,
           _ASKED, True, _need_agent),
    Action("model", ("m",), "Model", "Choose the model of the agent's next turn; `u` goes back.", _F, _UNDOABLE, True,
           _need_agent),
    Action("agent_logs", ("l",), "Logs", "Read this agent's log.", _F, footer=True, why_disabled=_need_agent),
    Action("runs", ("t",), "Runs", "List the runs of all agents; enter reads an answer in full.", _A, footer=True),
    Action("approvals", ("g",), "Gates", "Answer what waits for a human: gates and dangerous tool calls.", _A,
           footer=True),
    Action("detail", ("enter",), "Detail", "Show everything about the agent.", _F, why_disabled=_need_agent),
    Action("mark", ("space",), "Mark", "Mark or unmark the agent; `d r s x h` then act on all marked ones.", _F,
           footer=True, why_disabled=_need_agent),
    Action("heartbeat", ("h",), "Heartbeat", "Switch the heartbeat on or off, change its interval, or beat now.", _F,
           _UNDOABLE, True, _need_agent),
    Action("start", ("s",), "Start", "Start the agent or the marked ones; revives a dead supervisor.", _F, _UNDOABLE,
           True, _need_agent),
    Action("stop", ("x",), "Stop", "Stop the agent or the marked ones; for all of them the cluster's name is typed.",
           _F, _ASKED, True, _need_agent),
    Action("mark_range", ("V",), "Range", "Mark from here to where `V` is pressed again.", _F,
           why_disabled=_need_agent),
    Action("mark_all", ("asterisk",), "Mark all", "Mark all agents shown, or clear all marks.", _F),
    Action("jump", ("apostrophe",), "Jump", "Type the beginning of a name to move there.", _F),
    Action("sort", ("o",), "Sort", "Sort by port, state, name or cost.", _F),
    Action("next_pane", ("tab",), "Pane", "Move between the agents, the log and the detail pane.", _F),
    # runs
    Action("read_run", ("enter",), "Read", "Read the run in full: answer, steps, usage, cost, delivery, children.", _R,
           footer=True, why_disabled=_need_run),
    Action("cancel_run", ("c",), "Cancel", "Cancel the run and what it delegated.", _R, _ASKED, True,
           _need_living_run),
    Action("whole", ("e",), "Expand", "Show long texts, arguments and results whole, or cut again.", Scope.RUN,
           footer=True),
    # approvals
    Action("approve", ("a",), "Approve", "Approve the question under the cursor.", _G, _UNDOABLE, True,
           _need_approval),
    Action("reject", ("n",), "Reject", "Reject it, with a reason.", _G, _UNDOABLE, True, _need_approval),
    Action("asking_run", ("enter",), "Run", "Read the run that asks.", _G, footer=True, why_disabled=_need_approval),
    # logs
    Action("follow", ("f",), "Follow", "Follow the newest line; scrolling up stops it.", _LO, footer=True),
    Action("level", ("e",), "Level", "Cycle the least level shown: debug, info, warning, error.", _LO, footer=True),
    Action("source", ("a",), "Source", "Cycle whose lines are shown: all agents, this one, the marked ones.", _LO,
           footer=True),
    Action("next_hit", ("n",), "Next hit", "Move to the next line that the filter matches, among all lines.", _LO),
    Action("previous_hit", ("N",), "Previous hit", "Move to the previous such line.", _LO),
    Action("wrap", ("W",), "Wrap", "Wrap long lines, or cut them.", _LO),
    Action("timestamps", ("T",), "Timestamps", "Show the time of each line, or not.", _LO),
    Action("save", ("S",), "Save", "Save the lines shown to a file in the home's `run/` folder.", _LO),
    Action("since_1", ("1",), "Since 1m", "Show the last minute.", _LO),
    Action("since_2", ("2",), "Since 5m", "Show the last five minutes.", _LO),
    Action("since_3", ("3",), "Since 15m", "Show the last quarter of an hour.", _LO),
    Action("since_4", ("4",), "Since 1h", "Show the last hour.", _LO),
    Action("since_5", ("5",), "Since ever", "Show all lines that are kept.", _LO),
    # lists
    Action("down", ("j", "down"), "Down", "Move down.", _LI),
    Action("up", ("k", "up"), "Up", "Move up.", _LI),
    Action("page_down", ("pagedown", "ctrl+f"), "Page down", "Move down a page.", _LI),
    Action("page_up", ("pageup", "ctrl+b"), "Page up", "Move up a page.", _LI),
    Action("first", ("home",), "First", "Move to the beginning.", _LI),
    Action("last", ("end", "G"), "Last", "Move to the end; in a log, follow it.", _LI),
    # anywhere
    Action("filter", ("slash",), "Filter", "Filter by regex; `!word` is its inverse, `@busy` a state; esc clears.", _A,
           footer=True),
    Action("palette", ("colon", "ctrl+p"), "Command", "Find any action by typing.", _A, footer=True),
    Action("help", ("question_mark",), "Help", "Show all keys.", _A, footer=True),
    Action("logs", ("L",), "All logs", "Read the logs of all agents, merged.", _A),
    Action("undo", ("u",), "Undo", "Undo the last model swap or heartbeat change made here.", _A, _UNDOABLE,
           why_disabled=_need_undo),
    Action("zoom", ("z",), "Zoom", "Give the pane with the focus the whole screen, and back.", _A),
    Action("copy", ("y",), "Copy", "Copy what is under the cursor, through the terminal (OSC 52) and tmux.", _A),
    Action("back", ("escape",), "Back", "Clear the filter, then the marks, then go back one screen.", _A,
           footer=True),
    Action("quit", ("q",), "Quit", "Leave the console; the agents go on.", _A, footer=True),
)  # fmt: skip

BY_ID = {action.id: action for action in ACTIONS}

SCOPE_TITLES = {
    Scope.FLEET: "Agents",
    Scope.RUNS: "Runs",
    Scope.RUN: "One run",
    Scope.APPROVALS: "Gates and approvals",
    Scope.LOGS: "Logs",
    Scope.LISTS: "Lists and pages",
    Scope.ANYWHERE: "Anywhere",
}

_KEY_NAMES = {
    "question_mark": "?",
    "colon": ":",
    "slash": "/",
    "apostrophe": "'",
    "asterisk": "*",
    "escape": "esc",
    "pagedown": "pgdn",
    "pageup": "pgup",
}


def key_name(key: str) -> str:
    """A key as it is written on a keyboard or in the help."""
    return _KEY_NAMES.get(key, key)


def allowed(*scopes: Scope, read_only: bool = False) -> list[Action]:
    """The actions of `scopes` in the registry's order; in read-only mode those that write are not among them."""
    return [a for a in ACTIONS if a.scope in scopes and not (read_only and a.writes)]


def key_table(read_only: bool = False) -> list[tuple[Scope, list[Action]]]:
    """All actions by scope, in the order of the help page."""
    return [(scope, allowed(scope, read_only=read_only)) for scope in SCOPE_TITLES]


def markdown_table() -> str:
    """The key table of `docs/console.md`."""
    lines = ["| where | key | what it does | asks first |", "|---|---|---|---|"]
    for scope, actions in key_table():
        for action in actions:
            keys = " ".join(f"`{key_name(key)}`" for key in action.keys)
            asks = "yes" if action.danger is Danger.DISRUPTIVE else ""
            lines.append(f"| {SCOPE_TITLES[scope]} | {keys} | {action.help} | {asks} |")
    return "\n".join(lines) + "\n"
