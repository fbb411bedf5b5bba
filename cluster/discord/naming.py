"""Giving bots the names and pictures of their agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from cluster.discord.bot import SECONDS, Bot, explain
from cluster.discord.checking import AT_ONCE, Subject
from cluster.discord.identity import bad_name, picture_of, picture_state, set_name, set_picture
from runtime.discord_token import TokenError, clean_token
from runtime.home import Home, explain_os_error


class Named(msgspec.Struct, kw_only=True):
    """What became of one bot's name and picture, in sentences."""

    agent: str
    done: list[str] = msgspec.field(default_factory=list)
    failed: list[str] = msgspec.field(default_factory=list)


async def name_all(home: Home, api_base: str, subjects: Iterable[Subject], dry_run: bool) -> list[Named]:
    """One each, in order. `dry_run`: only say what would be done."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(subject: Subject) -> Named:
        async with gate:
            return await _name(home, api_base, subject, dry_run)

    return await asyncio.gather(*map(one, subjects))


async def _name(home: Home, api_base: str, subject: Subject, dry_run: bool) -> Named:
    row = Named(agent=subject.needs.agent)
    if subject.sharers:
        row.failed.append(f"not touched: it has the same token as {' and '.join(subject.sharers)}")
        return row
    try:
        token = clean_token(subject.token or "")
    except TokenError as error:
        row.failed.append(str(error))
        return row
    async with Bot(api_base) as bot:
        try:
            async with asyncio.timeout(SECONDS):
                await bot.login(token)
                await _set_name(bot, subject.needs.title, row, dry_run)
                await _set_picture(bot, home, row, dry_run)
        except OSError as error:
            if error.filename is None:
                row.failed.append(str(explain(error, row.agent)))
            else:
                row.failed.append(explain_os_error(error, "what was set cannot be remembered"))
        except Exception as error:  # the edge of one agent: whatever Discord answered; `explain` raises the rest
            row.failed.append(str(explain(error, row.agent)))
    return row


async def _set_name(bot: Bot, wanted: str, row: Named, dry_run: bool) -> None:
    before = bot.me.name
    if before == wanted:
        row.done.append(f"is called {wanted} already")
    elif problem := bad_name(wanted):
        row.failed.append(f"keeps the name {before}: {problem}; change [agent] title in its instance.toml")
    elif dry_run:
        row.done.append(f"would be called {wanted} instead of {before}")
    elif problem := await set_name(bot, wanted):
        row.failed.append(f"keeps the name {before}: {problem}")
    else:
        row.done.append(f"is now called {wanted} instead of {before}")


async def _set_picture(bot: Bot, home: Home, row: Named, dry_run: bool) -> None:
    state = picture_state(home, row.agent, bot.me)
    if picture_of(home, row.agent) is None:
        row.done.append("there is no picture for it")
    elif state == "ok":
        row.done.append("has its picture already")
    elif dry_run:
        row.done.append("would get its picture")
    elif problem := await set_picture(bot, home, row.agent):
        row.failed.append(f"keeps its picture: {problem}")
    else:
        instead = {"unknown": " in place of one that was not set from here", "differs": " in place of another"}
        row.done.append(f"has its picture now{instead.get(state, '')}")
