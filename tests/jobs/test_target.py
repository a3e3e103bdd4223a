"""Laws of targets: what is written is what is meant, and what cannot be meant is refused in one line."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsmith.errors import BadInput
from archsmith.jobs.target import UNITS, Target, check_targets, parse_targets

READ = [
    ("latency<=5ms", "latency", 5.0),
    ("latency <= 0.5 s", "latency", 500.0),
    ("latency<=800us", "latency", 0.8),
    ("LATENCY<=5MS", "latency", 5.0),
    ("size<=20MB", "size", 20e6),
    ("size<=20MiB", "size", 20 * 2**20),
    ("size<=900kb", "size", 900e3),
    ("memory<=1.5GB", "memory", 1.5e9),
    ("parameters<=10M", "parameters", 10e6),
    ("parameters<=12345", "parameters", 12345.0),
    ("macs<=1.2G", "macs", 1.2e9),
    ("macs<=3e8", "macs", 3e8),
    ("drop<=1.0", "drop", 1.0),
    ("drop<=-0.5 points", "drop", -0.5),
    ("perplexity<=18.5", "perplexity", 18.5),
    ("perplexity<=1.2x", "perplexity", 1.2),
    ("quality>=90", "quality", 90.0),
]

REFUSED = [
    ("latncy<=5ms", "'latncy'"),
    ("latency<5ms", "'<'"),
    ("latency=5ms", "'='"),
    ("latency>=5ms", "bounded from above"),
    ("quality<=90", "bounded from below"),
    ("latency<=5", "no unit"),
    ("latency<=5MB", "'MB'"),
    ("size<=20XB", "'XB'"),
    ("size<=0MB", "above zero"),
    ("latency<=-1ms", "above zero"),
    ("latency<=1e999ms", "finite"),
    ("quality>=101", "from 0 to 100"),
    ("drop<=nan", "a number"),
    ("drop<=1%", "'%'"),
    ("macs<=1.2.3M", "'1.2.3'"),
    ("macs<=M", "a number"),
    ("latency", "a metric"),
    ("", "a metric"),
]


@pytest.mark.parametrize(("text", "metric", "limit"), READ)
def test_a_target_means_what_it_says(text: str, metric: str, limit: float) -> None:
    target = Target.parse(text)
    assert target.metric == metric
    assert target.limit == pytest.approx(limit)
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(("text", "found"), REFUSED)
def test_what_cannot_be_meant_is_refused_in_one_line_with_the_way_out(text: str, found: str) -> None:
    with pytest.raises(BadInput) as error:
        Target.parse(text)
    message = str(error.value)
    assert found in message and "--target" in message and "\n" not in message
    assert message.count(". ") >= 1, "the way out is missing"


@pytest.mark.parametrize(
    "texts", [("latency<=4ms", "latency<=5ms"), ("drop<=1", "size<=1MB", "drop<=1"), ("latency<=4ms", "latency>=5ms")]
)
def test_a_budget_bounds_each_metric_once(texts: tuple[str, ...]) -> None:
    with pytest.raises(BadInput):
        parse_targets(texts)


def test_one_target_object_twice_is_no_contradiction_but_two_equal_ones_are() -> None:
    target = Target.parse("drop<=1")
    assert check_targets([target, Target.parse("size<=1MB")])[0] is target
    with pytest.raises(BadInput, match="each metric once"):
        check_targets([target, Target.parse("drop<=1")])


@given(st.sampled_from(sorted(UNITS)), st.floats(0.01, 90), st.floats(0.01, 200))
def test_met_and_missed_by_agree(metric: str, limit: float, value: float) -> None:
    unit = sorted(UNITS[metric])[0]
    target = Target.parse(f"{metric}{'>=' if metric == 'quality' else '<='}{limit!r}{unit}")
    scaled = value * UNITS[metric][unit]
    assert target.met(scaled) == (target.missed_by(scaled) == 0)
    assert target.in_unit(scaled) == pytest.approx(value)
    assert target.met(target.limit) and not target.met(math.nan)
