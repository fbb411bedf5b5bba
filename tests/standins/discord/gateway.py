"""The gateway: hello, identify, resume with replay, heartbeats, dispatches to those who may and want to know."""

from __future__ import annotations

import asyncio
import json
import secrets
import zlib
from collections import deque
from typing import Any

from aiohttp import WSMsgType, web

from tests.standins.discord import wire
from tests.standins.discord.changes import Build
from tests.standins.discord.faults import GatewayFaults
from tests.standins.discord.model import DM, MESSAGE_CONTENT, MESSAGE_CONTENT_LIMITED, Application, Channel
from tests.standins.discord.state import State

DISPATCH, HEARTBEAT, IDENTIFY, PRESENCE, VOICE, RESUME = 0, 1, 2, 3, 4, 6
RECONNECT, MEMBERS, INVALID, HELLO, ACK = 7, 8, 9, 10, 11
KNOWN_INTENTS = (1 << 26) - 1
PRIVILEGED = {
    1 << 1: (1 << 14 | 1 << 15),
    1 << 8: (1 << 12 | 1 << 13),
    1 << 15: MESSAGE_CONTENT | MESSAGE_CONTENT_LIMITED,
}
"""Intent -> the application flags, one of which allows it."""
RESUMABLE_SECONDS = 180.0
REPLAYED = 1000
SENDS_PER_MINUTE = 120
FINAL = (1000, 1001, 4004, 4007, 4009, 4010, 4011, 4012, 4013, 4014)
"""Close codes after which the session is gone, whoever closed."""


class Session:
    """What outlives a connection: the sequence and what was dispatched."""

    def __init__(self, app: Application, intents: int) -> None:
        self.id = secrets.token_hex(16)
        self.app = app
        self.intents = intents
        self.seq = 0
        self.sent: deque[dict[str, Any]] = deque(maxlen=REPLAYED)
        self.connection: Connection | None = None
        self.lost_at: float | None = None

    @property
    def reads(self) -> bool:
        return bool(self.intents & 1 << 15)

    def dispatch(self, event: str, body: Any) -> None:
        """Number it, keep it for a replay, and send it if somebody is there."""
        self.seq += 1
        frame = {"op": DISPATCH, "t": event, "s": self.seq, "d": body}
        self.sent.append(frame)
        if self.connection is not None:
            self.connection.send(frame)


class Connection:
    """One websocket: frames leave it in order, through a task of its own."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, compressed: bool) -> None:
        self.socket = socket
        self.request = request
        self.session: Session | None = None
        self.beats = 0
        self.code: int | None = None
        """What we close with; the other side's answer to it does not count."""
        self.received: deque[float] = deque(maxlen=SENDS_PER_MINUTE)
        self._zlib = zlib.compressobj() if compressed else None
        self._out: asyncio.Queue[dict[str, Any] | int] = asyncio.Queue()
        self.writer = asyncio.create_task(self._write())

    def send(self, frame: dict[str, Any]) -> None:
        self._out.put_nowait(frame)

    def close(self, code: int) -> None:
        """After what is still to be sent."""
        self.code = code
        self._out.put_nowait(code)

    def abort(self) -> None:
        """Without a close frame, as a pulled cable does it."""
        if self.request.transport is not None:
            self.request.transport.abort()

    async def _write(self) -> None:
        while not self.socket.closed:
            frame = await self._out.get()
            try:
                if isinstance(frame, int):
                    await self.socket.close(code=frame)
                    return
                text = json.dumps(frame, separators=(",", ":"))
                if self._zlib is None:
                    await self.socket.send_str(text)
                else:
                    data = self._zlib.compress(text.encode()) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
                    await self.socket.send_bytes(data)
            except ConnectionError:
                return


class Gateway:
    def __init__(self, state: State, faults: GatewayFaults) -> None:
        self.state = state
        self.faults = faults
        self.sessions: dict[str, Session] = {}
        self.connections: set[Connection] = set()
        self.url = ""
        self.heartbeat_seconds = 41.25

    # --- out

    def publish(self, event: str, channel: Channel, intents: tuple[int, int], build: Build) -> None:
        """To every session whose bot sees `channel` and asked for it by (guild, DM) intent."""
        wanted = intents[1] if channel.type == DM else intents[0]
        for session in list(self.sessions.values()):
            if session.lost_at is not None and self.state.clock.now() - session.lost_at > RESUMABLE_SECONDS:
                self.forget(session)
                continue
            seen = self.state.may(session.app.user_id, channel) if wanted & session.intents else 0
            if seen and not session.app.revoked:
                session.dispatch(event, build(session.app, session.reads))

    def tell(self, app: Application, event: str, body: Any) -> int:
        """To all sessions of one bot, whatever its intents; how many there are."""
        sessions = self.of(app)
        for session in sessions:
            session.dispatch(event, body)
        return len(sessions)

    def tell_guild(self, guild: str, event: str, body: Any) -> None:
        """To the members with the guilds intent."""
        for session in self.sessions.values():
            if session.intents & 1 and session.app.user_id in self.state.guilds[guild].members:
                session.dispatch(event, body)

    def of(self, app: Application) -> list[Session]:
        return [session for session in self.sessions.values() if session.app is app]

    def connected(self, app: Application) -> list[Connection]:
        return [s.connection for s in self.of(app) if s.connection is not None]

    def forget(self, session: Session) -> None:
        self.sessions.pop(session.id, None)

    # --- one connection

    async def handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=16384, heartbeat=None, compress=False)
        await socket.prepare(request)
        connection = Connection(socket, request, request.query.get("compress") == "zlib-stream")
        self.connections.add(connection)
        try:
            connection.send({"op": HELLO, "d": {"heartbeat_interval": int(self.heartbeat_seconds * 1000)}})
            async for message in socket:
                if message.type != WSMsgType.TEXT:
                    connection.close(4002)
                    continue
                await self._frame(connection, message.data)
        finally:
            self.connections.discard(connection)
            connection.writer.cancel()
            self._lost(connection, connection.code or socket.close_code)
        return socket

    async def _frame(self, connection: Connection, text: str) -> None:
        try:
            frame = json.loads(text)
            op, data = frame["op"], frame.get("d")
        except (ValueError, KeyError, TypeError):
            return connection.close(4002)
        now = asyncio.get_running_loop().time()
        if len(connection.received) == SENDS_PER_MINUTE and now - connection.received[0] < 60:
            return connection.close(4008)
        connection.received.append(now)
        session = connection.session
        if op == HEARTBEAT:
            connection.beats += 1
            if session is None or not self.faults.withheld(session.app):
                connection.send({"op": ACK})
        elif op == IDENTIFY:
            if session is not None:
                return connection.close(4005)
            self._identify(connection, data)
        elif op == RESUME:
            if session is not None:
                return connection.close(4005)
            self._resume(connection, data)
        elif session is None:
            connection.close(4003)
        elif op == PRESENCE:
            session.app.presences.append(data | {"time": self.state.clock.now()})
            self.state.record("presence", session.app.user_id, status=data.get("status"))
        elif op == MEMBERS:
            self._members(session, data)
        elif op == VOICE:
            self.state.record("voice", session.app.user_id)
        else:
            connection.close(4001)
        return None

    def _identify(self, connection: Connection, data: dict[str, Any]) -> None:
        app = self.state.by_token(data["token"])
        if app is None:
            self.state.record("refused", None, code=4004)
            return connection.close(4004)
        app.identifies += 1
        intents = data.get("intents", -1)
        self.state.record("identified", app.user_id, intents=intents)
        code = self.faults.refusal(app)
        if code is None and not 0 <= intents <= KNOWN_INTENTS:
            code = 4013
        if code is None and any(intents & bit and not app.flags & flags for bit, flags in PRIVILEGED.items()):
            code = 4014
        if code is not None:
            self.state.record("refused", app.user_id, code=code)
            return connection.close(code)
        for old in self.of(app):  # nobody resumes what a killed process had: do not gather it
            if old.connection is None:
                self.forget(old)
        session = Session(app, intents)
        self.sessions[session.id] = session
        session.connection, connection.session = connection, session
        if presence := data.get("presence"):
            app.presences.append(presence | {"time": self.state.clock.now()})
        guilds = self.state.guilds_of(app.user_id)
        ready = {
            "v": 10,
            "user": wire.user(self.state.users[app.user_id]),
            "guilds": [{"id": guild.id, "unavailable": True} for guild in guilds],
            "session_id": session.id,
            "session_type": "normal",
            "resume_gateway_url": self.url,
            "application": {"id": app.id, "flags": app.flags},
            "private_channels": [],
        }
        session.dispatch("READY", ready)
        for guild in guilds if intents & 1 else []:
            session.dispatch("GUILD_CREATE", wire.guild_create(self.state, guild, app.user_id))
        self.state.record("ready", app.user_id, session=session.id)
        return None

    def _resume(self, connection: Connection, data: dict[str, Any]) -> None:
        app = self.state.by_token(data["token"])
        if app is None:
            return connection.close(4004)
        app.resumes += 1
        session = self.sessions.get(data["session_id"])
        seq = data["seq"]
        if session is not None and session.lost_at is not None:
            expired = self.state.clock.now() - session.lost_at > RESUMABLE_SECONDS
            if expired or (session.sent and session.sent[0]["s"] > seq + 1):
                self.forget(session)
                session = None
        if session is None or session.app is not app:
            self.state.record("resume_refused", app.user_id)
            return connection.send({"op": INVALID, "d": False})
        if seq > session.seq:
            self.forget(session)
            return connection.close(4007)
        if session.connection is not None:
            session.connection.session = None
            session.connection.close(4000)
        session.connection, connection.session, session.lost_at = connection, session, None
        seq -= self.faults.take_repeated(app)
        missed = [frame for frame in session.sent if frame["s"] > seq and frame["t"] not in ("READY", "RESUMED")]
        for frame in missed:
            connection.send(frame)
        session.dispatch("RESUMED", {"_trace": []})
        self.state.record("resumed", app.user_id, session=session.id, replayed=len(missed))
        return None

    def _members(self, session: Session, data: dict[str, Any]) -> None:
        guild = self.state.guilds.get(str(data["guild_id"]))
        if guild is None:
            return
        wanted = [str(id) for id in data.get("user_ids") or []]
        query = data.get("query") or ""
        rows = [
            member
            for member in guild.members.values()
            if (member.user_id in wanted if wanted else self.state.users[member.user_id].username.startswith(query))
        ]
        chunk: dict[str, Any] = {"guild_id": guild.id, "members": [wire.member(self.state, m) for m in rows]}
        chunk |= {"chunk_index": 0, "chunk_count": 1, "not_found": [i for i in wanted if i not in guild.members]}
        session.dispatch("GUILD_MEMBERS_CHUNK", chunk | ({"nonce": data["nonce"]} if data.get("nonce") else {}))

    def _lost(self, connection: Connection, code: int | None) -> None:
        session = connection.session
        if session is None or session.connection is not connection:
            return
        session.connection, session.lost_at = None, self.state.clock.now()
        if code in FINAL:
            self.forget(session)
        self.state.record("disconnected", session.app.user_id, code=code)
