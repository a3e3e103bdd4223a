"""Learning curves: how a network that has been trained in part would end.

Domhan et al. 2015 fit many parametric families to a curve and weigh them by how well they explain it. The same is done
here, exactly (docs/evaluate.md says how near it comes):

- Time is the area under the learning rate, not the number of steps: with a cosine schedule little is learnt at its
  end, and a curve of steps bends where its family does not.
- Loss is seen as log(1 + points), in which falls are shares of what is left.
- A family is a shape h of the time, z = end + height (h(time) - h(1)). Its one or two bends are taken from a grid, and
  given them the best end and height are a linear problem with a Gaussian answer, so there is no search that could fail,
  nothing is drawn, and weights of all shapes are their exact marginal likelihoods (Bishop 2006, section 3.4).
- The end is held near what was seen last: as far below it as the recent fall and the area that is ahead let expect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

from archsmith.errors import BadInput
from archsmith.evaluate.from_scratch import FromScratch
from archsmith.evaluate.paper import paper_costs
from archsmith.train import Schedule
from archsmith.trial import Proposal

LEAST = 4  # checks from which a curve has a shape
OPTIMISTIC = 0.9  # a network is left where so much of what may become of it is worse than the bound,
SURE_FROM, TWICE = 0.3, 2  # from this share of its steps on, at so many checks in a row: before, curves mislead
FALLS = 1.5  # of the recent fall, that the end is expected below what was seen last; times what is ahead
HELD = 2.0  # of the recent fall, the deviation of that; times what is ahead
TICKS = 1000  # of a schedule, on which its area is summed

Shape = Callable[[np.ndarray, float, float], np.ndarray]
SHAPES: dict[str, tuple[Shape, tuple[float, float], tuple[float, float]]] = {
    # name: h(t, b, d) that falls with t, then the ranges of b and d
    "power": (lambda t, b, d: (t + 0.02) ** -b, (0.05, 3.0), (1.0, 1.0)),
    "exponential": (lambda t, b, d: np.exp(-b * t), (0.2, 20.0), (1.0, 1.0)),
    "inverse logarithm": (lambda t, b, d: 1 / np.log(10 * b * t + np.e), (0.1, 30.0), (1.0, 1.0)),
    "Janoschek": (lambda t, b, d: np.exp(-b * t**d), (0.3, 20.0), (0.5, 5.0)),
    "Morgan-Mercer-Flodin": (lambda t, b, d: 1 / (1 + (b * t) ** d), (0.3, 20.0), (0.5, 6.0)),
}


@dataclass(frozen=True)
class End:
    """How a curve is thought to end, in its own units: the value and its standard deviation; and the value that it is
    above with a probability of `OPTIMISTIC`."""

    value: float
    spread: float
    optimistic: float


def area(shares: np.ndarray, warmup: float) -> np.ndarray:
    """(n,) shares of the steps -> (n,) shares of the area under the schedule's learning rate.

    >>> area(np.array([0.0, 0.5, 1.0]), 0.0).round(2).tolist()
    [0.0, 0.82, 1.0]
    """
    schedule = Schedule(TICKS, learning_rate=1.0, warmup=warmup)
    summed = np.cumsum([0.0, *(schedule.rate(step) for step in range(TICKS))])
    return np.asarray(np.interp(shares, np.linspace(0, 1, TICKS + 1), summed / summed[-1]))


def extrapolated(shares: Sequence[float], points: Sequence[float], warmup: float = 0.0) -> End:
    """The end of a curve of loss points.

    Args:
        shares: (n,) of the whole training, ascending, from 0 to 1.
        points: (n,) loss at them, 0 or more. What is not finite is left out.
        warmup: share of the steps in which the learning rate rose.

    Returns:
        Never below 0, nor above the most that was seen. Of a curve that was seen whole, its last value; of one without
        a shape (fewer than `LEAST` values, or none that falls), the last value with the deviation of its noise. Raises
        `BadInput` where no value is finite.
    """
    share, y = np.asarray(shares, float), np.asarray(points, float)
    seen = np.isfinite(y)
    share, y = share[seen], y[seen]
    if not len(y):
        raise BadInput("a learning curve has a finite value", "none", "", "lower the learning rate")
    if share[-1] >= 1:
        return End(float(y[-1]), 0.0, float(y[-1]))
    z = np.log1p(np.maximum(y, 0))
    noise = float(np.std(np.diff(z)) / np.sqrt(2) + 0.02 * z.max()) if len(z) > 1 else 0.0
    as_seen = _within(float(z[-1]), noise, float(y.max()))
    if len(z) < LEAST or noise == 0:
        return as_seen
    level, half = z[-3:].mean(), len(z) // 2
    fall = max(float(z[len(z) // 4 : half + 1].mean() - level), 0.0)
    time = area(share, warmup)
    shapes_GN, last_G, prior_G = _grid(tuple(time))
    ahead = (1 - time[-1]) / time[-1]
    expected, held = level - FALLS * ahead * fall, ahead * HELD * (fall + noise)
    ends, spreads, weights = [], [], []
    for h_N, h_1, prior in zip(shapes_GN, last_G, prior_G, strict=True):
        x_N2 = np.stack([np.ones(len(z)), h_N - h_1], 1)
        precision_22 = x_N2.T @ x_N2 / noise**2 + np.diag([held**-2, 1e-8])
        pulled_2 = x_N2.T @ z / noise**2 + [expected / held**2, 0.0]
        covariance_22 = np.linalg.inv(precision_22)
        best_2 = covariance_22 @ pulled_2
        if best_2[1] < 0:  # it would rise
            continue
        missed = ((z - x_N2 @ best_2) ** 2).sum() / noise**2 + ((best_2[0] - expected) / held) ** 2
        ends.append(best_2[0])
        spreads.append(np.sqrt(covariance_22[0, 0]))
        weights.append(prior - missed / 2 - np.linalg.slogdet(precision_22)[1] / 2)
    if not ends:
        return as_seen
    weight_G, end_G = np.exp(np.array(weights) - logsumexp(weights)), np.array(ends)
    mean = float(weight_G @ end_G)
    variance = float(weight_G @ (np.array(spreads) ** 2 + (end_G - mean) ** 2))
    # The last values' mean is the ceiling: as the learning rate falls, so does the loss.
    return _within(mean, variance**0.5, float(max(y[-3:].mean(), 0.0)))


@cache
def _grid(time: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(G, N) every shape at every time, (G,) at the end, (G,) log prior: families are as likely as one another."""
    rows, ends, priors = [], [], []
    t_N, end_1 = np.array(time), np.ones(1)
    for shape, (least, most), (flattest, steepest) in SHAPES.values():
        steep = np.geomspace(flattest, steepest, 8) if steepest > flattest else [flattest]
        grid = [(b, d) for b in np.geomspace(least, most, 16) for d in steep]
        for b, d in grid:
            rows.append(shape(t_N, b, d))
            ends.append(float(shape(end_1, b, d)[0]))
            priors.append(-np.log(len(grid)))
    return np.stack(rows), np.array(ends), np.array(priors)


def _within(mean: float, deviation: float, ceiling: float) -> End:
    """A Gaussian of log(1 + points), in points that are possible: from 0 to what was seen."""
    value = float(np.clip(np.expm1(mean), 0.0, ceiling))
    optimistic = float(np.clip(np.expm1(mean + norm.ppf(1 - OPTIMISTIC) * deviation), 0.0, value))
    return End(value, (value + 1) * deviation, optimistic)


@dataclass(frozen=True, eq=False)
class Extrapolated:
    """The evaluator of declared architectures by how their learning curves would end.

    A network is trained for `share` of the steps of its recipe, by the schedule of them all, judged on validation at
    `checks` points, and its curve is continued. Values: `loss_points` (expected at the end), `loss_points_spread`
    (standard deviation of that), `loss_points_seen` (what was seen last), `trained_share`, and `parameters`, `macs`,
    `weight_bytes`. With a `bound` on loss points, a network is left where 90 % of what may become of it is worse.
    """

    maker: FromScratch
    share: float = 0.5
    checks: int = 10
    bound: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.checks < 1:
            law = "a curve is seen for a share of its steps, above 0 and up to 1, at 1 point or more"
            raise BadInput(law, f"share {self.share:g}, {self.checks} checks", "curve", "curve:share=0.5,checks=10")

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        """Build, train in part, and extrapolate one architecture."""
        maker = self.maker
        plan = maker.ground.plan(maker.blueprint, proposal.architecture)
        made = replace(maker, ground=maker.ground.at(proposal.fidelity.get("resolution", 1.0)))
        recipe = maker.recipe_at(proposal)
        curve: list[tuple[float, float]] = []
        hopeless = [0]

        def end() -> End:
            shares, points = zip(*curve, strict=True)
            return extrapolated(shares, points, recipe.warmup)

        def ends(checks: Sequence[tuple[float, float]]) -> bool:
            curve[:] = checks
            if self.bound is not None and curve[-1][0] >= SURE_FROM and np.isfinite(curve[-1][1]):
                hopeless[0] = hopeless[0] + 1 if end().optimistic > self.bound else 0
            return hopeless[0] == TWICE or curve[-1][0] >= self.share - 1e-9

        seen = made.ground.plan(maker.blueprint, proposal.architecture)
        made.trained(seen, recipe, checks=round(self.checks / self.share), ends=ends)
        foreseen = end()
        last = [value for _, value in curve if np.isfinite(value)][-1]
        return {
            "loss_points": foreseen.value,
            "loss_points_spread": foreseen.spread,
            "loss_points_seen": last,
            "trained_share": curve[-1][0],
            **paper_costs(plan),
        }
