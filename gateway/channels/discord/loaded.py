"""All of this package that needs the library: imported in one go, in a thread, before the first connection."""

from gateway.channels.discord import client, interactions, resolving, speaking, verdicts

__all__ = ["client", "interactions", "resolving", "speaking", "verdicts"]
