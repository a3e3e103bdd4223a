"""A Gaussian process over encoded architectures (Rasmussen & Williams 2006), small and exact.

The kernel is k(x, x') = exp(-|x - x'|^2 / (2 l^2)), since encodings are one-hot where values have no order: there it is
a product over choices, each of which says how far apart two of its values are. N: trials; D: coordinates; M: points
asked about; l: length scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.stats import norm, rankdata

LENGTHS = (0.5, 0.8, 1.2, 1.8, 2.7, 4.0)  # in the typical distance between two points
NOISES = (1e-3, 1e-2, 5e-2, 0.2)
FITTED = 200  # trials that the length scale and the noise are chosen on, at most: the best of them
JITTER = 1e-8


@dataclass(frozen=True, eq=False)
class Trend:
    """A ridge regression on centred coordinates: the mean of a process."""

    weights: np.ndarray
    constant: float

    def at(self, x: np.ndarray) -> np.ndarray:
        """(M, D) -> (M,)"""
        return np.asarray(x @ self.weights + self.constant)


@dataclass(frozen=True, eq=False)
class Process:
    """A process that has seen points `x` (N, D) with values `z` (N,).

    `unit` (D,): what coordinates are divided by, so that none that spreads wider than a choice outweighs all others.
    """

    x: np.ndarray
    z: np.ndarray
    trend: Trend
    unit: np.ndarray
    length: float
    noise: float
    factor: np.ndarray  # (N, N), lower triangular

    @property
    def scale(self) -> float:
        """The variance that fits best, in closed form."""
        rest = self.z - self.trend.at(self.x)
        return max(float(rest @ cho_solve((self.factor, True), rest) / len(rest)), 1e-9)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, D) -> mean and standard deviation (M,) of what would be measured without noise."""
        k_MN = kernel(x / self.unit, self.x / self.unit, self.length)
        mean = k_MN @ cho_solve((self.factor, True), self.z - self.trend.at(self.x)) + self.trend.at(x)
        half_NM = solve_triangular(self.factor, k_MN.T, lower=True, check_finite=False)
        return mean, np.sqrt(self.scale * np.maximum(1.0 - (half_NM**2).sum(axis=0), 1e-12))

    def believing(self, x: np.ndarray) -> Process:
        """The process if these points (M, D), which are being measured, turn out as it predicts (kriging believer,
        Ginsbourger et al. 2010)."""
        more, values = np.vstack([self.x, x]), np.concatenate([self.z, self.predict(x)[0]])
        return conditioned(more, values, self.trend, self.unit, (self.length, self.noise))


def conditioned(x: np.ndarray, z: np.ndarray, trend: Trend, unit: np.ndarray, hyper: tuple[float, float]) -> Process:
    """A process with this length scale and noise."""
    length, noise = hyper
    k_NN = kernel(x / unit, x / unit, length) + (noise + JITTER) * np.eye(len(x))
    return Process(x, z, trend, unit, length, noise, cholesky(k_NN, lower=True, check_finite=False))


def fit_process(x: np.ndarray, z: np.ndarray, hyper: tuple[float, float] | None = None) -> Process:
    """A process that has seen x (N, D) and z (N,), minimised; its length scale and noise are `likely` unless given."""
    hyper = likely(x, z) if hyper is None else hyper
    return conditioned(x, z, ridge(x, z), units(x), hyper)


def units(x: np.ndarray) -> np.ndarray:
    """(D,) the spread of a coordinate where it is above 1, else 1."""
    return np.asarray(np.maximum(x.std(axis=0), 1.0))


def likely(x: np.ndarray, z: np.ndarray) -> tuple[float, float]:
    """The length scale and noise of greatest marginal likelihood among those above, on the best trials."""
    few = np.argsort(z, kind="stable")[:FITTED]
    rest = (z - ridge(x, z).at(x))[few]
    near = (x / units(x))[few]
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
    return length, noise


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
