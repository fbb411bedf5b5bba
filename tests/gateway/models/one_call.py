"""Run as a process of its own: one real call through an SDK, and what it cost. Prints one JSON object.

python -m tests.gateway.models.one_call PROVIDER URL KEY
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.models.anthropic import AnthropicProvider
from gateway.models.gemini import GeminiProvider
from gateway.models.openai import OpenAIProvider
from gateway.models.prices import Prices
from gateway.models.provider import Answer, Message, Provider, Request, Text

MODELS = {"anthropic": "claude-opus-4-6", "google": "gemini-3.8-flash", "openai": "gpt-6.1-sol"}
TICK_SECONDS = 0.002


def rss_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def call(provider: Provider, model: str) -> Answer:
    request = Request(model=model, stable="s", volatile="v", messages=[Message("user", [Text("hello")])])
    items: list[Any] = [item async for item in provider.stream(request)]
    answer = items[-1]
    assert isinstance(answer, Answer)
    return answer


async def main(name: str, url: str, key: str) -> None:
    make = {"anthropic": AnthropicProvider, "google": GeminiProvider, "openai": OpenAIProvider}[name]
    figures: dict[str, Any] = {"before": rss_mib(), "web": web.__name__}
    longest, going = 0.0, True

    async def watch() -> None:
        nonlocal longest
        while going:
            asleep = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            longest = max(longest, time.perf_counter() - asleep - TICK_SECONDS)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.02)
    longest = 0.0
    cpu = time.process_time()
    where = {"base_url": f"{url}/v1", "api": "responses"} if name == "openai" else {"base_url": url}
    provider: Any = make(key, **where)
    answer = await call(provider, MODELS[name])
    figures["first_call_cpu"] = time.process_time() - cpu
    figures["longest_stall_ms"] = longest * 1000
    figures["after_call"] = rss_mib()
    figures["cost"] = await Prices(time.time).cost(answer.model, answer.usage)
    figures["after_price"] = rss_mib()
    await call(provider, MODELS[name])
    figures["after_second_call"] = rss_mib()
    going = False
    await watching
    await provider.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
