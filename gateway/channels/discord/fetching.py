"""The bytes of an attachment: never more than was asked for, whatever the server says of itself."""

from __future__ import annotations

import aiohttp

from gateway.channels.channel import Attachment, Refusal, Unreachable

SECONDS = 30.0
CHUNK = 64 * 1024


async def fetch(attachment: Attachment, most: int) -> bytes:
    """Raises Refusal if it is larger or gone, Unreachable if it can be tried again."""
    if attachment.size > most:
        raise Refusal("other", f"{attachment.name} has {attachment.size} bytes; at most {most} are read")
    what = f"reading {attachment.name}"
    try:
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            session.get(attachment.url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status == 429 or answer.status >= 500:
                raise Unreachable(f"{what}: Discord's file server answered {answer.status}")
            if answer.status != 200:
                raise Refusal("other", f"{what}: Discord's file server answered {answer.status}; its link has expired")
            data = bytearray()
            async for chunk in answer.content.iter_chunked(CHUNK):
                data += chunk
                if len(data) > most:
                    raise Refusal("other", f"{attachment.name} is larger than Discord said; at most {most} are read")
            return bytes(data)
    except (aiohttp.ClientError, OSError) as error:
        words = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        raise Unreachable(f"{what}: {words}") from error
