"""The text of a Discord bot's token: what can be one."""

from __future__ import annotations

import re

from protocols.errors import AtomizerError

SECRET = "discord"
"""The name of the secret among those of its agent."""

_USUAL = re.compile(r"[\w-]{20,}\.[\w-]{5,}\.[\w-]{20,}")


class TokenError(AtomizerError):
    """Text that cannot be a bot's token; the message says why and never shows it."""


def clean_token(text: str) -> str:
    """The token without surrounding white space; raises TokenError."""
    token = text.strip()
    if token.lower().startswith("bot "):
        raise TokenError("the Discord token begins with `Bot `: store only what the portal shows, without that word")
    if not token:
        raise TokenError("the Discord token is empty: copy it again from the portal, Bot page")
    if any(letter.isspace() for letter in token):
        raise TokenError("the Discord token has spaces or line breaks in it: copy it again from the portal, Bot page")
    if not token.isascii() or not token.isprintable():
        raise TokenError("the Discord token has letters that no token has: copy it again from the portal, Bot page")
    return token


def looks_usual(token: str) -> bool:
    """Does it have the shape of today's tokens? Discord promises none, so this is worth a warning and no more."""
    return _USUAL.fullmatch(token) is not None
