"""What the tools over files and folders share: how a path is given, named to a person, and worked on in a thread."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from gateway.agent.tool import BaseTool, ToolContext, decode_arguments
from gateway.tools.roots import Roots

FilePath = Annotated[str, msgspec.Meta(min_length=1, description="A file of your workspace, or shared/...")]
FolderPath = Annotated[str, msgspec.Meta(description="A folder of your workspace, or shared/...")]

Asked = TypeVar("Asked", bound=msgspec.Struct)


class FileTool(BaseTool, Generic[Asked]):
    """One call on the path of its arguments; a permission is decided by where that path leads."""

    spec: Any
    arguments: type[Asked]

    def __init__(self, roots: Roots) -> None:
        self.roots = roots

    def subject(self, arguments: dict[str, Any]) -> str:
        return self.roots.name_of(str(arguments.get("path", "")))

    async def call(self, context: ToolContext, arguments: dict[str, Any]) -> str:
        asked: Asked = decode_arguments(self.arguments, arguments, self.spec.name)
        return await asyncio.to_thread(self.work, asked)

    def work(self, asked: Asked) -> str:
        """The result; blocks. Raises ToolError."""
        raise NotImplementedError
