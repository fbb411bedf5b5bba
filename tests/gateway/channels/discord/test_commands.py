"""Slash commands and buttons."""

from __future__ import annotations

import asyncio

import pytest

from gateway.channels.channel import Button, CommandOption, CommandSpec, Post
from tests.gateway.channels.discord.conftest import Bot

STATUS = CommandSpec("status", "How it stands")
MODEL = CommandSpec("model", "Another model", (CommandOption("name", "Which", True, ("a/b", "c/d")),))


def puts(bot: Bot) -> int:
    return len(bot.discord.view.requests("PUT", "/applications/*/guilds/*/commands"))


async def connect_with(bot: Bot, *commands: CommandSpec) -> None:
    await bot.channel.sync(commands)
    await bot.connect()
    await bot.ear.until(lambda: bot.channel.ready)
    await bot.discord.wait_for(lambda view: puts(bot) or bot.facts)


class TestSync:
    async def test_they_are_registered_in_the_server(self, bot: Bot) -> None:
        await connect_with(bot, STATUS, MODEL)
        rows = bot.discord.view.bot("webster")["commands"][bot.world["guild"]]
        assert [(row["name"], row["description"]) for row in rows] == [
            ("status", "How it stands"),
            ("model", "Another model"),
        ]
        [option] = rows[1]["options"]
        assert (option["name"], option["required"], [c["value"] for c in option["choices"]]) == (
            "name",
            True,
            ["a/b", "c/d"],
        )

    async def test_only_when_they_changed(self, bot: Bot) -> None:
        await connect_with(bot, STATUS)
        await bot.end()
        bot.channel = bot.new_channel()  # another process with the same memory
        await bot.channel.sync([STATUS])
        await bot.connect()
        await asyncio.sleep(0.2)
        assert puts(bot) == 1
        await bot.channel.sync([STATUS, MODEL])
        await bot.discord.wait_for(lambda view: puts(bot) == 2)

    async def test_not_in_servers_of_others(self, bot: Bot) -> None:
        other = bot.discord.add_guild("Elsewhere")
        bot.discord.join_guild("webster", other)
        await connect_with(bot, STATUS)
        assert list(bot.discord.view.bot("webster")["commands"]) == [bot.world["guild"]]

    async def test_in_a_server_that_it_is_invited_to_later(self, bot: Bot) -> None:
        other = bot.discord.add_guild("Elsewhere")
        await bot.channel.sync([STATUS])
        bot.begin(guilds=frozenset())
        await bot.state("ready")
        bot.discord.join_guild("webster", other)
        await bot.discord.wait_for(lambda view: set(view.bot("webster")["commands"]) == {bot.world["guild"], other})

    async def test_what_did_not_work_is_shown_and_tried_with_the_next_connection(self, bot: Bot) -> None:
        bot.discord.fault("PUT", "/applications/*", status=403, code=50001)
        await bot.channel.sync([STATUS])
        await bot.connect()
        await bot.ear.until(lambda: "not registered" in bot.channel.status().detail)
        assert bot.channel.status().state == "ready"
        bot.discord.close("webster", 4000)
        await bot.discord.wait_for(lambda view: "status" in str(view.bot("webster")["commands"]))


@pytest.fixture
async def on(bot: Bot) -> Bot:
    await connect_with(bot, STATUS, MODEL)
    return bot


class TestCommands:
    async def test_one_is_acknowledged_and_handed_on(self, on: Bot) -> None:
        id = on.discord.slash("webster", "antoine", "webster", "model", {"name": "a/b"})
        [command] = await on.ear.until(lambda: on.ear.commands)
        assert (command.name, command.arguments, command.author.target) == ("model", {"name": "a/b"}, on.person())
        assert (command.place.target, command.place.guild) == (on.place("webster"), on.world["guild"])
        assert on.discord.view.interaction(id)["callback"] == 5

    async def test_the_answer_is_for_the_asker_alone(self, on: Bot) -> None:
        id = on.discord.slash("webster", "antoine", "webster", "status")
        [command] = await on.ear.until(lambda: on.ear.commands)
        await command.reply("up")
        await command.reply("x" * 2500)
        shown = on.discord.view.messages("webster", "webster")
        assert [(len(m["content"]), m["ephemeral"]) for m in shown] == [(2, True), (2000, True), (500, True)]
        assert on.discord.view.interaction(id)["callback"] == 5

    async def test_a_button_survives_a_restart(self, on: Bot) -> None:
        posted = await on.channel.send(on.place("webster"), Post("May I?", buttons=[Button("ok:7", "Yes", "good")]))
        await on.end()
        on.channel = on.new_channel()
        on.begin()
        await on.state("ready")
        id = on.discord.press(posted.message_id, "antoine", "ok:7")
        [command] = await on.ear.until(lambda: on.ear.commands)
        assert (command.name, command.arguments) == ("button", {"id": "ok:7"})
        await command.reply("thanks")
        assert on.discord.view.message(posted.message_id)["content"] == "May I?"
        assert on.discord.view.interaction(id)["callback"] == 6

    async def test_somebody_in_another_server_is_refused(self, on: Bot) -> None:
        other = on.discord.add_guild("Elsewhere")
        channel = on.discord.add_channel("lobby", guild=other)
        on.discord.add_user("stranger", guild=other)
        on.discord.join_guild("webster", other)
        on.discord.find_bot("webster").commands[other] = on.discord.find_bot("webster").commands[on.world["guild"]]
        on.discord.slash(channel, "stranger", "webster", "status")
        await on.discord.wait_for(lambda view: "do not take commands" in str(view.texts(channel)))
        assert on.ear.commands == []

    async def test_one_that_cannot_be_acknowledged_is_not_carried_out(self, on: Bot) -> None:
        on.discord.fault("POST", "/interactions/*", status=404, code=10062)
        on.discord.slash("webster", "antoine", "webster", "status")
        on.discord.slash("webster", "antoine", "webster", "model", {"name": "a/b"})
        await on.ear.until(lambda: on.ear.commands)
        assert [command.name for command in on.ear.commands] == ["model"]
