"""A real llama.cpp server as a server of one's own, over all three APIs it speaks; where xllamacpp is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from gateway.models.anthropic import AnthropicProvider
from gateway.models.openai import OpenAIProvider
from gateway.models.provider import ErrorKind, Message, Provider, ProviderError, Text, ToolResult, ToolSpec
from protocols.runs import RunState
from tests.conftest import ClusterHome
from tests.gateway.models.conftest import ask, collect
from tests.gateway.process import running
from tests.standins import llama_server
from tests.standins.tiny_model import write_model

PYTHON = os.environ.get("LLAMA_PYTHON") or (sys.executable if importlib.util.find_spec("xllamacpp") else "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="no llama.cpp: pip install xllamacpp==2026.10.11549 (or LLAMA_PYTHON)"),
]
NOTE = ToolSpec(
    "memory_write",
    "Keep a note",
    {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = tmp_path_factory.mktemp("llama") / "tiny.gguf"
    write_model(model, "memory_write", {"text": "the mirror is 1.2 m"}, "Noted by a real server: 1.2 m.")
    process = subprocess.Popen(
        [PYTHON, llama_server.__file__, str(model)],
        stdout=subprocess.PIPE,
        stderr=(model.parent / "log").open("w"),
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("{"):
                break
        else:
            pytest.fail((model.parent / "log").read_text()[-2000:])
        yield json.loads(line)["url"]
    finally:
        process.terminate()
        process.wait(20)


def providers(url: str) -> list[Provider]:
    return [
        AnthropicProvider("local", base_url=url),
        OpenAIProvider("local", name="workshop", base_url=f"{url}/v1"),
        OpenAIProvider("local", name="workshop", base_url=f"{url}/v1", api="responses"),
    ]


@pytest.mark.parametrize("which", [0, 1, 2], ids=["messages", "chat", "responses"])
async def test_it_answers_calls_a_tool_and_says_when_it_is_too_much(llama: str, which: int) -> None:
    provider = providers(llama)[which]
    deltas, answer = await collect(provider.stream(ask("hello", model="tiny")))
    assert len(deltas) > 1
    assert "".join(deltas) == answer.message.text == "Noted by a real server: 1.2 m."
    assert answer.stop == "end"
    assert answer.usage.output_tokens > 0
    assert answer.usage.input_tokens > 0
    question = Message("user", [Text("Remember that the mirror is 1.2 m.")])
    _, calling = await collect(provider.stream(ask(model="tiny", messages=[question], tools=[NOTE])))
    assert calling.stop == "tool_use"
    (call,) = calling.message.tool_calls
    assert (call.name, call.arguments) == ("memory_write", {"text": "the mirror is 1.2 m"})
    result = Message("user", [ToolResult(call.id, call.name, "noted")])
    history = [question, calling.message, result]
    _, answer = await collect(provider.stream(ask(model="tiny", messages=history, tools=[NOTE])))
    assert answer.message.text == "Noted by a real server: 1.2 m."
    with pytest.raises(ProviderError) as caught:
        await collect(provider.stream(ask("word " * 8000, model="tiny")))
    assert caught.value.kind is ErrorKind.OVERFLOW, str(caught.value)
    await provider.close()


@pytest.mark.parametrize("model", ["anthropic/tiny", "workshop/tiny"])
def test_a_gateway_works_with_it_as_with_any_other(
    make_home: Callable[..., ClusterHome], llama: str, model: str
) -> None:
    home = make_home("webster")
    path = home.home.cluster_toml
    path.write_text(
        path.read_text().replace('profile = "offline"', 'profile = "live"')
        + f'[providers.anthropic]\nbase_url = "{llama}"\n'
        + f'[providers.workshop]\nkind = "openai"\nbase_url = "{llama}/v1"\n'
    )
    instance = home.home.instance_toml("webster")
    text = re.sub(r"^primary = .*", f'primary = "{model}"', instance.read_text(), flags=re.M)
    # To this model each letter is a token: it gets a short prompt.
    instance.write_text(re.sub(r"^allow = \[.*?\]", 'allow = ["memory_write"]', text, flags=re.M | re.S))
    with running(home, "webster") as (gateway,):
        run = gateway.result(gateway.delegate("Remember that the mirror is 1.2 m."), seconds=90)
        assert (run.state, run.text) == (RunState.SUCCEEDED, "Noted by a real server: 1.2 m."), run.reason
        assert run.model == model
        assert [(step.kind, step.state) for step in run.steps] == [
            ("model", "done"),
            ("tool", "done"),
            ("model", "done"),
        ]
        assert gateway.notes().count("the mirror is 1.2 m") == 1
