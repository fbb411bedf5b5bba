"""A local Discord for discord.py in a real process: REST under /api/v10, a gateway at /gw, faults on request.

`async with DiscordServer() as discord` runs it in the test's own loop; `DiscordProcess` and `DiscordThread` run it
beside the test and offer the same actions over the control API. `python -m tests.standins.discord --port N` is the
process by itself.
"""

from tests.standins.discord.remote import DiscordProcess, DiscordThread, Remote
from tests.standins.discord.server import DiscordServer
from tests.standins.discord.view import View

__all__ = ["DiscordProcess", "DiscordServer", "DiscordThread", "Remote", "View"]
