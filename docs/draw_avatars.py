"""Draws each shipped agent's picture, `instances/<agent>/avatar.png`: `python docs/draw_avatars.py`.

A sign on a disc of the agent's own colour: shapes are distances to lines, circles and boxes, so that edges are smooth
without a drawing library. The same input gives the same bytes.
"""

from __future__ import annotations

import itertools
import math
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

SIZE = 256
"""Pixels; Discord shows avatars at 32 to 128."""
ROOT = Path(__file__).resolve().parent.parent / "instances"

Shape = Callable[[float, float], float]
"""Distance in units from a point to a shape, negative inside. The picture spans -1 to 1, y downwards."""
Colour = tuple[int, int, int]

INK: Colour = (250, 250, 245)


def disc(x: float, y: float, r: float) -> Shape:
    return lambda px, py: math.hypot(px - x, py - y) - r


def ring(x: float, y: float, r: float, width: float) -> Shape:
    return lambda px, py: abs(math.hypot(px - x, py - y) - r) - width / 2


def line(x0: float, y0: float, x1: float, y1: float, width: float) -> Shape:
    dx, dy = x1 - x0, y1 - y0
    square = dx * dx + dy * dy

    def distance(px: float, py: float) -> float:
        t = max(0.0, min(1.0, ((px - x0) * dx + (py - y0) * dy) / square))
        return math.hypot(px - x0 - t * dx, py - y0 - t * dy) - width / 2

    return distance


def path(width: float, *points: tuple[float, float]) -> Shape:
    return union(*(line(*a, *b, width) for a, b in itertools.pairwise(points)))


def curve(width: float, of: Callable[[float], float], start: float, end: float, steps: int = 24) -> Shape:
    xs = [start + (end - start) * i / steps for i in range(steps + 1)]
    return path(width, *((x, of(x)) for x in xs))


def oval(x: float, y: float, rx: float, ry: float, width: float) -> Shape:
    angles = [2 * math.pi * i / 40 for i in range(41)]
    return path(width, *((x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles))


def union(*shapes: Shape) -> Shape:
    return lambda px, py: min(shape(px, py) for shape in shapes)


def hub() -> Shape:
    spokes = [(0.55 * math.cos(a), 0.55 * math.sin(a)) for a in (math.pi * (i / 3 + 0.5) for i in range(6))]
    return union(disc(0, 0, 0.2), *(line(0, 0, x, y, 0.07) for x, y in spokes), *(disc(x, y, 0.12) for x, y in spokes))


def compass() -> Shape:
    return union(
        disc(0, -0.48, 0.11), path(0.1, (-0.4, 0.55), (0, -0.45), (0.4, 0.55)), line(-0.3, 0.15, 0.3, 0.15, 0.09)
    )


def envelope() -> Shape:
    box = path(0.09, (-0.55, -0.36), (0.55, -0.36), (0.55, 0.38), (-0.55, 0.38), (-0.55, -0.36))
    return union(box, path(0.09, (-0.53, -0.34), (0, 0.08), (0.53, -0.34)))


def lens() -> Shape:
    return union(
        ring(-0.12, -0.12, 0.4, 0.1),
        line(0.2, 0.2, 0.55, 0.55, 0.15),
        path(0.08, (-0.3, -0.1), (-0.16, 0.04), (0.1, -0.26)),
    )


def minimum() -> Shape:
    return union(curve(0.09, lambda x: 0.38 - 1.9 * (x - 0.1) ** 2, -0.55, 0.6), disc(0.1, 0.3, 0.13))


def mesh() -> Shape:
    nodes = [(-0.5, 0.4), (-0.15, -0.1), (0.2, 0.42), (0.5, -0.02), (0.1, -0.55), (-0.5, -0.4)]
    edges = [(0, 1), (1, 2), (0, 2), (1, 3), (2, 3), (1, 4), (3, 4), (1, 5), (4, 5), (0, 5)]
    return union(*(line(*nodes[a], *nodes[b], 0.055) for a, b in edges), *(disc(x, y, 0.09) for x, y in nodes))


def cube() -> Shape:
    top, low, left, right = (0.0, -0.6), (0.0, 0.6), -0.52, 0.52
    outline = path(0.09, top, (right, -0.3), (right, 0.3), low, (left, 0.3), (left, -0.3), top)
    return union(outline, path(0.09, (left, -0.3), (0, 0.0), (right, -0.3)), line(0, 0, 0, 0.6, 0.09))


def globe() -> Shape:
    circles = (line(-0.46, y, 0.46, y, 0.06) for y in (-0.3, 0.3))
    return union(ring(0, 0, 0.56, 0.09), oval(0, 0, 0.25, 0.56, 0.07), line(-0.56, 0, 0.56, 0, 0.07), *circles)


def bands() -> Shape:
    def wave(y: float) -> Shape:
        return curve(0.09, lambda x: y + 0.14 * math.sin(4 * x), -0.55, 0.55)

    return union(*(wave(y) for y in (-0.4, -0.13, 0.14, 0.41)))


def page() -> Shape:
    sheet = path(0.09, (-0.38, -0.55), (0.18, -0.55), (0.4, -0.33), (0.4, 0.55), (-0.38, 0.55), (-0.38, -0.55))
    return union(sheet, *(line(-0.2, y, 0.22, y, 0.07) for y in (-0.15, 0.08, 0.31)))


def brackets() -> Shape:
    left, right = path(0.1, (-0.25, -0.4), (-0.55, 0), (-0.25, 0.4)), path(0.1, (0.25, -0.4), (0.55, 0), (0.25, 0.4))
    return union(left, right, line(0.1, -0.45, -0.1, 0.45, 0.09))


def book() -> Shape:
    left = path(0.08, (0, -0.36), (-0.3, -0.48), (-0.58, -0.4), (-0.58, 0.4), (-0.3, 0.32), (0, 0.44))
    right = path(0.08, (0, -0.36), (0.3, -0.48), (0.58, -0.4), (0.58, 0.4), (0.3, 0.32), (0, 0.44))
    return union(left, right, line(0, -0.36, 0, 0.44, 0.08))


def racks() -> Shape:
    boxes = [path(0.08, (-0.5, y), (0.5, y), (0.5, y + 0.3), (-0.5, y + 0.3), (-0.5, y)) for y in (-0.58, -0.15, 0.28)]
    return union(*boxes, *(disc(0.32, y + 0.15, 0.06) for y in (-0.58, -0.15, 0.28)))


PICTURES: dict[str, tuple[Colour, Shape]] = {
    "manager": ((38, 70, 120), hub()),
    "tech-lead": ((120, 60, 40), compass()),
    "secretary": ((96, 68, 130), envelope()),
    "auditor": ((130, 96, 20), lens()),
    "optimizer": ((24, 110, 82), minimum()),
    "study-builder": ((40, 100, 124), mesh()),
    "nx-expert": ((142, 46, 66), cube()),
    "webster": ((44, 92, 44), globe()),
    "post-processor": ((112, 50, 112), bands()),
    "reporter": ((84, 84, 96), page()),
    "developer": ((28, 60, 70), brackets()),
    "knowledge-base": ((110, 76, 44), book()),
    "it": ((66, 72, 84), racks()),
}


def draw(colour: Colour, sign: Shape) -> bytes:
    """The picture as PNG: the sign on its disc, transparent around it."""
    pixel = 2.0 / SIZE
    plate = disc(0, 0, 0.98)
    rows = bytearray()
    for row in range(SIZE):
        rows.append(0)  # no filter
        y = (row + 0.5) * pixel - 1
        for column in range(SIZE):
            x = (column + 0.5) * pixel - 1
            cover, ink = _cover(plate(x, y), pixel), _cover(sign(x / 1.05, y / 1.05), pixel)
            rows += bytes(round(c + (i - c) * ink) for c, i in zip(colour, INK, strict=True))
            rows.append(round(255 * cover))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(bytes(rows), 9))
        + _chunk(b"IEND", b"")
    )


def _cover(distance: float, pixel: float) -> float:
    """How much of a pixel a shape covers."""
    return max(0.0, min(1.0, 0.5 - distance / pixel))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    for agent in sys.argv[1:] or PICTURES:
        (ROOT / agent / "avatar.png").write_bytes(draw(*PICTURES[agent]))
