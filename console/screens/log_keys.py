"""What screens with a log share: the handlers of the scope `logs`."""

from __future__ import annotations

import time

from console.dialogs.line import LineDialog
from console.filters import Filter
from console.screens.base import ConsoleScreen
from console.show import LEVELS, clock
from console.widgets.log_view import SINCE, LogView
from protocols.text import printable_row
from runtime.home import write_atomic


class LogKeys(ConsoleScreen):
    """Handlers for the keys of a log pane called `#log`."""

    @property
    def log_view(self) -> LogView:
        return self.query_one("#log", LogView)

    def sources(self) -> list[tuple[str, frozenset[str] | None]]:
        """(name, agents) that `a` cycles through; None is all."""
        return [(f"all ({len(self.app.store.agents)})", None)]

    def do_follow(self) -> None:
        self.log_view.set_following(not self.log_view.following)

    def do_level(self) -> None:
        view = self.log_view
        view.level = LEVELS[(LEVELS.index(view.level) + 1) % len(LEVELS)]
        view.reset()

    def do_source(self) -> None:
        view, choices = self.log_view, self.sources()
        names = [agents for _, agents in choices]
        place = names.index(view.sources) + 1 if view.sources in names else 0
        view.source_name, view.sources = choices[place % len(choices)]
        view.reset()

    def do_next_hit(self) -> None:
        self._hit(1)

    def do_previous_hit(self) -> None:
        self._hit(-1)

    def _hit(self, step: int) -> None:
        view = self.log_view
        if not view.filter:
            self.app.tell("nothing is searched: `/` on the log first")
        elif not view.next_hit(step):
            self.app.tell(f"no line matches {view.filter.source}")

    def do_wrap(self) -> None:
        self.log_view.wrapped = not self.log_view.wrapped
        self.log_view.reset()

    def do_timestamps(self) -> None:
        self.log_view.timestamps = not self.log_view.timestamps
        self.log_view.reset()

    def do_since_1(self) -> None:
        self._since("1")

    def do_since_2(self) -> None:
        self._since("2")

    def do_since_3(self) -> None:
        self._since("3")

    def do_since_4(self) -> None:
        self._since("4")

    def do_since_5(self) -> None:
        self._since("5")

    def _since(self, key: str) -> None:
        self.log_view.since = SINCE[key]
        self.log_view.reset()

    def do_save(self) -> None:
        lines = self.log_view.lines_shown()
        path = self.app.cluster.home.run / time.strftime("console-log-%Y%m%d-%H%M%S.txt")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            text = "".join(f"{clock(x.at)} {x.level:7} {x.agent:15} {printable_row(x.text)}\n" for x in lines)
            write_atomic(path, text, mode=0o600)
        except OSError as error:
            self.app.tell(f"cannot save to {path}: {error.strerror}", "error")
            return
        self.app.tell(f"{len(lines)} lines saved to {path}")

    def filter_log(self) -> None:
        view = self.log_view
        before = view.filter

        def changed(text: str) -> None:
            view.set_filter(Filter(text))

        def ended(text: str | None) -> None:
            changed(before.source if text is None else text)
            if view.filter.problem:
                self.app.tell(view.filter.problem, "warning")

        self.app.push_screen(
            LineDialog("log filter /", before.source, "regex, !inverse, @error; enter keeps, esc leaves", changed),
            ended,
        )

    def clear_log_filter(self) -> bool:
        view = self.log_view
        if not view.filter:
            return False
        view.set_filter(Filter())
        return True

    def log_text(self) -> str:
        return "\n".join(f"{clock(x.at)} {x.level} {x.agent} {x.text}" for x in self.log_view.lines_shown())
