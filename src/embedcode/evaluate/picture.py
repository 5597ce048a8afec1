"""A picture of quality against speed, as SVG without a library. Knows points only."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, log10
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 24, 52
LABEL = 13
"""Pixels between two labels."""


def svg(points: Mapping[str, tuple[float, float]], across: str, up: str) -> str:
    """Points (x above 0, on a logarithmic scale; y) by name, with the names beside them."""
    xs = [log10(x) for x, _ in points.values()] or [0.0]
    ys = [y for _, y in points.values()] or [0.0]
    low, high = floor(min(xs)), max(ceil(max(xs)), floor(min(xs)) + 1)
    bottom, top = floor(min(ys) * 10) / 10, max(ceil(max(ys) * 10) / 10, floor(min(ys) * 10) / 10 + 0.1)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for power in range(low, high + 1):
        x, y = at(power, bottom)
        parts.append(f'<path d="M{x:.1f} {TOP}V{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle" fill="#555">{10.0**power:g}</text>')
    for step in range(round((top - bottom) * 10) + 1):
        x, y = at(low, bottom + step / 10)
        parts.append(f'<path d="M{x:.1f} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{bottom + step / 10:.1f}</text>'
        )
    taken: list[tuple[float, float]] = []
    for name, (value, quality) in sorted(points.items(), key=lambda item: -item[1][1]):
        x, y = at(log10(value), quality)
        right = x > WIDTH * 0.7
        height = y + 4
        while any(abs(height - other) < LABEL and abs(x - beside) < WIDTH / 3 for beside, other in taken):
            height += LABEL
        taken.append((x, height))
        anchor = f'x="{x - 8:.1f}" text-anchor="end"' if right else f'x="{x + 8:.1f}"'
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#27c"/>')
        parts.append(f'<text {anchor} y="{height:.1f}" fill="#222">{escape(name)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle" fill="#222">{escape(across)}</text>')
    parts.append(
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle" fill="#222">'
        f"{escape(up)}</text>"
    )
    return "\n".join([*parts, "</svg>", ""])
