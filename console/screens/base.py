"""What every screen of the console shares: the bars, the keys of its scopes, and how changes reach it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widget import Widget

from console.actions import ACTIONS, Scope, allowed
from console.rows import Changes
from console.show import Segments
from console.widgets.bars import Bar, footer_segments, status_segments, write_segments
from console.widgets.lines import LinePane

if TYPE_CHECKING:
    from console.app import ConsoleApp

TROUBLE_WAITS = 8.0
"""Seconds that the outcome of a write stays on screen before trouble takes its line."""
TOO_SMALL = "too small: the console needs 60x15"


class ConsoleScreen(Screen[None]):
    """A full screen. Its keys are those of `scopes` in the registry; handlers are its methods `do_<action id>`."""

    scopes: ClassVar[tuple[Scope, ...]] = (Scope.LISTS,)
    without: ClassVar[frozenset[str]] = frozenset()
    """Actions of the scopes that make no sense here."""
    without_footer: ClassVar[frozenset[str]] = frozenset()
    """Actions that its footer need not show."""
    hint: ClassVar[str] = ""
    """Shown above the footer while nothing was done yet."""
    hint_read_only: ClassVar[str] = ""
    """In its place where no key writes."""

    app: ConsoleApp

    def __init__(self, read_only: bool) -> None:
        super().__init__()
        self.actions = [a for a in allowed(*self.scopes, read_only=read_only) if a.id not in self.without]
        for action in self.actions:
            for key in action.keys:
                binding = Binding(key, f"app.perform({action.id!r})", action.label, show=False)
                self._bindings.key_to_bindings[key] = [binding]
        here = [*self.actions, *allowed(Scope.ANYWHERE, read_only=read_only)]
        self.footer_actions = sorted(
            (a for a in here if a.footer and a.id not in self.without_footer), key=ACTIONS.index
        )

    def compose(self) -> ComposeResult:
        yield Bar(id="status")
        yield from self.panes()
        yield Bar(id="writes")
        yield Bar(id="footer")
        yield Bar(id="too-small")

    def panes(self) -> Iterator[Widget]:
        """Between the bars."""
        raise NotImplementedError

    # the situation, for `why_disabled`

    @property
    def has_target(self) -> bool:
        return False

    @property
    def has_run(self) -> bool:
        return False

    @property
    def has_cancellable_run(self) -> bool:
        return False

    @property
    def has_approval(self) -> bool:
        return False

    @property
    def run_shown(self) -> str | None:
        """The run that this screen is about, if it is about one."""
        return None

    def shows_run(self, run_id: str) -> bool:
        """Is the end of this run told here already?"""
        return run_id == self.run_shown

    @property
    def can_undo(self) -> bool:
        return bool(self.app.operations.undos)

    # changes

    def on_mount(self) -> None:
        self.call_after_refresh(self.renew, None)

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self.renew, None)

    def on_resize(self) -> None:
        self.call_after_refresh(self.renew, None)

    def renew(self, changes: Changes | None) -> None:
        """Show what changed; None is everything."""
        if self.query("#too-small"):
            self.show_bars()
            self.show_changes(changes)

    def show_changes(self, changes: Changes | None) -> None:
        """The panes' part of `renew`."""

    def tick(self) -> None:
        """A second has passed: ages may read differently."""
        if self.query("#too-small"):
            self.show_bars()

    def show_bars(self) -> None:
        app, store = self.app, self.app.store
        totals = store.totals()
        width = self.size.width
        self.query_one("#status", Bar).set(
            status_segments(totals, app.host, width, store.clock(), app.read_only, store.supervisor)
        )
        writes, trouble = store.recent_writes(), app.trouble()
        if trouble and not (writes and store.clock() - writes[0].at < TROUBLE_WAITS):
            self.query_one("#writes", Bar).set(((" " + trouble, "bad"),))
        else:
            hint = self.hint_read_only if app.read_only else self.hint
            self.query_one("#writes", Bar).set(write_segments(writes, hint))
        self.query_one("#footer", Bar).set(footer_segments(self.footer_actions, width, totals.gates))
        words = " ".join(f"{count} {word}" for word, count in totals.words.items())
        self.query_one("#too-small", Bar).set(((f" {TOO_SMALL} | {words}", "warn"),))

    # moving

    def pane(self) -> LinePane:
        """The pane that `j` and `k` move: the focused one, else the first."""
        focused = self.focused
        return focused if isinstance(focused, LinePane) else self.query(LinePane).first()

    def do_down(self) -> None:
        self.pane().move(1)

    def do_up(self) -> None:
        self.pane().move(-1)

    def do_page_down(self) -> None:
        pane = self.pane()
        pane.move(pane.page)

    def do_page_up(self) -> None:
        pane = self.pane()
        pane.move(-pane.page)

    def do_first(self) -> None:
        self.pane().move_to_end(False)

    def do_last(self) -> None:
        self.pane().move_to_end(True)

    # what each screen may answer differently

    def clear_first(self) -> bool:
        """Clear a filter or the like; false if there was nothing, and so escape goes back."""
        return False

    def do_filter(self) -> None:
        self.app.tell("nothing to filter here")

    def do_zoom(self) -> None:
        self.app.tell("this pane has the whole screen already")

    def copy_text(self) -> str:
        """What `y` copies."""
        return "\n".join(self.pane().text_lines())


def section(title: str) -> Segments:
    return ((f" {title}", "head"),)
