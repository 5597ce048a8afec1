"""Log-log line charts as SVG by hand, side by side: each line labelled at its end. Knows no benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 560, 380
LEFT, RIGHT, TOP, BOTTOM = 62, 150, 44, 48
LABEL_PIXELS = 15
"""Least distance between the labels of two lines."""
COLOURS = ("#1b6ca8", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#be123c")


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    x_label: str
    x: Sequence[float]
    lines: dict[str, Sequence[float]]
    """Name to one value above 0 for each x."""


def svg(charts: Sequence[Chart]) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(charts)} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, chart in enumerate(charts):
        parts += [f'<g transform="translate({WIDTH * number} 0)">', *_chart(chart), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(chart: Chart) -> list[str]:
    values = [value for line in chart.lines.values() for value in line]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    high = max(high, low + 1)
    first, last = log10(min(chart.x)), log10(max(chart.x))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(value: float) -> float:
        return LEFT + (right - LEFT) * (log10(value) - first) / ((last - first) or 1)

    def down(value: float) -> float:
        return bottom - (bottom - TOP) * (log10(value) - low) / (high - low)

    out = [f'<text x="{LEFT}" y="24" font-size="14" font-weight="600">{escape(chart.title)}</text>']
    for power in range(low, high + 1):
        y = down(10.0**power)
        out.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:,g}</text>')
    for value in chart.x:
        x = across(value)
        out.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#eee"/>')
        out.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:,.0f}</text>')
    out.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(chart.x_label)}</text>')
    above = float(HEIGHT)
    ordered = sorted(zip(chart.lines.items(), COLOURS, strict=False), key=lambda item: item[0][1][-1])
    for (name, line), colour in ordered:  # from the lowest end up, so that labels move only upwards
        points = [(across(x), down(y)) for x, y in zip(chart.x, line, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        above = min(points[-1][1] + 4, above - LABEL_PIXELS)
        out.append(f'<text x="{right + 9}" y="{above:.1f}" fill="{colour}">{escape(name)}</text>')
    return out
