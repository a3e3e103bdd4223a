"""Meta-learning: what earlier studies of the same space tell about the next one.

Their values are turned into normal scores study by study, so that errors of one task and losses of another mean the
same, and one model is trained on all of them; what it says is a prior for the new task (Feurer et al. 2015 begin with
the best of tasks alike; here a model ranks all points, tried or not).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.candidates import Features, Pool
from archsmith.search.gaussian import fit_process, scores
from archsmith.search.order import standing, usable
from archsmith.search.wrap import Prior
from archsmith.space import Architecture, Space
from archsmith.trial import Trial

MOST = 600  # trials that are learnt from: the best and some of the others


def learnt_prior(
    space: Space, past: Sequence[tuple[Sequence[Trial], Sequence[str]]], features: Features | None = None
) -> Prior:
    """A prior, minimised, out of past studies: (trials, objectives) of each, on this space.

    Raises `BadInput` where no trial of them lies in the space and is usable.
    """
    points: list[Architecture] = []
    levels: list[float] = []
    for trials, objectives in past:
        done = [trial for trial in usable(trials, objectives) if trial.proposal.architecture in space]
        if len(done) > 1:
            points += [trial.proposal.architecture for trial in done]
            levels += scores(standing(done, objectives)).tolist()
    if not points:
        law = "past studies must have two usable trials in the space"
        raise BadInput(law, f"none in {len(past)} studies", "", "search without them")
    pool = Pool(features)
    order = np.argsort(levels, kind="stable")
    kept = np.unique(np.concatenate([order[: MOST // 2], order[:: max(1, 2 * len(order) // MOST)]]))
    process = fit_process(pool.vectors(space, [points[i] for i in kept]), np.array(levels)[kept])
    known: dict[Architecture, float] = {}

    def prior(architecture: Architecture) -> float:
        if architecture not in known:
            whole = pool.whole(space)
            asked = [architecture] if whole is None else whole.points
            means = process.predict(pool.vectors(space, asked) if whole is None else whole.vectors)[0]
            known.update(zip(asked, means.tolist(), strict=True))
        return known[architecture]

    return prior
