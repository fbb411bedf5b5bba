"""skill: the body of a skill, when a task calls for it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec

from gateway.agent.skills import SkillError, Skills
from gateway.agent.tool import BaseTool, Replay, ToolContext, ToolError, decode_arguments, spec_of


class SkillArguments(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, description="A name from the list of skills")]


class ReadSkill(BaseTool):
    """Shows a skill; its other files are for read_file."""

    spec = spec_of(
        "skill",
        "Read one of your skills: how a kind of work is done here. Read it before you begin such work.",
        SkillArguments,
    )
    replay = Replay.SAFE
    parallel = True
    subject_field = "name"

    def __init__(self, skills: Skills) -> None:
        self._skills = skills

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: SkillArguments = decode_arguments(SkillArguments, arguments, "skill")
        try:
            return await asyncio.to_thread(self._skills.body, asked.name)
        except SkillError as error:
            raise ToolError(str(error)) from None
