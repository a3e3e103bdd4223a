"""Latency as a table: what each block adds at each width, fitted to a few timed whole networks.

A network is described by its blocks. Blocks that are built alike form a group (all attention blocks of an encoder, all
its feed-forward blocks, its layers); a block that is skipped is not listed. Latency is

    ms = f_0(r) + sum over groups g, over blocks b of g:  f_g(width_b, r)

where r is the residual width as a share of the original's, every f is piecewise linear and never falls in the width,
and is linear in r between knots: c + d*r. A group's value at its smallest width holds the constant of one kept block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import nnls

from archsmith.errors import BadInput

Widths = Mapping[str, Sequence[float]]

# How strongly a curve is held straight where the probes do not say otherwise (weight of a bend, in relative ms).
STRAIGHT = 0.3
KNOTS = 4  # of one curve; more than the bends that kernels have would follow noise


@dataclass(frozen=True)
class Curve:
    """One group's cost of a block: at `knots` (units of width, rising) it is `ms` + `ms_residual` * r."""

    knots: tuple[float, ...]
    ms: tuple[float, ...]
    ms_residual: tuple[float, ...]

    def at(self, width: float, residual: float = 1.0) -> float:
        """Milliseconds of one block; 0 for width 0 (skipped). Beyond the knots the last slope goes on, never below 0.

        >>> Curve((2.0, 4.0), (1.0, 3.0), (0.0, 0.0)).at(5.0)
        4.0
        """
        if width <= 0:
            return 0.0
        values = [a + b * residual for a, b in zip(self.ms, self.ms_residual, strict=True)]
        return max(0.0, float(_hats(width, self.knots) @ np.array(values)))


@dataclass(frozen=True)
class Probe:
    """One network that was timed: group -> width of each kept block, residual share, median milliseconds."""

    widths: Mapping[str, tuple[float, ...]]
    ms: float
    residual: float = 1.0


@dataclass(frozen=True)
class LatencyModel:
    """Predicts the latency of an architecture in the setting in which its probes were timed.

    `base` (constant, times residual share) is what remains when every block is gone. `errors` are relative, one a
    probe, each predicted by a fit that did not see it; where leaving it out leaves a curve without a knot the number
    is a pessimistic one.
    """

    base: tuple[float, float]
    curves: Mapping[str, Curve]
    probes: tuple[Probe, ...] = ()
    errors: tuple[float, ...] = ()
    setting: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, widths: Widths, residual: float = 1.0) -> float:
        """Milliseconds of a network with these blocks. Raises `BadInput` for a group it has not seen."""
        total = self.base[0] + self.base[1] * residual
        return total + sum(self.block_ms(group, width, residual) for group, row in widths.items() for width in row)

    def block_ms(self, group: str, width: float, residual: float = 1.0) -> float:
        """What one block of `group` adds: the additive cost that exact selection needs."""
        if group not in self.curves:
            raise BadInput("a latency model knows the groups it was fitted on", repr(group), ", ".join(self.curves))
        return self.curves[group].at(width, residual)

    def scaled(self, factor: float) -> LatencyModel:
        """The same model on a machine (or at a moment) that is `factor` times slower."""
        return LatencyModel(
            (self.base[0] * factor, self.base[1] * factor),
            {
                group: Curve(c.knots, tuple(v * factor for v in c.ms), tuple(v * factor for v in c.ms_residual))
                for group, c in self.curves.items()
            },
            tuple(Probe(p.widths, p.ms * factor, p.residual) for p in self.probes),
            self.errors,
            self.setting,
        )

    @property
    def typical_error(self) -> float:
        """Median of the left-out errors, relative; NaN when none could be made."""
        return float(np.median(self.errors)) if self.errors else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives the same model back."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> LatencyModel:
        """Raises `BadInput` where the data is not a latency model."""
        try:
            return LatencyModel(
                (float(data["base"][0]), float(data["base"][1])),
                {
                    group: Curve(tuple(c["knots"]), tuple(c["ms"]), tuple(c["ms_residual"]))
                    for group, c in data["curves"].items()
                },
                tuple(
                    Probe({g: tuple(row) for g, row in p["widths"].items()}, p["ms"], p["residual"])
                    for p in data["probes"]
                ),
                tuple(data["errors"]),
                dict(data["setting"]),
            )
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise BadInput("a latency model is JSON with base, curves, probes, errors, setting", repr(error)) from error


def fit_latency(probes: Sequence[Probe], setting: Mapping[str, Any] | None = None) -> LatencyModel:
    """Fit curves to timed networks by non-negative least squares of the relative error.

    Knots are widths that the probes have; monotone because every step between knots is at least 0. A curve is
    held straight where the probes leave it open. Raises `BadInput` without probes or with a time that is not positive.

    >>> alike = lambda n, width: {"ffn": (width,) * n}
    >>> probes = [Probe(alike(n, w), 1.0 + n * (0.5 + 0.01 * w)) for n, w in [(1, 100), (6, 100), (6, 10), (1, 10)]]
    >>> round(fit_latency(probes).predict({"ffn": (10, 55, 100)}), 2)
    4.15
    """
    if not probes:
        raise BadInput("a latency model needs at least one timed network", "none")
    for probe in probes:
        if not probe.ms > 0:
            raise BadInput("a timed network takes more than 0 ms", str(probe.ms))
    base, curves = _solve(probes, _knots(probes))
    errors = tuple(_left_out(probes, index) for index in range(len(probes))) if len(probes) > 2 else ()
    return LatencyModel(base, curves, tuple(probes), errors, dict(setting or {}))


def _left_out(probes: Sequence[Probe], index: int) -> float:
    """Relative error on one probe of a fit to the others, with the knots of all."""
    rest = [probe for other, probe in enumerate(probes) if other != index]
    base, curves = _solve(rest, _knots(probes))
    left = probes[index]
    return abs(LatencyModel(base, curves).predict(left.widths, left.residual) - left.ms) / left.ms


def _knots(probes: Sequence[Probe]) -> dict[str, tuple[float, ...]]:
    """Per group the smallest and largest width seen and at most two between, evenly spread over those seen."""
    seen: dict[str, set[float]] = {}
    for probe in probes:
        for group, row in probe.widths.items():
            seen.setdefault(group, set()).update(float(width) for width in row if width > 0)
    knots = {}
    for group, widths in seen.items():
        if widths:
            wanted = np.linspace(min(widths), max(widths), KNOTS)
            knots[group] = tuple(sorted({min(widths, key=lambda width: abs(width - w)) for w in wanted}))
    return knots


def _hats(width: float, knots: Sequence[float]) -> np.ndarray:
    """Weights (len(knots),) of linear interpolation at `width`; outside the knots the nearest segment goes on."""
    weights = np.zeros(len(knots))
    if len(knots) == 1:
        weights[0] = 1.0
        return weights
    right = int(np.clip(np.searchsorted(knots, width), 1, len(knots) - 1))
    share = (width - knots[right - 1]) / (knots[right] - knots[right - 1])
    weights[right - 1], weights[right] = 1 - share, share
    return weights


def _solve(
    probes: Sequence[Probe], knots: Mapping[str, tuple[float, ...]]
) -> tuple[tuple[float, float], dict[str, Curve]]:
    """The fit itself. Unknowns: the base, and per group the first knot's value and the steps between knots."""
    # One row a probe, one column an unknown; a step counts for all the knots at and above it.
    plain = np.array(
        [
            np.concatenate(
                [[1.0]]
                + [
                    np.cumsum(sum((_hats(w, ks) for w in probe.widths.get(g, ()) if w > 0), np.zeros(len(ks)))[::-1])[
                        ::-1
                    ]
                    for g, ks in knots.items()
                ]
            )
            for probe in probes
        ]
    )
    residual = np.array([probe.residual for probe in probes])
    varies = bool(np.ptp(residual) > 0)
    rows = np.hstack([plain, plain * residual[:, None]]) if varies else plain
    ms = np.array([probe.ms for probe in probes])
    rows_relative = rows / ms[:, None]
    bends = _bends(knots, plain.shape[1], np.median(ms))
    if varies:
        bends = np.vstack([np.hstack([bends, 0 * bends]), np.hstack([0 * bends, bends])])
    # A little weight decay, in units of each column's own reach, shares what the probes cannot tell apart.
    decay = 1e-4 * np.diag(np.maximum(rows_relative.max(axis=0), 1e-12))
    left = np.vstack([rows_relative, bends, decay])
    right = np.concatenate([np.ones(len(probes)), np.zeros(len(bends) + len(decay))])
    solution, _ = nnls(left, right)
    constant = solution[: plain.shape[1]]
    slope = solution[plain.shape[1] :] if varies else np.zeros(plain.shape[1])
    curves, column = {}, 1
    for group, widths in knots.items():
        part = slice(column, column + len(widths))
        curves[group] = Curve(
            widths,
            tuple(float(v) for v in np.cumsum(constant[part])),
            tuple(float(v) for v in np.cumsum(slope[part])),
        )
        column += len(widths)
    return (float(constant[0]), float(slope[0])), curves


def _bends(knots: Mapping[str, tuple[float, ...]], columns: int, typical_ms: float) -> np.ndarray:
    """Rows that punish a change of slope between neighbouring segments, in relative milliseconds of a full width."""
    rows = []
    column = 1
    for widths in knots.values():
        for middle in range(1, len(widths) - 1):
            row = np.zeros(columns)
            reach = widths[-1] - widths[0]
            row[column + middle] = -reach / (widths[middle] - widths[middle - 1])
            row[column + middle + 1] = reach / (widths[middle + 1] - widths[middle])
            rows.append(STRAIGHT * row / typical_ms)
        column += len(widths)
    return np.array(rows).reshape(len(rows), columns)
