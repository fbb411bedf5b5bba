"""Style names of `console.show` as Rich styles, and the console's own theme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.style import Style
from textual.color import Color, ColorParseError
from textual.theme import Theme

if TYPE_CHECKING:
    from textual.app import App

THEME = Theme(
    name="atomizer",
    primary="#6cb6ff",
    secondary="#8ddb8c",
    warning="#e3b341",
    error="#ff7b72",
    success="#7ee787",
    accent="#79c0ff",
    foreground="#d3dae3",
    background="#0d1117",
    surface="#0d1117",
    panel="#1c2530",
    dark=True,
    variables={"muted": "#8794a3", "cursor": "#1f3d5c", "border": "#6cb6ff", "scrollbar": "#2d3b4a"},
)
SLOW_THEME = "ansi-dark"
"""The terminal's own sixteen colours: half the bytes."""

_NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "": ("", {}),
    "bold": ("", {"bold": True}),
    "dim": ("muted", {}),
    "ok": ("success", {}),
    "busy": ("accent", {"bold": True}),
    "warn": ("warning", {}),
    "bad": ("error", {"bold": True}),
    "head": ("primary", {"bold": True}),
    "key": ("accent", {"bold": True}),
    "hit": ("", {"reverse": True}),
}


class Palette:
    """`palette[name]` is a style; there are few names, and an unknown one is an error."""

    def __init__(self, app: App[Any]) -> None:
        variables, native = app.get_css_variables(), app.current_theme.ansi
        self._styles: dict[str, Style] = {}
        for name, (variable, flags) in _NAMES.items():
            color = _color(variables.get(variable, ""))
            if name == "dim" and native:
                flags = {"dim": True}
            self._styles[name] = Style(color=color.rich_color if color else None, **flags)
        back = None if native or app.no_color else _color(variables.get("cursor", ""))
        self.cursor = Style(bgcolor=back.rich_color) if back else Style(reverse=True)

    def __getitem__(self, name: str) -> Style:
        return self._styles[name]


def _color(value: str) -> Color | None:
    try:
        return Color.parse(value) if value else None
    except ColorParseError:
        return None
