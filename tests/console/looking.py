"""What tests read off the screen."""

from __future__ import annotations

from textual.events import Key

from console.app import ConsoleApp
from console.widgets.bars import Bar
from console.widgets.lines import Page


def table(app: ConsoleApp) -> str:
    return "\n".join(app.fleet.table.text_lines())


def bar(app: ConsoleApp, name: str) -> str:
    return app.front.query_one(f"#{name}", Bar).text


def page(app: ConsoleApp) -> str:
    """The text page of the screen in front; nothing while that is still being made."""
    return "\n".join(line for pane in app.screen.query(Page) for line in pane.text_lines())


def key(name: str) -> Key:
    """A key press as the terminal sends it."""
    return Key(name, name)
