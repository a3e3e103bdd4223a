"""Bayesian optimisation: a Gaussian process over encoded architectures, and the expected improvement on the best.

Jones et al. 1998 (EGO): EI(x) = (b - m) Phi(u) + s phi(u), u = (b - m) / s, with m and s what the process predicts at x
and b the best so far. With several objectives a weighting of them is drawn for each proposal and the largest weighted
one is minimised (ParEGO, Knowles 2006).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from archsmith.errors import BadInput
from archsmith.search.candidates import Features, Pool, learnt_from
from archsmith.search.fresh import different, fresh
from archsmith.search.gaussian import Hyper, Process, Watched, fit_process, likely, scores
from archsmith.search.order import standing, usable
from archsmith.search.wrap import Prior, with_prior
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial

PARENTS = 20  # of the best trials, around which there are candidates
GROWN = 1.1  # times as many trials, after which the process chooses its length scale and noise anew
NEAR = 1e-9  # relative difference of gains that is rounding
SLIGHT = 0.05  # weight of the sum of objectives beside the largest (Knowles 2006)


def bayesian_optimisation(
    objectives: Sequence[str],
    *,
    budget: int = 100,
    start: int | None = None,
    features: Features | None = None,
    prior: Prior | None = None,
) -> Strategy:
    """`start` random points (a tenth of the budget, 5 to 20, unless told), then the candidate that promises most.

    `features`: architecture -> numbers that tell what its choices do together (paths through a cell, parameters, scores
    at initialisation), beside the encoding of the space. `prior`: architecture -> a guess of how good it is, minimised
    (a score at initialisation with its sign turned, what earlier studies say): it orders the first points, and is one
    more feature after them.
    """
    if not objectives or budget < 1:
        raise BadInput("Bayesian optimisation needs an objective and a budget", f"{list(objectives)}, {budget}")
    if start is not None and start < 0:
        raise BadInput("Bayesian optimisation starts with 0 random points or more", str(start))
    first = int(np.clip(budget // 10, 5, 20)) if start is None else start
    pool = Pool(joined(features, prior))

    settled: dict[tuple[str, tuple[object, ...]], Hyper] = {}  # a cache of the last length scale and noise
    watched: dict[str, Watched] = {}  # and of a small space's points

    def hyper(space: Space, done: Sequence[Trial], x: np.ndarray) -> Hyper:
        """Chosen anew whenever the trials have grown by a tenth."""
        count = learnt_from(len(done), first, GROWN)
        key = (space.hash, key_of(done[:count], objectives))
        if key not in settled:
            settled.clear()
            settled[key] = likely(x[:count], weighed(done[:count], objectives, np.random.default_rng(count)))
        return settled[key]

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        done = usable(history, objectives)
        running = [trial.proposal.architecture for trial in history if trial.status == "running"]
        order = np.argsort(standing(done, objectives), kind="stable")[:PARENTS]
        best = [done[i] for i in order]
        process: Process | None = None
        goal = 0.0
        if len(done) >= max(2, first):
            x, z = pool.vectors(space, [trial.proposal.architecture for trial in done]), weighed(done, objectives, rng)
            process = fit_process(x, z, hyper(space, done, x))
            goal = float(process.predict(x)[0].min())
            if running:
                process = process.believing(pool.vectors(space, running))

        def choose(seen: set[Architecture]) -> Architecture | None:
            nonlocal process
            whole = None if process is None else pool.whole(space)
            if process is None or (whole is not None and not whole.unseen(seen).any()):
                return fresh(space, seen, lambda: space.sample(rng), rng)
            if whole is not None:
                told = watched.setdefault(space.hash, Watched(whole.vectors)).predict(process)
                at = first_best(np.where(whole.unseen(seen), improvement(*told, goal), -np.inf))
                picked, vectors = whole.points[at], whole.vectors[at]
            else:
                asked, x = pool.asked(space, best, seen, rng)
                if not asked:
                    return fresh(space, seen, lambda: space.sample(rng), rng)
                at = first_best(improvement(*process.predict(x), goal))
                picked, vectors = asked[at], x[at]
            if n > 1:
                process = process.believing(vectors[None])
            return picked

        return different(history, n, choose)

    return propose if prior is None else with_prior(propose, prior, first=first)


def key_of(done: Sequence[Trial], objectives: Sequence[str]) -> tuple[object, ...]:
    """What usable trials tell a model, to know them again by. Not its `hash`: that of -1.0 is that of -2.0."""
    return tuple((t.proposal.architecture, *(t.values[name] for name in objectives)) for t in done)


def joined(features: Features | None, prior: Prior | None) -> Features | None:
    """Features with a prior behind them."""
    if prior is None:
        return features
    return lambda each: np.append(np.empty(0) if features is None else features(each), prior(each))


def weighed(done: Sequence[Trial], objectives: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """(n,) what is minimised: normal scores of the objective, or of a random weighting of all of them."""
    columns = [scores(np.array([trial.values[name] for trial in done])) for name in objectives]
    if len(columns) == 1:
        return columns[0]
    z = (np.stack(columns, axis=1) + 4.0) * rng.dirichlet(np.ones(len(columns)))
    return scores(z.max(axis=1) + SLIGHT * z.sum(axis=1))


def first_best(gain: np.ndarray) -> int:
    """The first of the best (M,): points that are the same to the process differ by rounding, and that by what was kept
    from the last call."""
    most = gain.max()
    return int(np.argmax(gain >= most - NEAR * abs(most)))


def improvement(mean: np.ndarray, deviation: np.ndarray, goal: float) -> np.ndarray:
    """Expected improvement (M,) below the goal."""
    u = (goal - mean) / deviation
    return np.asarray((goal - mean) * norm.cdf(u) + deviation * norm.pdf(u))
