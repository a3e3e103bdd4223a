"""The ladder as one small SVG, for a README or a slide; it follows the reader's light or dark scheme."""

from __future__ import annotations

from html import escape
from pathlib import Path

from archsmith.report import show
from archsmith.report.plain import write_text
from archsmith.report.result import Result, Variant

WIDTH, ROW, TOP, LEFT, BAR = 760, 46, 52, 215, 285
STYLE = """
text { font: 14px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; fill: #1d1f23 }
.soft { fill: #63676f; font-size: 12px } .strong { font-weight: 600 } .title { font-weight: 600; font-size: 16px }
rect { fill: #1f5fbf } rect.first { fill: #9aa0a8 }
@media (prefers-color-scheme: dark) {
  text { fill: #e9e7e2 } .soft { fill: #9da2aa } rect { fill: #7fb1ff } rect.first { fill: #6b7078 }
}"""


def ladder_svg(result: Result, title: str) -> str:
    """Latency as bars, one a rung, with the speed-up and the quality beside each."""
    slowest = max([rung.latency_ms or 0.0 for rung in result.ladder] + [1e-9])
    rows = [_row(rung, result, i, (rung.latency_ms or 0.0) / slowest) for i, rung in enumerate(result.ladder)]
    height = TOP + ROW * len(rows) + 8
    heading = escape(f"{title}: latency, and {result.metric} on {result.best.measured_on}")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{heading}</title>",
            f"<style>{STYLE}</style>",
            f'<text class="title" x="0" y="22">{heading}</text>',
            *rows,
            "</svg>\n",
        ]
    )


def write_picture(result: Result, title: str, run: Path) -> Path:
    """Write `run/ladder.svg`, whole or not at all. Raises `BadInput` where the disk refuses."""
    return write_text(run / "ladder.svg", ladder_svg(result, title))


def _row(rung: Variant, result: Result, place: int, share: float) -> str:
    y, end = TOP + ROW * place, LEFT + max(2.0, BAR * share)
    look = ' class="first"' if place == 0 else ""
    return (
        f'<text x="0" y="{y + 14}">{escape(show.rung(rung, result))}</text>'
        f'<text class="soft" x="0" y="{y + 30}">{escape(rung.runtime)} {escape(rung.precision)}</text>'
        f'<rect{look} x="{LEFT}" y="{y + 4}" width="{end - LEFT:.1f}" height="18" rx="3"/>'
        f'<text class="soft" x="{end + 8:.1f}" y="{y + 18}">{show.milliseconds(rung.latency_ms)}</text>'
        f'<text class="strong" x="640" y="{y + 18}" text-anchor="end">{show.faster(rung, result.original)}</text>'
        f'<text x="{WIDTH}" y="{y + 18}" text-anchor="end">{show.points(rung.quality)}</text>'
    )
