"""A Gaussian process over encoded architectures (Rasmussen & Williams 2006), small and exact.

The kernel is k(x, x') = exp(-|x - x'|^2 / (2 l^2)), since encodings are one-hot where values have no order: there it is
a product over choices, each of which says how far apart two of its values are. N: trials; D: coordinates; M: points
asked about; l: length scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.stats import norm, rankdata

LENGTHS = (0.5, 0.8, 1.2, 1.8, 2.7, 4.0)  # in the typical distance between two points
NOISES = (5e-2, 0.2, 0.5)  # of the scale: normal scores have that much of their own, whatever the training has
FITTED = 200  # trials that the length scale and the noise are chosen on, at most: the best of them
JITTER = 1e-8
ROOM = 5e7  # numbers that are kept for points that are watched: 400 MB, and twice that while they grow


@dataclass(frozen=True, eq=False)
class Trend:
    """A ridge regression on centred coordinates: the mean of a process."""

    weights: np.ndarray
    constant: float

    def at(self, x: np.ndarray) -> np.ndarray:
        """(M, D) -> (M,)"""
        return np.asarray(x @ self.weights + self.constant)


@dataclass(frozen=True, eq=False)
class Hyper:
    """A length scale, a noise, and (D,) what coordinates are divided by, so that none that spreads wider than a choice
    outweighs all others."""

    length: float
    noise: float
    unit: np.ndarray


@dataclass(frozen=True, eq=False)
class Process:
    """A process that has seen points `x` (N, D) with values `z` (N,); `factor` (N, N) is lower triangular."""

    x: np.ndarray
    z: np.ndarray
    trend: Trend
    hyper: Hyper
    factor: np.ndarray

    @property
    def white(self) -> np.ndarray:
        """(N,) what each value told beyond those before it."""
        return np.asarray(solve_triangular(self.factor, self.z - self.trend.at(self.x), lower=True, check_finite=False))

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, D) -> mean and standard deviation (M,) of what would be measured without noise."""
        half_NM = solve_triangular(self.factor, self.like(self.x, x), lower=True, check_finite=False)
        return self.told(x, half_NM, (half_NM**2).sum(axis=0))

    def like(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(N, D), (M, D) -> (N, M), how alike points are."""
        return kernel(a / self.hyper.unit, b / self.hyper.unit, self.hyper.length)

    def told(self, x: np.ndarray, half_NM: np.ndarray, explained_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (M,), from the whitened kernel and the sum of its squares."""
        white = self.white
        scale = max(float(white @ white / len(white)), 1e-9)  # the variance that fits best, in closed form
        mean = white @ half_NM + self.trend.at(x)
        return mean, np.sqrt(scale * np.maximum(1.0 - explained_M, 1e-12))

    def believing(self, x: np.ndarray) -> Process:
        """The process if these points (M, D), which are being measured, turn out as it predicts (kriging believer,
        Ginsbourger et al. 2010)."""
        more, values = np.vstack([self.x, x]), np.concatenate([self.z, self.predict(x)[0]])
        return conditioned(more, values, self.trend, self.hyper)


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

    def predict(self, process: Process) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (M,) of every point."""
        count = len(process.x)
        if count * len(self.points) > ROOM:
            return process.predict(self.points)
        same = 0
        if self._hyper is process.hyper:
            alike = np.all(self._seen[:count] == process.x[: len(self._seen)], axis=1)
            same = int(alike.argmin()) if not alike.all() else len(alike)
        if same < len(self._seen):
            self._explained = (self._half[:same] ** 2).sum(axis=0)
        if len(self._half) < count:
            room = np.empty((2 * count, len(self.points)))
            room[:same] = self._half[:same]
            self._half = room
        k_XM = process.like(process.x[same:], self.points)
        known = process.factor[same:, :same] @ self._half[:same]
        new_XM = solve_triangular(process.factor[same:, same:], k_XM - known, lower=True, check_finite=False)
        self._half[same:count] = new_XM
        self._explained = self._explained + (new_XM**2).sum(axis=0)
        self._hyper, self._seen = process.hyper, process.x.copy()
        return process.told(self.points, self._half[:count], self._explained)


def conditioned(x: np.ndarray, z: np.ndarray, trend: Trend, hyper: Hyper) -> Process:
    """A process with this length scale and noise."""
    near = x / hyper.unit
    k_NN = kernel(near, near, hyper.length) + (hyper.noise + JITTER) * np.eye(len(x))
    return Process(x, z, trend, hyper, cholesky(k_NN, lower=True, check_finite=False))


def fit_process(x: np.ndarray, z: np.ndarray, hyper: Hyper | None = None) -> Process:
    """A process that has seen x (N, D) and z (N,), minimised; its length scale and noise are `likely` unless given."""
    return conditioned(x, z, ridge(x, z), likely(x, z) if hyper is None else hyper)


def units(x: np.ndarray) -> np.ndarray:
    """(D,) the spread of a coordinate where it is above 1, else 1."""
    return np.asarray(np.maximum(x.std(axis=0), 1.0))


def likely(x: np.ndarray, z: np.ndarray) -> Hyper:
    """The length scale and noise of greatest marginal likelihood among those above, on the best trials."""
    few = np.argsort(z, kind="stable")[:FITTED]
    rest = (z - ridge(x, z).at(x))[few]
    unit = units(x)
    near = (x / unit)[few]
    apart = squares(near, near)[np.triu_indices(len(few), 1)]
    typical = max(float(np.sqrt(np.median(apart))), 1e-6) if len(apart) else 1.0
    found: list[tuple[float, float, float]] = []
    for share in LENGTHS:
        values, vectors = np.linalg.eigh(kernel(near, near, typical * share))
        turned = vectors.T @ rest
        for noise in NOISES:
            spectrum = np.maximum(values, 0.0) + noise + JITTER
            scale = max(float((turned**2 / spectrum).mean()), 1e-9)
            likelihood = -0.5 * float(len(few) * np.log(scale) + np.log(spectrum).sum())
            found.append((likelihood, typical * share, noise))
    _, length, noise = max(found)
    return Hyper(length, noise, unit)


def scores(y: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks, (N,) of mean 0 and deviation about 1, in the order of y: a few networks that did not
    train at all would otherwise be all that is explained."""
    return np.asarray(norm.ppf((rankdata(y) - 0.5) / len(y)))


def ridge(x: np.ndarray, z: np.ndarray, hold: float = 1.0) -> Trend:
    """Of (N, D) and (N,)."""
    centre = x.mean(axis=0)
    inner = x - centre
    weights = np.linalg.solve(inner.T @ inner + hold * np.eye(x.shape[1]), inner.T @ (z - z.mean()))
    return Trend(weights, float(z.mean() - centre @ weights))


def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (N, M) of (N, D) and (M, D)."""
    return np.asarray(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0.0))


def kernel(a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    """(N, M)"""
    return np.asarray(np.exp(-squares(a, b) / (2 * length**2)))
