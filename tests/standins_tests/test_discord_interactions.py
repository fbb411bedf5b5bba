"""Slash commands, buttons and modals of the Discord stand-in, answered by discord.py."""

from __future__ import annotations

from collections.abc import AsyncIterator

import discord
import pytest
from discord import app_commands

from tests.standins_tests.bot import Bot, connected
from tests.standins_tests.conftest import World


class Asking(discord.ui.Modal, title="Why?"):
    reason: discord.ui.TextInput = discord.ui.TextInput(label="Reason", custom_id="reason")

    async def on_submit(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_message(f"because {self.reason.value}")


class Buttons(discord.ui.View):
    def __init__(self) -> None:
        super().__init__(timeout=None)

    @discord.ui.button(label="Approve", custom_id="approve:1")
    async def approve(self, interaction: discord.Interaction, button: discord.ui.Button[Buttons]) -> None:
        await interaction.response.edit_message(content=f"approved by {interaction.user.name}", view=None)

    @discord.ui.button(label="Reject", custom_id="reject:1")
    async def reject(self, interaction: discord.Interaction, button: discord.ui.Button[Buttons]) -> None:
        await interaction.response.send_modal(Asking())

    @discord.ui.button(label="Later", custom_id="later:1")
    async def later(self, interaction: discord.Interaction, button: discord.ui.Button[Buttons]) -> None:
        await interaction.response.defer()
        await interaction.followup.send("noted", ephemeral=True)


@pytest.fixture
async def bot(world: World) -> AsyncIterator[Bot]:
    async with connected(world.token) as client:
        tree = app_commands.CommandTree(client)
        guild = discord.Object(int(world.guild))

        @tree.command(guild=guild, description="How it goes")
        async def status(interaction: discord.Interaction) -> None:
            await interaction.response.defer(ephemeral=True)
            await interaction.followup.send("all is well")

        @tree.command(guild=guild, description="Begin anew")
        async def new(interaction: discord.Interaction, title: str, whom: discord.User | None = None) -> None:
            sent = await interaction.response.send_message(f"{title} for {whom}")
            assert sent.message_id is not None
            await interaction.edit_original_response(content=f"{title} for {whom}!")

        @tree.command(guild=guild, description="For operators")
        @app_commands.default_permissions(manage_guild=True)
        async def stop(interaction: discord.Interaction) -> None:
            await interaction.response.send_message("stopped")

        beats = app_commands.Group(name="heartbeat", description="The heartbeat")

        @beats.command(description="Not for a while")
        async def pause(interaction: discord.Interaction, minutes: int) -> None:
            await interaction.response.send_message(f"pausing {minutes} min")

        tree.add_command(beats, guild=guild)
        await tree.sync(guild=guild)
        client.add_view(Buttons())
        yield client


class TestCommands:
    async def test_commands_are_registered_once_per_sync(self, world: World, bot: Bot) -> None:
        [synced] = world.discord.view.events("commands")
        assert synced["names"] == ["status", "new", "stop", "heartbeat"]
        assert synced["guild"] == world.guild

    async def test_a_deferred_answer_is_for_one_person_only(self, world: World, bot: Bot) -> None:
        asked = world.discord.slash("research", "antoine", "webster", "status")
        answer = await world.discord.wait_for(
            lambda view: (row := view.interaction(asked)["response"]) and not row["loading"] and row
        )
        assert (answer["content"], answer["ephemeral"], answer["author"]) == ("all is well", True, "webster")
        channel = bot.get_partial_messageable(world.research)
        assert [m async for m in channel.history()] == []

    async def test_options_arrive_and_the_answer_is_edited(self, world: World, bot: Bot) -> None:
        asked = world.discord.slash("research", "antoine", "webster", "new", {"title": "work", "whom": "berta"})
        answer = await world.discord.wait_for(
            lambda view: (row := view.interaction(asked)["response"]) and row["edits"] and row
        )
        assert answer["content"] == "work for berta!"
        assert answer["interaction"]["user"]["username"] == "antoine"

    async def test_a_subcommand(self, world: World, bot: Bot) -> None:
        asked = world.discord.slash("research", "antoine", "webster", "heartbeat pause", {"minutes": 5})
        answer = await world.discord.wait_for(lambda view: view.interaction(asked)["response"])
        assert answer["content"] == "pausing 5 min"

    async def test_a_command_in_a_dm_is_not_a_guild_s(self, world: World, bot: Bot) -> None:
        with pytest.raises(LookupError, match="no command /status"):
            world.discord.slash(world.discord.dm_channel("antoine", "webster"), "antoine", "webster", "status")

    async def test_what_discord_s_client_would_not_offer(self, world: World, bot: Bot) -> None:
        with pytest.raises(LookupError, match="lacks the permissions"):
            world.discord.slash("research", "antoine", "webster", "stop")
        with pytest.raises(LookupError, match="missing"):
            world.discord.slash("research", "antoine", "webster", "new")
        with pytest.raises(LookupError, match="no command"):
            world.discord.slash("research", "antoine", "webster", "nothing")

    async def test_an_answer_comes_once_and_in_time(self, world: World, bot: Bot) -> None:
        world.discord.slash("research", "antoine", "webster", "heartbeat pause", {"minutes": 1})
        await bot.until(lambda: bot.interactions)
        await world.discord.wait_for(lambda view: view.events("answered"))
        again = bot.interactions[0].response
        again._response_type = None  # the server is asked, not the library
        with pytest.raises(discord.HTTPException) as error:
            await again.send_message("once more")
        assert error.value.code == 40060

        async with connected(world.bots["manager"]["token"]) as silent:
            world.discord.add_role("operator", ["manage_guild"])
            await silent.http.bulk_upsert_global_commands(
                silent.application_id or 0, [{"name": "wait", "description": "for long"}]
            )
            world.discord.slash("research", "antoine", "manager", "wait")
            await silent.until(lambda: silent.interactions)
            world.discord.advance(4)
            with pytest.raises(discord.NotFound) as late:
                await silent.interactions[0].response.send_message("late")
            assert late.value.code == 10062


class TestButtons:
    @pytest.fixture
    async def question(self, world: World, bot: Bot) -> str:
        return str((await bot.get_partial_messageable(world.research).send("May I?", view=Buttons())).id)

    async def test_a_button_changes_its_message(self, world: World, question: str) -> None:
        world.discord.press(question, "antoine", "Approve")
        row = await world.discord.wait_for(lambda view: (r := view.message(question))["edits"] and r)
        assert (row["content"], row["components"]) == ("approved by antoine", [])
        with pytest.raises(LookupError, match="no button"):
            world.discord.press(question, "berta", "Approve")

    async def test_a_follow_up_for_the_one_who_pressed(self, world: World, question: str) -> None:
        pressed = world.discord.press(question, "antoine", "later:1")
        [row] = await world.discord.wait_for(lambda view: view.interaction(pressed)["followups"])
        assert (row["content"], row["ephemeral"]) == ("noted", True)
        assert world.discord.view.message(question)["content"] == "May I?"

    async def test_a_modal_is_shown_and_sent(self, world: World, question: str) -> None:
        pressed = world.discord.press(question, "antoine", "Reject")
        await world.discord.wait_for(lambda view: view.interaction(pressed)["modal"])
        sent = world.discord.submit(pressed, {"reason": "of the cost"})
        answer = await world.discord.wait_for(lambda view: view.interaction(sent)["response"])
        assert answer["content"] == "because of the cost"
