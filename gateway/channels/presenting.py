"""An answer as it is posted: its tables readable, in messages, or as a file with its beginning."""

from __future__ import annotations

from gateway.channels.delivery import Part
from gateway.channels.files import as_file
from gateway.channels.splitting import split
from gateway.channels.tables import readable
from runtime.config_discord import InstanceDiscordTable


def parts_of(text: str, table: InstanceDiscordTable, limit: int) -> list[Part]:
    """The messages of an answer, each of at most `limit` characters; none for a blank one."""
    parts = split(readable(text), limit, table.lines)
    long = as_file(text, parts, most=table.file_over)
    return [Part(part) for part in parts] if long is None else [Part(long.lead, [long.file])]
