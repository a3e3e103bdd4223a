"""A Gaussian process over encoded architectures (Rasmussen & Williams 2006), small and exact.

The kernel is k(x, x') = exp(-|x - x'|^2 / (2 l^2)) + w (x - c).(x' - c) / D. Its first part is a product over choices,
since encodings are one-hot where values have no order: how far apart two values are. The second is what each choice
does by itself, whatever the others are: of few trials that is all that can be learnt, and of points far from all of
them all that is known. N: trials; D: coordinates; M: points asked about; l: length scale; w: weight; c: centre.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.stats import norm, rankdata

LENGTHS = (0.5, 0.8, 1.3, 2.1, 3.4)  # in the typical distance between two points
WEIGHTS = (0.3, 1.0, 3.0)
NOISES = (5e-2, 0.2, 0.5)  # of the scale: normal scores have that much of their own, whatever the training has
FITTED = 150  # trials that the length scale and the noise are chosen on, at most: the best of them
JITTER = 1e-8
ROOM = 5e7  # numbers that are kept for points that are watched: 400 MB, and twice that while they grow


class Scaled(NamedTuple):
    """Points as a kernel takes them: `rows` (N, D), and what each is squared, `squares` (N,)."""

    rows: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True, eq=False)
class Hyper:
    """What the kernel and the noise are. `unit` (D,): what coordinates are divided by, so that none that spreads wider
    than a choice outweighs all others; `centre` (D,)."""

    length: float
    weight: float
    noise: float
    unit: np.ndarray
    centre: np.ndarray

    def scaled(self, x: np.ndarray) -> Scaled:
        """(N, D) in the units of the kernel."""
        rows = (x - self.centre) / self.unit
        return Scaled(rows, (rows**2).sum(axis=1))

    def like(self, a: Scaled, b: Scaled) -> np.ndarray:
        """The kernel (N, M) of N and M points."""
        inner = a.rows @ b.rows.T
        near = np.exp(apart(a, b, inner) / (-2 * self.length**2))
        return np.asarray(near + self.weight / a.rows.shape[1] * inner)

    def own(self, x: Scaled) -> np.ndarray:
        """(M,) the kernel of each point with itself."""
        return np.asarray(1.0 + self.weight / x.rows.shape[1] * x.squares)


@dataclass(frozen=True, eq=False)
class Process:
    """A process that has seen points `x` (N, D) with values `z` (N,); `factor` (N, N) is lower triangular."""

    x: np.ndarray
    z: np.ndarray
    level: float
    hyper: Hyper
    factor: np.ndarray

    @property
    def white(self) -> np.ndarray:
        """(N,) what each value told beyond those before it."""
        return np.asarray(solve_triangular(self.factor, self.z - self.level, lower=True, check_finite=False))

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, D) -> mean and standard deviation (M,) of what would be measured without noise."""
        asked = self.hyper.scaled(x)
        k_NM = self.hyper.like(self.hyper.scaled(self.x), asked)
        half_NM = solve_triangular(self.factor, k_NM, lower=True, check_finite=False)
        return self.told(half_NM, self.hyper.own(asked) - (half_NM**2).sum(axis=0))

    def told(self, half_NM: np.ndarray, left_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (M,), from the whitened kernel and the share of variance that it leaves."""
        white = self.white
        scale = max(float(white @ white / len(white)), 1e-9)  # the variance that fits best, in closed form
        return white @ half_NM + self.level, np.sqrt(scale * np.maximum(left_M, 1e-12))

    def believing(self, x: np.ndarray) -> Process:
        """The process if these points (M, D), which are being measured, turn out as it predicts (kriging believer,
        Ginsbourger et al. 2010)."""
        more, values = np.vstack([self.x, x]), np.concatenate([self.z, self.predict(x)[0]])
        return conditioned(more, values, self.level, self.hyper)


class Watched:
    """Points (M, D) that a process is asked about time and again: a trial more costs N x M, not N^2 x M.

    What it keeps is a cache: it is made anew where the process has not grown out of the last one.
    """

    def __init__(self, points: np.ndarray) -> None:
        self.points = points
        self._hyper: Hyper | None = None
        self._seen = np.empty((0, points.shape[1]))
        self._half = np.empty((0, len(points)))
        self._explained = np.zeros(len(points))
        self._scaled: Scaled | None = None

    def predict(self, process: Process) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (M,) of every point."""
        count = len(process.x)
        if count * len(self.points) > ROOM:
            return process.predict(self.points)
        same = 0
        if self._hyper is not process.hyper or self._scaled is None:
            self._scaled = process.hyper.scaled(self.points)
        else:
            alike = np.all(self._seen[:count] == process.x[: len(self._seen)], axis=1)
            same = int(alike.argmin()) if not alike.all() else len(alike)
        if same < len(self._seen):
            self._explained = (self._half[:same] ** 2).sum(axis=0)
        if len(self._half) < count:
            room = np.empty((2 * count, len(self.points)))
            room[:same] = self._half[:same]
            self._half = room
        k_XM = process.hyper.like(process.hyper.scaled(process.x[same:]), self._scaled)
        known = process.factor[same:, :same] @ self._half[:same]
        new_XM = solve_triangular(process.factor[same:, same:], k_XM - known, lower=True, check_finite=False)
        self._half[same:count] = new_XM
        self._explained = self._explained + (new_XM**2).sum(axis=0)
        self._hyper, self._seen = process.hyper, process.x.copy()
        return process.told(self._half[:count], process.hyper.own(self._scaled) - self._explained)


def conditioned(x: np.ndarray, z: np.ndarray, level: float, hyper: Hyper) -> Process:
    """A process with this mean and kernel."""
    seen = hyper.scaled(x)
    k_NN = hyper.like(seen, seen) + (hyper.noise + JITTER) * np.eye(len(x))
    return Process(x, z, level, hyper, cholesky(k_NN, lower=True, check_finite=False))


def fit_process(x: np.ndarray, z: np.ndarray, hyper: Hyper | None = None) -> Process:
    """A process that has seen x (N, D) and z (N,), minimised; its kernel is `likely` unless given."""
    return conditioned(x, z, float(z.mean()), likely(x, z) if hyper is None else hyper)


def likely(x: np.ndarray, z: np.ndarray) -> Hyper:
    """The kernel and noise of greatest marginal likelihood among those above, on the best trials."""
    few = np.argsort(z, kind="stable")[:FITTED]
    unit, centre = np.maximum(x.std(axis=0), 1.0), x.mean(axis=0)
    best = Hyper(1.0, 0.0, 0.0, unit, centre).scaled(x[few])
    rest = (z - z.mean())[few]
    distances = apart(best, best, best.rows @ best.rows.T)[np.triu_indices(len(few), 1)]
    typical = max(float(np.sqrt(np.median(distances))), 1e-6) if len(distances) else 1.0
    found: list[tuple[float, Hyper]] = []
    for share in LENGTHS:
        for weight in WEIGHTS:
            hyper = Hyper(typical * share, weight, 0.0, unit, centre)
            values, vectors = np.linalg.eigh(hyper.like(best, best))
            turned = (vectors.T @ rest) ** 2
            for noise in NOISES:
                spectrum = np.maximum(values, 0.0) + noise + JITTER
                scale = max(float((turned / spectrum).mean()), 1e-9)
                likelihood = -0.5 * float(len(few) * np.log(scale) + np.log(spectrum).sum())
                found.append((likelihood, replace(hyper, noise=noise)))
    return max(found, key=lambda pair: pair[0])[1]


def scores(y: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks, (N,) of mean 0 and deviation about 1, in the order of y: a few networks that did not
    train at all would otherwise be all that is explained."""
    return np.asarray(norm.ppf((rankdata(y) - 0.5) / len(y)))


def apart(a: Scaled, b: Scaled, inner_NM: np.ndarray) -> np.ndarray:
    """Squared distances (N, M), from the inner products."""
    return np.asarray(np.maximum(a.squares[:, None] + b.squares - 2 * inner_NM, 0.0))
