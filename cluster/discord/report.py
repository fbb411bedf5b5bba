"""What a check found, as `--json` prints it."""

from __future__ import annotations

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be, and what to do."""

    severity: Literal["problem", "warning"]
    code: str
    text: str
    mend: str


class ChannelReport(msgspec.Struct, kw_only=True):
    id: str
    name: str
    uses: list[str]
    """Of `hears`, `home`, `heartbeat`, `log` and `delegations`."""
    state: Literal["ok", "missing", "hidden", "unknown"]
    """`missing`: permissions are; `hidden`: kept from this agent on Discord, while the configuration leaves it open to
    all; `unknown`: there is none, or none that this bot may know of."""
    missing: list[str] = msgspec.field(default_factory=list)
    """Permissions, by their names in Discord's API."""


class GuildReport(msgspec.Struct, kw_only=True):
    id: str
    name: str = ""
    member: bool = False


class AgentReport(msgspec.Struct, kw_only=True):
    agent: str
    state: Literal["ok", "warning", "problem", "off"] = "off"
    token: Literal["none", "malformed", "shared", "refused", "valid", "unknown"] = "none"
    """`unknown`: Discord could not be asked."""
    bot: str = ""
    bot_id: str = ""
    application_id: str = ""
    message_content: bool | None = None
    public: bool | None = None
    name: Literal["ok", "differs", "unknown"] = "unknown"
    wanted_name: str = ""
    picture: Literal["ok", "differs", "none", "unknown"] = "unknown"
    """`unknown`: there is one, and it was not set from here."""
    guilds: list[GuildReport] = msgspec.field(default_factory=list)
    channels: list[ChannelReport] = msgspec.field(default_factory=list)
    permissions: list[str] = msgspec.field(default_factory=list)
    """Those it needs, for the features that are on."""
    invite: str = ""
    findings: list[Finding] = msgspec.field(default_factory=list)
    requests: int = 0
    """Asked of Discord."""

    def found(self, severity: Literal["problem", "warning"], code: str, text: str, mend: str) -> None:
        self.findings.append(Finding(severity, code, text, mend))

    def judge(self) -> None:
        """Set `state` by the findings."""
        severities = {finding.severity for finding in self.findings}
        self.state = "problem" if "problem" in severities else "warning" if severities else "ok"
