"""Who exists: the agents, their capabilities and their port families.

An agent owns two ports: N for its HTTP API and N+3 for its browser service. Two families may not overlap and
no port may reach 32768, where Linux begins to hand out ephemeral ports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NewType

import msgspec

from protocols.errors import AtomizerError

AgentName = NewType("AgentName", str)

BROWSER_OFFSET = 3
"""The browser service listens on N plus this."""
FAMILY_SPACING = 4
"""Distance between neighbouring families when a new one is chosen."""
PORT_LIMIT = 32768
"""First port that is refused: the start of Linux's default ephemeral range."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_RESERVED = frozenset({"operator", "viewer", "all", "shared", "cluster", "anthropic", "google", "openai", "offline"})


class RegistryError(AtomizerError):
    """A name or a port family that cannot be used; the message says why and what to change."""


class PortFamily(msgspec.Struct, frozen=True):
    """The two ports of one agent."""

    base: int

    @property
    def ports(self) -> tuple[int, int]:
        return (self.base, self.base + BROWSER_OFFSET)


class RosterEntry(msgspec.Struct, frozen=True):
    """One known role, as shipped."""

    name: AgentName
    title: str
    port: int
    capabilities: tuple[str, ...]
    default_on: bool = False
    service: str = "gateway"
    """`gateway` for an agent; `orchestrator` and `main` are other processes whose ports are kept free."""


def _entry(name: str, title: str, port: int, caps: str, on: bool = False, service: str = "gateway") -> RosterEntry:
    return RosterEntry(AgentName(name), title, port, tuple(caps.split()), on, service)


ROSTER: tuple[RosterEntry, ...] = (
    _entry(
        "manager",
        "Manager",
        18800,
        "planning coordination delegation project-status prioritisation risk-tracking",
        True,
    ),
    _entry(
        "tech-lead",
        "Tech Lead",
        18804,
        "technical-direction fea-methodology requirements technical-review opto-mechanics load-cases",
        True,
    ),
    _entry(
        "secretary",
        "Secretary",
        18808,
        "minutes action-tracking correspondence summaries scheduling document-drafting",
        True,
    ),
    _entry(
        "auditor", "Auditor", 18812, "verification validation model-audit result-review unit-check traceability", True
    ),
    _entry(
        "optimizer",
        "Optimizer",
        18816,
        "optimisation doe surrogate-modelling sensitivity-analysis multi-objective trial-budgets",
        True,
    ),
    _entry(
        "study-builder",
        "Study Builder",
        18820,
        "study-setup parametrisation extractor-setup configuration dry-runs",
        True,
    ),
    _entry("nx-expert", "NX Expert", 18824, "nx-cad simcenter-3d nastran nx-journals meshing solver-diagnostics", True),
    _entry(
        "webster",
        "Webster",
        18828,
        "research material-data literature-search standards supplier-data fact-checking",
        True,
    ),
    _entry(
        "post-processor",
        "Post-Processor",
        18832,
        "result-extraction post-processing wavefront-error zernike-fitting plots op2-reading",
    ),
    _entry(
        "reporter", "Reporter", 18836, "report-writing technical-documentation figures-and-tables executive-summaries"
    ),
    _entry("developer", "Developer", 18840, "python nx-open-code extractors testing code-review data-formats"),
    _entry(
        "knowledge-base",
        "Knowledge Base",
        18844,
        "knowledge-curation lessons-learned retrieval terminology fact-sourcing",
    ),
    _entry("it", "IT", 18848, "infrastructure licences storage backups solver-hosts troubleshooting"),
    _entry("orchestrator", "Orchestrator", 18796, "workflows routing gates", service="orchestrator"),
    _entry("mario", "Mario", 18789, "main-instance", service="main"),
)
"""The shipped registry: thirteen agents, the orchestrator and the separate main instance."""

AGENTS: tuple[RosterEntry, ...] = tuple(e for e in ROSTER if e.service == "gateway")


def parse_agent_name(text: str) -> AgentName:
    """`text` as an agent's name: lower-case words joined by hyphens, at most 32 characters; raises RegistryError."""
    if len(text) > 32 or not _NAME.fullmatch(text):
        raise RegistryError(
            f"{text!r} is not an agent name: use lower-case letters, digits and single hyphens, "
            "beginning with a letter, at most 32 characters (for example `study-builder`)"
        )
    if text in _RESERVED:
        raise RegistryError(f"{text!r} is a reserved word and cannot name an agent; choose another name")
    return AgentName(text)


def check_families(ports: dict[str, int]) -> None:
    """Refuse, by name, ports out of range and any two families that overlap; raises RegistryError."""
    owners: dict[int, str] = {}
    for name, base in ports.items():
        for port in PortFamily(base).ports:
            if port >= PORT_LIMIT or port < 1024:
                raise RegistryError(
                    f"{name}: port {base} needs {base} and {base + BROWSER_OFFSET}, but {port} is outside "
                    f"1024-{PORT_LIMIT - 1}; choose a lower base port"
                    if port >= PORT_LIMIT
                    else f"{name}: port {port} is outside 1024-{PORT_LIMIT - 1}; choose a higher base port"
                )
            if port in owners and owners[port] != name:
                raise RegistryError(
                    f"{name} (ports {base} and {base + BROWSER_OFFSET}) overlaps {owners[port]} "
                    f"(ports {ports[owners[port]]} and {ports[owners[port]] + BROWSER_OFFSET}) at {port}; "
                    f"move one of them by at least {FAMILY_SPACING}"
                )
            owners[port] = name


def check_reserved(ports: dict[str, int], *, services_only: bool = False) -> None:
    """Refuse an agent on ports that the registry keeps for one who is not among `ports`; raises RegistryError.

    Those of the orchestrator and of the main instance are always kept: both may run on the same host. `services_only`
    looks at no others: where agents stand already, those of a listed agent that is not there are in nobody's way.
    """
    kept = {
        port: entry
        for entry in ROSTER
        if entry.name not in ports and not (services_only and entry.service == "gateway")
        for port in PortFamily(entry.port).ports
    }
    for name, base in ports.items():
        port = next((port for port in PortFamily(base).ports if port in kept), None)
        if port is not None:
            owner = kept[port]
            free = next_free_family([*ports.values(), *(entry.port for entry in ROSTER)])
            raise RegistryError(
                f"{name} (ports {base} and {base + BROWSER_OFFSET}) needs {port}, which is kept for {owner.name} "
                f"(ports {owner.port} and {owner.port + BROWSER_OFFSET}); choose another base port, for example {free}"
            )


def next_free_family(taken: Iterable[int], start: int = 18800) -> int:
    """The lowest base port from `start`, in steps of FAMILY_SPACING, whose family is free of `taken` bases."""
    used = {port for base in taken for port in PortFamily(base).ports}
    base = start
    while base + BROWSER_OFFSET < PORT_LIMIT:
        if not used.intersection(PortFamily(base).ports):
            return base
        base += FAMILY_SPACING
    raise RegistryError(f"no free port family between {start} and {PORT_LIMIT - 1}")


def roster_entry(name: str) -> RosterEntry | None:
    """The shipped entry called `name`, or None."""
    return next((e for e in ROSTER if e.name == name), None)
