"""Regularised evolution: Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.fresh import fresh
from archsmith.search.order import places, youngest
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial

POPULATION, SAMPLE, MOST = (10, 100), 5, 10_000


def regularised_evolution(
    objectives: Sequence[str],
    *,
    budget: int = 100,
    population: int | None = None,
    sample: int | None = None,
    start: Sequence[Architecture] = (),
) -> Strategy:
    """The youngest `population` (P) trials live; a child is the best of `sample` (S) of them, mutated once.

    P is a twentieth of the budget, 10 to 100 (which Real et al. had for 20,000), S a quarter of P, and at least 5.
    With several objectives the best is the first by front, then by crowding. `start`: architectures to try first,
    in their order (an exact front, say). Until P trials are usable, points are drawn at random.
    """
    population = int(np.clip(budget // 20, *POPULATION)) if population is None else population
    sample = max(SAMPLE, population // 4) if sample is None else sample
    if not objectives or sample < 1 or min(population, budget) < 1:
        raise BadInput("evolution needs an objective, a population and a sample", f"{list(objectives)}")
    if strange := [each for each in start if not isinstance(each, Architecture)]:
        raise BadInput("evolution starts with architectures", repr(strange[0]), "start", "leave it out")
    if sample > MOST:  # drawn with replacement, so it may be larger than the population
        raise BadInput(f"a sample of the population has at most {MOST:,}", str(sample), "", "give a smaller sample")

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        seen = {trial.proposal.architecture for trial in history}
        waiting = [each for each in dict.fromkeys(start) if each not in seen and each in space]
        alive = youngest(history, objectives, population)
        place = places(np.array([[trial.values[name] for name in objectives] for trial in alive])) if alive else None
        proposals: list[Proposal] = []
        while len(proposals) < n:
            parent: Trial | None = None
            architecture: Architecture | None
            if waiting:
                architecture = waiting.pop(0)
            elif place is None or len(alive) < population:
                architecture = fresh(space, seen, lambda: space.sample(rng), rng)
            else:
                best = min(rng.integers(len(alive), size=sample).tolist(), key=place.__getitem__)
                parent = alive[best]
                origin = parent.proposal.architecture
                architecture = fresh(space, seen, lambda origin=origin: space.mutate(origin, rng), rng)  # type: ignore[misc]
            if architecture is None:
                break
            seen.add(architecture)
            proposals.append(Proposal(architecture, parents=(parent.number,) if parent else ()))
        return proposals

    return propose
