"""A portfolio: which strategy to take for a task, from what is known of the task before it begins.

Each rule names the measured reason in `docs/search.md`. No one strategy is best everywhere (Wolpert & Macready 1997);
what decides here is what each needs: a model of the trials pays where a trial costs more than the model, which grows
with the cube of the trials. Cheap values decide nothing: where they are there, BOHB was measured to be no better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from archsmith.search.bayesian import bayesian_optimisation
from archsmith.search.candidates import Features
from archsmith.search.evolution import regularised_evolution
from archsmith.search.grid import grid_search
from archsmith.search.nsga import nsga2
from archsmith.search.wrap import Prior, with_prior
from archsmith.space import Space
from archsmith.trial import Proposal, Strategy, Trial

MODELLED = 600  # trials up to which a Gaussian process keeps up with the trials


def pick(space: Space, objectives: Sequence[str], budget: int) -> str:
    """The name of the strategy for a task.

    >>> from archsmith.space import Choice
    >>> small, large = Space({"a": Choice(range(9))}), Space({f"c{i}": Choice(range(9)) for i in range(9)})
    >>> pick(small, ["loss"], 100), pick(large, ["loss"], 100), pick(large, ["loss", "ms"], 5000)
    ('grid', 'bayesian', 'nsga2')
    """
    if space.size <= budget:
        return "grid"
    if budget <= MODELLED:
        return "bayesian"
    return "nsga2" if len(objectives) > 1 else "evolution"


def portfolio(
    objectives: Sequence[str],
    *,
    budget: int = 100,
    features: Features | None = None,
    prior: Prior | None = None,
) -> Strategy:
    """The strategy that `pick` names once the space is known; proposals say which in their note.

    `features`, `prior`: as Bayesian optimisation takes them.
    """
    makers: dict[str, Callable[[], Strategy]] = {
        "grid": lambda: grid_search(budget=budget),
        "bayesian": lambda: bayesian_optimisation(objectives, budget=budget, features=features, prior=prior),
        "nsga2": lambda: nsga2(objectives, budget=budget),
        "evolution": lambda: regularised_evolution(objectives, budget=budget),
    }
    made: dict[str, Strategy] = {}

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        name = pick(space, objectives, budget)
        if name not in made:
            made[name] = makers[name]()
            if prior is not None and name != "bayesian":
                made[name] = with_prior(made[name], prior, first=max(5, budget // 10))
        return [_signed(proposal, name) for proposal in made[name](space, history, n, rng)]

    return propose


def _signed(proposal: Proposal, name: str) -> Proposal:
    return Proposal(
        proposal.architecture, proposal.fidelity, {**(proposal.note or {}), "strategy": name}, proposal.parents
    )
