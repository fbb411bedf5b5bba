"""Images: known by their bytes, read when a model is asked, and sent as each provider takes them."""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.models import pictures
from gateway.models.anthropic import AnthropicProvider
from gateway.models.gemini import GeminiProvider
from gateway.models.openai import OpenAIProvider
from gateway.models.pictures import kind_of, read_pictures
from gateway.models.provider import Image, Message, ProviderError, Text
from tests.gateway.models.conftest import ask, collect
from tests.gateway.models.images import GIF, JPEG, PNG, WEBP, png
from tests.gateway.models.test_models import House
from tests.standins.models import KEY, Fault, ModelServer, Reply

DATA = base64.b64encode(PNG).decode()


def image(path: str = "inbox/a.png", data: bytes = PNG) -> Image:
    return Image(path, "image/png", hashlib.sha256(data).hexdigest())


def shown(*content: Any) -> list[Message]:
    return [Message("user", [*content, Text("what is this?")])]


class TestKinds:
    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (PNG, "image/png"),
            (GIF, "image/gif"),
            (JPEG, "image/jpeg"),
            (WEBP, "image/webp"),
            (png(8001, 1), None),
            (PNG[:20], None),
            (JPEG[:24], None),
            (b"\xff\xd8\xff" + b"\0" * 10, None),
            (b"\xff\xd8\xff" + b"\xff" * 50, None),
            (b"RIFF\0\0\0\0WEBPVP8X", None),
            (b"<svg></svg>", None),
            (b"", None),
            (PNG + b"\0" * pictures.MOST_BYTES, None),
        ],
        ids=range(13),
    )
    def test_by_their_bytes(self, data: bytes, kind: str | None) -> None:
        assert kind_of(data) == kind

    @pytest.mark.parametrize("rest", [b"\xff" * 3_000_000, b"\xff\xe0\x00\x02" * 750_000])
    def test_a_header_without_end_costs_next_to_nothing(self, rest: bytes) -> None:
        taken = []
        for _ in range(3):  # a collection of everybody's garbage may fall into one of them
            began = time.process_time()
            assert kind_of(b"\xff\xd8" + rest) is None
            taken.append(time.process_time() - began)
        assert min(taken) < 0.05


class TestReading:
    def content(self, folder: Path, block: Image) -> Any:
        ((first, _),) = [message.content for message in read_pictures(shown(block), folder)]
        return first

    def test_the_bytes_are_those_of_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "inbox").mkdir()
        (tmp_path / "inbox/a.png").write_bytes(PNG)
        assert self.content(tmp_path, image()).data == DATA

    def test_a_file_that_is_gone_is_said(self, tmp_path: Path) -> None:
        assert self.content(tmp_path, image()) == Text("[image inbox/a.png is not shown: the file is gone]")

    def test_another_file_in_its_place_is_not_sent(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"a secret")
        assert self.content(tmp_path, image("a.png")) == Text("[image a.png is not shown: the file is another now]")

    def test_of_many_the_newest_are_shown(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        messages = [m for _ in range(pictures.MOST_IMAGES + 2) for m in shown(image("a.png"))]
        read = [message.content[0] for message in read_pictures(messages, tmp_path)]
        assert [isinstance(block, Image) for block in read] == [False, False, *[True] * pictures.MOST_IMAGES]

    def test_of_large_ones_so_many_as_a_request_holds(self, tmp_path: Path) -> None:
        """Twenty of the largest would be 93 MB as base64, several times what any provider takes."""
        large = PNG + b"\0" * (pictures.MOST_BYTES - len(PNG))
        (tmp_path / "a.png").write_bytes(large)
        fit = pictures.MOST_BYTES_OF_ALL // pictures.MOST_BYTES
        messages = [m for _ in range(fit + 2) for m in shown(image("a.png", large))]
        read = [message.content[0] for message in read_pictures(messages, tmp_path)]
        assert [isinstance(block, Image) for block in read] == [False, False, *[True] * fit]
        assert sum(len(block.data) for block in read if isinstance(block, Image)) < 20_000_000


class TestSent:
    """A request with an image, as it arrives at the provider's server."""

    request = staticmethod(lambda model: ask(model=model, messages=shown(Image("a.png", "image/png", "", DATA))))

    async def body(self, server: ModelServer, provider: Any, model: str) -> Any:
        server.script.add(Reply(text="a dot"))
        await collect(provider.stream(self.request(model)))
        await provider.close()
        return server.bodies[0]

    async def test_to_claude(self, server: ModelServer) -> None:
        sent = await self.body(server, AnthropicProvider(KEY, base_url=server.url), "claude-opus-4-6")
        source = {"type": "base64", "media_type": "image/png", "data": DATA}
        assert sent["messages"][0]["content"][0] == {"type": "image", "source": source}

    async def test_to_gemini(self, server: ModelServer) -> None:
        sent = await self.body(server, GeminiProvider(KEY, base_url=server.url), "gemini-3.8-flash")
        assert sent["contents"][0]["parts"][0] == {"inlineData": {"mime_type": "image/png", "data": DATA}}

    async def test_to_chat_completions(self, server: ModelServer) -> None:
        sent = await self.body(server, OpenAIProvider(KEY, base_url=f"{server.url}/v1", api="chat"), "gpt-6.1-sol")
        first, second = sent["messages"][-1]["content"]
        assert first == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}
        assert second["text"].startswith("what is this?")

    async def test_to_responses(self, server: ModelServer) -> None:
        provider = OpenAIProvider(KEY, base_url=f"{server.url}/v1", api="responses")
        sent = await self.body(server, provider, "gpt-6.1-sol")
        (first,) = sent["input"][0]["content"]
        assert first == {"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{DATA}"}


class TestModels:
    @pytest.fixture
    def pictured(self, tmp_path: Path) -> House:
        house = House(tmp_path)
        (house.home.workspace("webster") / "a.png").write_bytes(PNG)
        return house

    async def asked(self, house: House, **options: Any) -> str:
        models = house.open()
        try:
            _, answer = await collect(models.stream(ask(messages=shown(image("a.png"))), **options))
            return answer.message.text
        finally:
            await models.close()

    async def test_a_model_that_sees_gets_the_bytes(self, pictured: House, server: ModelServer) -> None:
        server.script.add(Reply(text="a dot"))
        await self.asked(pictured.at(server).keys("anthropic"))
        assert server.bodies[0]["messages"][0]["content"][0]["source"]["data"] == DATA

    async def test_a_model_of_which_nobody_knows_gets_a_line(self, pictured: House, server: ModelServer) -> None:
        pictured.primary = "anthropic/some-local-model"
        server.script.add(Reply(text="a dot"))
        await self.asked(pictured.at(server).keys("anthropic"))
        first = server.bodies[0]["messages"][0]["content"][0]
        assert first == {"type": "text", "text": "[image a.png is not shown: this model sees none]"}

    async def test_offline_the_words_are_answered(self, pictured: House) -> None:
        pictured.profile = "offline"
        assert await self.asked(pictured, model="offline/echo") == "[offline] what is this?"

    async def test_what_is_refused_is_asked_once_more_without_images(
        self, pictured: House, server: ModelServer
    ) -> None:
        wrong = Fault(400, message="Could not process image")
        server.script.add(Reply(fault=wrong), Reply(text="I cannot see it"))
        assert await self.asked(pictured.at(server).keys("anthropic")) == "I cannot see it"
        assert server.bodies[1]["messages"][0]["content"][0]["text"] == (
            "[image a.png is not shown: the model refused it]"
        )

    async def test_without_images_a_wrong_request_is_not_repeated(self, pictured: House, server: ModelServer) -> None:
        server.script.add(Reply(fault=Fault(400, message="max_tokens: too large")))
        models = pictured.at(server).keys("anthropic").open()
        with pytest.raises(ProviderError):
            await collect(models.stream(ask()))
        await models.close()
        assert len(server.bodies) == 1
