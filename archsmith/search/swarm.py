"""Particle swarm: Kennedy & Eberhart 1995, with the constriction of Clerc & Kennedy 2002, over encoded architectures.

Particle i moves as v <- chi (v + c r (p_i - x) + c r' (g - x)), x <- x + v; then x is decoded to the nearest
architecture. x: position, an encoded vector; v: velocity; p_i: the particle's own best (competition); g: the swarm's
(cooperation); r, r': uniform in [0, 1] in every coordinate; chi = 0.7298, c = 2.05.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.fresh import different, fresh, near
from archsmith.search.order import standing, usable
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial

CONSTRICTION = 0.7298
FASTEST = 0.5  # of the width of a coordinate, that a particle moves at most at once


def particle_swarm(
    objectives: Sequence[str],
    *,
    budget: int = 100,
    particles: int | None = None,
    competition: float = 2.05,
    cooperation: float = 2.05,
) -> Strategy:
    """`particles` (a tenth of the budget, at least 4, unless told) take turns; each carries its position and velocity
    in the notes of its trials.

    A particle that would come to an architecture that was tried is moved on by a single change.
    """
    swarm = max(4, budget // 10) if particles is None else particles
    if budget < 1 or swarm < 1 or min(competition, cooperation) < 0:
        raise BadInput("a swarm needs a particle and terms of 0 or more", f"{swarm}, {competition}, {cooperation}")

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        done = usable(history, objectives)
        lost = standing(done, objectives)
        own: dict[int, int] = {}  # particle -> index of its best trial
        for i, (trial, value) in enumerate(zip(done, lost.tolist(), strict=True)):
            particle = note_of(trial).get("particle")
            if particle is not None and (particle not in own or value < lost[own[particle]]):
                own[particle] = i
        notes = [note for trial in history if (note := note_of(trial))]
        last, moves = {note["particle"]: note for note in notes}, len(notes)
        lead = done[int(np.argmin(lost))].proposal.architecture if done else None

        def choose(seen: set[Architecture]) -> Proposal | None:
            nonlocal moves
            aim: Architecture | None
            particle, moves = moves % swarm, moves + 1
            if particle not in last or particle not in own or lead is None:
                aim, at = None, np.empty(0)
                point = fresh(space, seen, lambda: space.sample(rng), rng)
                speed = rng.uniform(-FASTEST, FASTEST, space.width)
            else:
                x, v = (np.array(last[particle][key], dtype=float) for key in ("x", "v"))
                pull = (
                    competition
                    * rng.random(space.width)
                    * (space.encode(done[own[particle]].proposal.architecture) - x)
                )
                pull += cooperation * rng.random(space.width) * (space.encode(lead) - x)
                speed = np.clip(CONSTRICTION * (v + pull), -FASTEST, FASTEST)
                at = np.clip(x + speed, -1.0, 2.0)
                aim = space.decode(at)
                point = aim if aim not in seen else near(space, seen, aim, rng)
            if point is None:
                return None
            if point != aim:
                at = space.encode(point)
            note = {"particle": particle, "x": at.tolist(), "v": speed.tolist()}
            return Proposal(point, note=note)

        return different(history, n, choose)

    return propose


def note_of(trial: Trial) -> Mapping[str, Any]:
    """What a particle left with its trial; nothing where another strategy made it."""
    note = trial.proposal.note
    return note if isinstance(note, dict) and "particle" in note else {}
