"""Laws of the ladder's picture: well-formed, in proportion, and every rung is in it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from archsmith.report.picture import BAR, ladder_svg
from archsmith.report.result import Result

SPACE = "{http://www.w3.org/2000/svg}"


def test_bars_are_in_proportion_to_latency(result: Result) -> None:
    root = ElementTree.fromstring(ladder_svg(result, "minilm"))
    widths = [float(bar.attrib["width"]) for bar in root.iter(f"{SPACE}rect")]
    slowest = result.ladder[0].latency_ms or 0.0
    assert widths == [pytest.approx(BAR * (rung.latency_ms or 0.0) / slowest, abs=0.06) for rung in result.ladder]
    words = [text.text for text in root.iter(f"{SPACE}text")]
    assert {rung.name for rung in result.ladder} <= set(words) and "14.6×" in words


def test_names_and_missing_numbers_leave_it_well_formed(bare: Result) -> None:
    named = replace(bare, ladder=(replace(bare.original, name="<a> & b"),))
    root = ElementTree.fromstring(ladder_svg(named, "</svg>"))
    assert "<a> & b" in [text.text for text in root.iter(f"{SPACE}text")]
