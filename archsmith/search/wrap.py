"""Strategies made of strategies: what is known beforehand comes first, and values that keep losing go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.fresh import different, fresh
from archsmith.search.gaussian import scores
from archsmith.search.order import standing, usable
from archsmith.space import Architecture, Space, Value
from archsmith.trial import Proposal, Strategy, Trial

Prior = Callable[[Architecture], float]
# Trials and what each lost, (n,) minimised -> choice -> the values to drop.
Policy = Callable[[Space, Sequence[Trial], np.ndarray], dict[str, tuple[Value, ...]]]
PASSED = "passed over"  # key of a note, and why a point is told as failed that is no trial
REFUSED, OWN = "refused", "own"  # keys of a note: the points that were not allowed, and the note of the strategy inside
LEAST, SURE = 5, 3.0  # times that a value was tried, and standard errors, before it is dropped


def with_prior(
    strategy: Strategy, prior: Prior, *, first: int, drawn: int = 1000, fidelity: Mapping[str, float] | None = None
) -> Strategy:
    """The `first` proposals are those that a prior puts first among `drawn` random points; then the strategy goes on.

    The prior is minimised: a score at initialisation with its sign turned, or what a predictor of earlier studies says.
    Every second of them comes from the better half instead, at random: a prior that is wrong must not decide all.
    `fidelity`: that of a whole evaluation, for strategies that have any.
    """

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        left = first - sum(trial.error != PASSED for trial in history)
        if left <= 0:
            return strategy(space, history, n, rng)
        points = list(dict.fromkeys(space.sample(rng) for _ in range(drawn)))
        points.sort(key=prior)
        count = len(history)

        def choose(seen: set[Architecture]) -> Architecture | None:
            nonlocal count
            new = [point for point in points if point not in seen]
            if not new:
                return fresh(space, seen, lambda: space.sample(rng), rng)
            count += 1
            return new[0] if count % 2 else new[int(rng.integers(max(1, len(new) // 2)))]

        begun = [replace(each, fidelity=dict(fidelity or {})) for each in different(history, min(n, left), choose)]
        running = [Trial(len(history) + i, proposal, "running") for i, proposal in enumerate(begun)]
        return begun + (strategy(space, [*history, *running], n - len(begun), rng) if len(begun) < n else [])

    return propose


def within(strategy: Strategy, allowed: Callable[[Architecture], bool], *, attempts: int = 100) -> Strategy:
    """What is proposed is allowed: a point that is not is none of the study's trials, and to the strategy inside one
    that has failed; the note of the proposal that comes in its place keeps it. After so many in a row, or where none is
    allowed, one that is not is proposed all the same, so that its trial can say why."""

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        known, found = _with_refused(history), list[Proposal]()
        while len(found) < n:
            number, refused = len(history) + len(found), list[Proposal]()
            while True:
                proposals = strategy(space, known, 1, rng)
                if not proposals:
                    none_is = not found and all(trial.status == "failed" for trial in history)
                    proposals, refused = (refused[:1] if none_is else []), []
                    break
                if len(refused) == attempts or allowed(proposals[0].architecture):
                    break
                refused += proposals
                known.append(Trial(number, proposals[0], "failed", error=PASSED))
            if not proposals:
                break
            known.append(Trial(number, proposals[0], "running"))
            points = [each.architecture.to_json() for each in refused]
            note = {REFUSED: points, OWN: proposals[0].note} if refused else proposals[0].note
            found.append(replace(proposals[0], note=note))
        return found

    return propose


def _with_refused(history: Sequence[Trial]) -> list[Trial]:
    """The history as the strategy inside knows it: before each trial what was refused in its place, as failed."""
    found: list[Trial] = []
    for trial in history:
        note = trial.proposal.note
        if isinstance(note, Mapping) and REFUSED in note:
            points = [Proposal(Architecture.from_json(each)) for each in note[REFUSED]]
            found += [Trial(trial.number, each, "failed", error=PASSED) for each in points]
            trial = replace(trial, proposal=replace(trial.proposal, note=note[OWN]))
        found.append(trial)
    return found


def shrinking(
    strategy: Strategy, objectives: Sequence[str], *, every: int = 25, policy: str | Policy = "rule"
) -> Strategy:
    """Proposals whose values have kept losing are passed over: after each `every` usable trials the policy says which.

    "rule": values that were among the worse half each time that they were tried. "learned": values that a model of all
    trials holds to be worse than another of their choice, whatever the others are. A choice always keeps a value. What
    the study knows of the space does not change; the values dropped are in the note of each proposal, and the point
    that it stands in for. To the strategy inside that one has failed, so that it goes on from there; where that
    strategy has nothing left, points that were passed over are tried after all.
    """
    if isinstance(policy, str) and policy not in POLICIES:
        raise BadInput("a policy is one that is known", repr(policy), "", f"there are: {', '.join(POLICIES)}")
    decide = POLICIES[policy] if isinstance(policy, str) else policy

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        done = usable(history, objectives)
        done = done[: len(done) // every * every]
        dropped = decide(space, done, standing(done, objectives)) if done else {}
        passed = {trial.number: each for trial in history if (each := passed_over(trial)) is not None}
        proposals = strategy(space, _with_failed(history, passed), n, rng)
        seen = {trial.proposal.architecture for trial in history} | {each.architecture for each in proposals}
        left = [each for each in passed.values() if each.architecture not in seen]
        proposals += list({each.architecture: each for each in left}.values())[: n - len(proposals)]
        if not dropped:
            return proposals
        seen |= {each.architecture for each in proposals}
        listed = {name: list(values) for name, values in dropped.items()}
        found: list[Proposal] = []
        for proposal in proposals:
            point, note = proposal.architecture, proposal.note if isinstance(proposal.note, Mapping) else {}
            note = {**note, "dropped": listed}
            if _has(point, dropped) and (other := _without(space, point, dropped, seen, rng)) is not None:
                point, note = other, {**note, PASSED: point.to_json()}
            found.append(Proposal(point, proposal.fidelity, note, proposal.parents))
            seen.add(point)
        return found

    return propose


def shrinking_search(
    objectives: Sequence[str],
    *,
    budget: int = 100,
    of: str = "evolution",
    policy: str = "rule",
    every: int | None = None,
) -> Strategy:
    """`shrinking` around the strategy `of` that name, looked at eight times within the budget unless told."""
    from archsmith.search import strategy

    if every is not None and every < 1:
        raise BadInput("values are looked at after at least 1 trial", str(every))
    made = strategy(of, objectives, budget=budget)
    return shrinking(made, objectives, every=every or max(10, budget // 8), policy=policy)


def passed_over(trial: Trial) -> Proposal | None:
    """What a trial's proposal stands in for; None where it stands for itself."""
    note = trial.proposal.note
    if not isinstance(note, Mapping) or PASSED not in note:
        return None
    return replace(trial.proposal, architecture=Architecture.from_json(note[PASSED]), note=None)


def _with_failed(history: Sequence[Trial], passed: Mapping[int, Proposal]) -> list[Trial]:
    """The history, and before each trial what it stands in for, as failed: else a strategy that asks for a point until
    it is tried would ask for it for ever."""
    found: list[Trial] = []
    for trial in history:
        if trial.number in passed:
            found.append(Trial(trial.number, passed[trial.number], "failed", error=PASSED))
        found.append(trial)
    return found


def losing(space: Space, done: Sequence[Trial], lost: np.ndarray, least: int = LEAST) -> dict[str, tuple[Value, ...]]:
    """Choice -> values that were tried `least` times or more, and never were in the better half."""
    bad = lost > np.median(lost)
    found: dict[str, tuple[Value, ...]] = {}
    for name, choice in space.choices.items():
        tried = {
            v: [b for t, b in zip(done, bad, strict=True) if t.proposal.architecture.get(name) == v]
            for v in choice.values
        }
        gone = [value for value, rows in tried.items() if len(rows) >= least and all(rows)]
        if gone and len(gone) < len(choice.values):
            found[name] = tuple(gone)
    return found


def outdone(space: Space, done: Sequence[Trial], lost: np.ndarray) -> dict[str, tuple[Value, ...]]:
    """Choice -> values that lose more than the best of their choice, by `SURE` standard errors of a linear model of
    what each value costs beside all others (ridge regression on indicators, its posterior as standard error)."""
    pairs = [(name, value) for name, choice in space.choices.items() for value in choice.values]
    x = np.array([[t.proposal.architecture.get(name) == value for name, value in pairs] for t in done], dtype=float)
    z = scores(lost)
    precision = x.T @ x + np.eye(len(pairs))
    effect = np.linalg.solve(precision, x.T @ (z - z.mean()))
    spread = np.linalg.inv(precision) * max(float(((z - z.mean() - x @ effect) ** 2).mean()), 1e-9)
    found: dict[str, tuple[Value, ...]] = {}
    for name in space.choices:
        at = [i for i, (each, _) in enumerate(pairs) if each == name]
        best = min(at, key=effect.__getitem__)
        apart = [
            (effect[i] - effect[best]) / max(spread[i, i] + spread[best, best] - 2 * spread[i, best], 1e-12) ** 0.5
            for i in at
        ]
        sure = [i for i, t in zip(at, apart, strict=True) if t > SURE and x[:, i].sum() >= LEAST]
        gone = sorted(sorted(sure, key=effect.__getitem__)[::-1][: len(at) // 2])  # the worst, half of them at most
        if gone:
            found[name] = tuple(pairs[i][1] for i in gone)
    return found


POLICIES: dict[str, Policy] = {"rule": losing, "learned": outdone}


def _has(point: Architecture, dropped: Mapping[str, Sequence[Value]]) -> bool:
    return any(point[name] in values for name, values in dropped.items() if name in point)


def _without(
    space: Space,
    point: Architecture,
    dropped: Mapping[str, Sequence[Value]],
    seen: set[Architecture],
    rng: np.random.Generator,
) -> Architecture | None:
    """The point with values that are left in place of those dropped; None where none such is new and allowed."""
    for _ in range(20):
        values = dict(point)
        for name, gone in dropped.items():
            if name in values and values[name] in gone:
                left = [value for value in space.choices[name].values if value not in gone]
                values[name] = left[int(rng.integers(len(left)))]
        found = Architecture(values)
        if found in space and found not in seen:
            return found
        point = space.mutate(point, rng)
    return None
