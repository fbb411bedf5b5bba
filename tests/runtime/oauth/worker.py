"""One process that needs an access token, as a gateway does: waits for the starting shot, and prints what it got.

python -m tests.runtime.oauth.worker HOME SETTINGS-JSON
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import msgspec

from gateway.models.accounts import AccountTokens
from gateway.models.provider import ProviderError
from runtime.home import Home
from runtime.oauth.settings import OAuthSettings


async def main(home: str, settings: str) -> None:
    tokens = AccountTokens(
        Home(Path(home)),
        msgspec.json.decode(settings, type=OAuthSettings),
        clock=time.time,
        learn=lambda _: None,
    )
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        bearer = await tokens.bearer()
        told = {"token": bearer.token, "account": bearer.account}
    except ProviderError as error:
        told = {"kind": error.kind.value, "error": str(error)}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
