"""Predictor-guided search: White et al. 2021, "BANANAS"; a model of the trials so far picks among candidates.

Independent Thompson sampling: for each candidate a value is drawn from what the ensemble says of it, and the least is
proposed. The model is trained anew whenever the trials have grown by three fifths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.bayesian import PARENTS, key_of, weighed
from archsmith.search.candidates import Features, Pool, learnt_from
from archsmith.search.fresh import different, fresh
from archsmith.search.learners import Learner, Predict, boosted_trees, mlp_ensemble
from archsmith.search.order import standing, usable
from archsmith.search.transformer import transformer_ensemble
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial

# What a model says of any vectors, and of all points of a small space (mean and deviation).
Told = tuple[Predict, tuple[np.ndarray, np.ndarray] | None]
GROWN = 1.6
LEARNERS: dict[str, Learner] = {"mlp": mlp_ensemble, "boosting": boosted_trees}


def predictor_search(
    objectives: Sequence[str],
    *,
    budget: int = 100,
    model: str = "mlp",
    start: int | None = None,
    features: Features | None = None,
) -> Strategy:
    """`start` random points (a tenth of the budget, 5 to 20, unless told), then what the model likes best.

    `model`: "mlp" (an ensemble of networks), "boosting" (of boosted trees), "transformer" (reads the architecture as a
    sequence of tokens). `features`: architecture -> numbers about it, beside the encoding of the space.
    """
    if budget < 1 or model not in (*LEARNERS, "transformer"):
        known = f"there are: {', '.join([*LEARNERS, 'transformer'])}"
        raise BadInput("a predictor is one that is known, and has a budget", f"{model!r}, {budget}", "", known)
    if start is not None and start < 0:
        raise BadInput("a predictor's search starts with 0 random points or more", str(start))
    first = int(np.clip(budget // 10, 5, 20)) if start is None else start
    pool = Pool(features)
    # A cache of the last one: what is trained is the history's.
    trained: dict[tuple[str, tuple[object, ...]], Told] = {}

    def learner(space: Space) -> Learner:
        return LEARNERS[model] if model in LEARNERS else transformer_ensemble(space)

    def told_by(space: Space, done: Sequence[Trial]) -> Told:
        known = done[: learnt_from(len(done), max(2, first), GROWN, 4)]
        key = (space.hash, key_of(known, objectives))
        if key not in trained:
            trained.clear()
            x = pool.vectors(space, [trial.proposal.architecture for trial in known])
            z = weighed(known, objectives, np.random.default_rng(len(known)))
            predict, whole = learner(space)(x, z, len(known)), pool.whole(space)
            trained[key] = predict, None if whole is None else predict(whole.vectors)
        return trained[key]

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        done = usable(history, objectives)
        order = np.argsort(standing(done, objectives), kind="stable")[:PARENTS]
        best = [done[i] for i in order]
        told = told_by(space, done) if len(done) >= max(2, first) else None

        def choose(seen: set[Architecture]) -> Architecture | None:
            if told is not None and told[1] is not None and (whole := pool.whole(space)) is not None:
                drawn = np.where(whole.unseen(seen), rng.normal(*told[1]), np.inf)
                return whole.points[int(np.argmin(drawn))] if np.isfinite(drawn).any() else None
            asked, x = pool.asked(space, best, seen, rng) if told is not None else ([], np.empty(0))
            if told is None or not asked:
                return fresh(space, seen, lambda: space.sample(rng), rng)
            return asked[int(np.argmin(rng.normal(*told[0](x))))]

        return different(history, n, choose)

    return propose
