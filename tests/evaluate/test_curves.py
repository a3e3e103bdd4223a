"""Learning curves of real networks, and the ends that are foreseen for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr
from sklearn.datasets import load_digits

from archsmith.build import Declared
from archsmith.errors import BadInput
from archsmith.evaluate.curves import Extrapolated, area, extrapolated
from archsmith.evaluate.from_scratch import FromScratch, Ground
from archsmith.space import Architecture
from archsmith.tasks import ImageClassification
from archsmith.tasks.pictures import Preparation
from archsmith.train.recipe import Recipe
from archsmith.trial import Proposal

RECIPE = Recipe(steps=400, batch=32, learning_rate=1e-2, smoothing=0.05)
OPS = {"conv": {"conv": {"out": "in"}}, "separable": {"separable": {"out": "in"}}}
NORMS = {"batch_norm": "batch_norm", "skip": "skip"}
DIGITS = Declared(
    {"width": [2, 4, 8, 16], "op": list(OPS), "norm": list(NORMS)},
    [
        {"conv": {"out": "$width", "kernel": 3}},
        "relu",
        {"repeat": 2, "of": [{"pick": "$op", "of": OPS}, {"pick": "$norm", "of": NORMS}, "relu"]},
        "mean",
        {"linear": {"out": "$classes"}},
    ],
)


@dataclass(frozen=True)
class Seen:
    """Networks, their evaluator, and their curves of the whole training as (share, points)."""

    maker: FromScratch
    points: list[Architecture]
    curves: list[np.ndarray]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    file: Path = tmp_path_factory.mktemp("digits") / "data.npz"
    data = load_digits()
    np.savez(file, image=(data.images * 255 / 16).astype(np.uint8)[..., None], label=data.target)
    task = ImageClassification.from_files(
        file, prepared=Preparation(8, 8, (0.3,), (0.37,)), rng=np.random.default_rng(0), argument="x"
    )
    ground = Ground.of(task)
    maker, every = FromScratch(ground, DIGITS, RECIPE), list(DIGITS.space.points())
    points = [every[number] for number in np.random.default_rng(0).permutation(len(every))[:8]]
    curves = []
    for point in points:
        checks: list[tuple[float, float]] = []
        maker.trained(ground.plan(DIGITS, point), RECIPE, checks=20, ends=lambda seen, to=checks: to.append(seen[-1]))
        curves.append(np.array(checks))
    return Seen(maker, points, curves)


def test_from_half_of_the_curve_the_end_is_foreseen_better_than_by_what_was_seen_last(digits: Seen) -> None:
    halves = [curve[curve[:, 0] <= 0.5] for curve in digits.curves]
    final = np.array([curve[-1, 1] for curve in digits.curves])
    foreseen = np.array([extrapolated(*half.T, RECIPE.warmup).value for half in halves])
    last = np.array([half[-1, 1] for half in halves])
    assert len(halves[0]) == 10 and np.ptp(final) > 30
    assert np.abs(foreseen - final).mean() < 0.85 * np.abs(last - final).mean()
    assert spearmanr(foreseen, final).statistic >= spearmanr(last, final).statistic
    assert kendalltau(foreseen, final).statistic >= kendalltau(last, final).statistic


def test_what_is_foreseen_is_told_with_its_doubt(digits: Seen) -> None:
    for share, sure in ((0.25, 0.6), (0.5, 0.6)):
        within = []
        for curve in digits.curves:
            end = extrapolated(*curve[curve[:, 0] <= share].T, RECIPE.warmup)
            within.append(abs(end.value - curve[-1, 1]) <= 2 * end.spread + 1)
            assert 0 <= end.optimistic <= end.value
        assert np.mean(within) >= sure


def test_a_network_is_trained_in_part_by_the_schedule_of_the_whole(digits: Seen) -> None:
    point, curve = digits.points[0], digits.curves[0]
    half = curve[curve[:, 0] <= 0.5]
    judge = Extrapolated(digits.maker)
    values = judge(Proposal(point), np.random.default_rng(0))
    assert values["trained_share"] == 0.5 and values["loss_points_seen"] == half[-1, 1]
    assert values["loss_points"] == extrapolated(*half.T, RECIPE.warmup).value
    assert values["parameters"] > 0 and values["loss_points_spread"] > 0
    assert values == judge(Proposal(point), np.random.default_rng(1))
    short = Extrapolated(replace(digits.maker, recipe=replace(RECIPE, steps=40)), share=1.0)
    whole = short(Proposal(point), np.random.default_rng(0))
    plain = short.maker(Proposal(point), np.random.default_rng(0))
    assert whole["loss_points"] == whole["loss_points_seen"] == plain["loss_points"]


def test_a_network_is_left_once_nearly_all_that_it_may_become_is_worse_than_the_bound(digits: Seen) -> None:
    final = [curve[-1, 1] for curve in digits.curves]
    good, bad = digits.points[int(np.argmin(final))], digits.points[int(np.argmax(final))]
    judge = Extrapolated(digits.maker, bound=min(final))
    left, kept = (judge(Proposal(point), np.random.default_rng(0)) for point in (bad, good))
    assert left["trained_share"] < 0.5 and left["loss_points"] > min(final)
    assert kept["trained_share"] == 0.5


NAN = float("nan")
CURVES: list[tuple[str, list[float], float, float]] = [
    ("too few values", [80.0, 60.0], 60.0, 60.0),
    ("values that are not finite", [80.0, NAN, 60.0, NAN], 60.0, 60.0),
    ("flat", [90.0] * 8, 85.0, 90.0),
    ("nothing left to lose", [50.0, 3.0, 0.0, 0.0, 0.0, 0.0], 0.0, 0.0),
    ("nothing lost", [0.0] * 8, 0.0, 0.0),
    ("rising", [5.0, 10.0, 20.0, 40.0, 60.0, 80.0], 80.0, 80.0),
    ("falling", [90.0, 70.0, 55.0, 44.0, 36.0, 30.0], 10.0, 30.0),
    ("far beyond", [1e9, 1e8, 1e7, 1e6, 1e5, 1e4], 0.0, 1e4),
    ("falling like a stone", [100.0, 50.0, 1.0, 0.5, 0.1, 0.0], 0.0, 0.6),
]


@pytest.mark.parametrize(("points", "least", "most"), [row[1:] for row in CURVES], ids=[row[0] for row in CURVES])
def test_no_curve_ends_where_it_cannot(points: list[float], least: float, most: float) -> None:
    shares = np.linspace(0.5 / len(points), 0.5, len(points))
    end = extrapolated(shares, points, 0.05)
    assert least - 1e-9 <= end.value <= most + 1e-9
    assert np.isfinite([end.value, end.spread, end.optimistic]).all() and 0 <= end.optimistic <= end.value
    assert end == extrapolated(shares, points, 0.05)


def test_a_known_law_is_continued() -> None:
    """A power law of the schedule's area: seen for half of the steps."""
    shares = np.linspace(0.025, 1, 40)
    law = np.expm1(1.0 + 2.0 * (area(shares, 0.0) + 0.02) ** -0.2 - 2.0)
    end = extrapolated(shares[:20], law[:20])
    assert abs(end.value - law[-1]) < 0.5 * abs(law[19] - law[-1])


def test_what_cannot_be_a_curve_is_said(digits: Seen) -> None:
    with pytest.raises(BadInput, match="has a finite value"):
        extrapolated([0.1, 0.2], [NAN, NAN])
    for wrong in ({"share": 0.0}, {"share": 1.5}, {"checks": 0}):
        with pytest.raises(BadInput, match="a curve is seen for a share of its steps"):
            Extrapolated(digits.maker, **wrong)
