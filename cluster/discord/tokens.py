"""The tokens of a home's bots, compared without being shown."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.discord_token import SECRET
from runtime.secrets import Secrets, token_hash


def holders(secrets: Secrets, token: str, agents: Iterable[str]) -> list[str]:
    """Those of `agents` whose stored token is this one. Two gateways with one token both answer every message."""
    wanted = token_hash(token.strip())
    return [agent for agent in agents if (other := secrets.get(agent, SECRET)) and token_hash(other) == wanted]
