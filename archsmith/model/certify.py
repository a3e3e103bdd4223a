"""What the trace proposes, measured: permutation, negative control, slice equals mask. A proposal without proof is
rejected with the reason."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace as changed
from itertools import islice

import numpy as np
from torch import nn

from archsmith.model.anatomy import Axis, Branch, Certificate
from archsmith.model.axes import Candidate, propose
from archsmith.model.bench import Bench
from archsmith.model.integers import MAX_TRIES, Integers, guesses, holders
from archsmith.model.running import Inputs
from archsmith.model.share import owner
from archsmith.model.trace import Traced, trace

# A deviation counts as none below this share of the effect that the same change has where it must show.
PERMUTED = 1e-2
SLICED = 1e-3
ALIKE = 1e-6  # of axes that are tried together on trust: a weak one must not hide behind the strong
ROUNDING = {8: 1e-11, 4: 2e-6, 2: 2e-3}  # bytes of a number -> deviation that rounding alone may make
SHOWN = 10.0  # times rounding, from which on an effect shows beside it
REFUSED = 2  # of axes alike
OTHERS = 12  # sets of whole numbers that are tried where an axis does not go together with others
ORDER = ("residual", "heads", "kv_groups", "ffn", "channels", "width")


class Verdicts:
    """The certificates so far, by subject, in the order in which they were given."""

    def __init__(self) -> None:
        self.by_subject: dict[str, Certificate] = {}

    def accept(self, subject: str, reason: str, error: float) -> None:
        self.by_subject[subject] = Certificate(subject, True, reason, error)

    def reject(self, subject: str, reason: str, error: float = float("inf")) -> None:
        self.by_subject[subject] = Certificate(subject, False, reason, error)


def certify_axes(bench: Bench, traced: Traced, candidates: Sequence[Candidate], verdicts: Verdicts) -> list[Candidate]:
    """The candidates that pass all three tests, with the whole numbers that shrink with them."""
    moving = _permutation(bench, candidates, verdicts)
    slicing = _Slices(bench, traced)
    passed: list[Candidate] = []
    for kind in ORDER:
        group = [c for c in moving if c.axis.kind == kind]
        passed += slicing.settle(group, verdicts)
    return slicing.together(passed, verdicts)


def _permutation(bench: Bench, candidates: Sequence[Candidate], verdicts: Verdicts) -> list[Candidate]:
    """Permuting everywhere changes nothing, permuting at one place does."""
    axes = [candidate.axis for candidate in candidates]
    orders = {axis.name: _shuffled(axis.size, bench.rng) for axis in axes}
    slopes = bench.slopes(axes, orders)
    effects: dict[str, list[float]] = {}
    for axis in axes:
        mine = [slopes[axis.name, i] for i in range(len(axis.places))]
        felt = {owner(place.parameter) for place, slope in zip(axis.places, mine, strict=True) if slope is not None}
        # Without a gradient (running statistics, tables made under no_grad) a place is measured, unless one beside it
        # in its module has one and speaks for it.
        effects[axis.name] = [
            slope
            if slope is not None
            else 0.0
            if owner(place.parameter) in felt
            else bench.permuted([axis], orders, place)
            for place, slope in zip(axis.places, mine, strict=True)
        ]
    strongest = {name: max(effect) for name, effect in effects.items()}
    errors: dict[str, float] = {}
    for group in alike(candidates):
        errors |= _measured(bench, [candidate.axis for candidate in group], orders, strongest)
    passed: list[Candidate] = []
    for candidate in candidates:
        axis, error = candidate.axis, errors[candidate.axis.name]
        effect = effects[axis.name]
        unseen = _unexercised(axis, effect, max(3 * error, 1e-14))
        if not error <= _allowed(max(effect)):
            verdicts.reject(axis.name, "permuting its units changes the output", error)
        elif unseen:
            verdicts.reject(axis.name, f"the inputs never exercise {unseen}", error)
        else:
            verdicts.accept(axis.name, "", error)
            passed.append(candidate)
    return passed


def _allowed(effect: float) -> float:
    return PERMUTED * effect if math.isfinite(effect) else 0.0


def _equal(error: float, effect: float, rounding: float, share: float = SLICED) -> bool:
    """Is a deviation none beside an effect that shows? A reference that is not finite proves nothing, and neither does
    a deviation that rounding explains beside an effect that it explains too."""
    if not (math.isfinite(error) and math.isfinite(effect) and effect > 0):
        return False
    return error <= share * effect or (error <= rounding and effect >= SHOWN * rounding)


def _unexercised(axis: Axis, effect: Sequence[float], floor: float) -> str:
    """The first place whose own permutation nothing notices, unless its module has another that is noticed.

    A key's bias has no influence on any softmax, yet belongs to its units as its weight does.
    """
    seen = {owner(place.parameter) for place, change in zip(axis.places, effect, strict=True) if change > floor}
    return next((place.parameter for place in axis.places if owner(place.parameter) not in seen), "")


def alike(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates whose names differ in list indices only, and not in size: what is true of one is likely of all."""
    groups: dict[tuple[str, int], list[Candidate]] = {}
    for candidate in candidates:
        name = re.sub(r"(?<=\.)\d+(?=\.)", "*", candidate.axis.name)
        groups.setdefault((name, candidate.axis.size), []).append(candidate)
    return list(groups.values())


def _measured(
    bench: Bench, axes: Sequence[Axis], orders: dict[str, np.ndarray], effects: dict[str, float]
) -> dict[str, float]:
    """Deviation of the permutations of axes that are alike: all at once, and in halves where that shows a change.

    Where the first and the last change the output, those between are taken to do so too.
    """

    def measure(some: Sequence[Axis]) -> tuple[bool, float]:
        try:
            error = bench.permuted(some, orders)
        except Exception:  # whatever a model may raise on permuted weights, it is a no
            error = float("inf")
        return error <= min(_allowed(effects[axis.name]) for axis in some), error

    unchanged, error = measure(axes)
    if len(axes) == 1 or unchanged:
        return {axis.name: error for axis in axes}
    if len(axes) > 2 and not any(measure([axis])[0] for axis in (axes[0], axes[-1])):
        return {axis.name: error for axis in axes}
    middle = len(axes) // 2
    return {
        **_measured(bench, axes[:middle], orders, effects),
        **_measured(bench, axes[middle:], orders, effects),
    }


def _shuffled(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random permutation that is not the identity."""
    order = rng.permutation(size)
    return np.roll(order, 1) if np.array_equal(order, np.arange(size)) else order


class _Slices:
    """Slice equals mask, with the search for baked whole numbers."""

    def __init__(self, bench: Bench, traced: Traced) -> None:
        self.bench, self.traced = bench, traced
        self.learned: dict[str, list[frozenset[str]]] = {}
        self.hopeless: set[str] = set()  # kinds of which nothing passed after every guess: no more long searches

    def error(self, group: Sequence[Candidate], share: float = SLICED) -> tuple[bool, float, str]:
        """Cut a random half of each axis: (equal to the mask but for a share of its effect, deviation, why not)."""
        axes = [candidate.axis for candidate in group]
        keep = {axis.name: _half(axis.size, self.bench.rng) for axis in axes}
        try:
            real = self.bench.cut(axes, keep)
        except Exception as failure:
            return False, float("inf"), f"the cut model fails: {type(failure).__name__}: {str(failure)[:160]}"
        try:
            masked = self.bench.masked(axes, keep, self.traced, [candidate.atom for candidate in group])
        except Exception as failure:
            return False, float("inf"), f"no masked reference: {str(failure)[:160]}"
        error = self.bench.differ(real, masked)
        effect = self.bench.differ(masked, self.bench.outputs)
        equal = _equal(error, effect, ROUNDING[real[0][0].element_size()], share)
        return equal, error, "" if equal else "the cut model differs from the masked one"

    def settle(self, group: Sequence[Candidate], verdicts: Verdicts) -> list[Candidate]:
        """The candidates of one kind that can be cut, with their numbers found."""
        return [candidate for same in alike(group) for candidate in self._settle(same, verdicts)]

    def _settle(self, group: Sequence[Candidate], verdicts: Verdicts) -> list[Candidate]:
        """The same of candidates that are alike: what was right for one is tried with all the rest at once, and after
        `REFUSED` that cannot be cut the rest is taken to be no better."""
        settled: list[Candidate] = []
        for i, candidate in enumerate(group):
            if i == REFUSED and not settled:
                for other in group[i:]:
                    verdicts.reject(other.axis.name, f"as {group[0].axis.name}, which is built alike")
                return []
            found = self._with_integers(candidate, verdicts)
            if found is None:
                continue
            settled.append(found)
            rest = [self._guess(other) for other in group[i + 1 :]]
            equal, error, _ = self.error(rest, ALIKE) if rest else (False, 0.0, "")
            if equal:
                for other in rest:
                    self._accept(other, error, verdicts)
                return settled + rest
        return settled

    def _guess(self, candidate: Candidate) -> Candidate:
        return _with(candidate, next(self._guesses(candidate)))

    def _guesses(self, candidate: Candidate) -> Iterator[Integers]:
        kind = candidate.axis.kind
        held = holders(self.bench.model, candidate)
        return guesses(held, self.learned.get(kind, []), sparing=kind in {"residual", "width"})

    def _with_integers(self, candidate: Candidate, verdicts: Verdicts) -> Candidate | None:
        known = self.learned.setdefault(candidate.axis.kind, [])
        first: tuple[float, str] | None = None
        tries = 2 if candidate.axis.kind in self.hopeless else MAX_TRIES
        for integers in islice(self._guesses(candidate), tries):
            tried = _with(candidate, integers)
            equal, error, wrong = self.error([tried])
            if equal:
                known.append(frozenset(name for _, name in integers))
                self._accept(tried, error, verdicts)
                return tried
            first = first or (error, wrong)
        error, wrong = first or (float("inf"), "")
        verdicts.reject(candidate.axis.name, wrong, error)
        if not known:
            self.hopeless.add(candidate.axis.kind)
        return None

    def _accept(self, candidate: Candidate, error: float, verdicts: Verdicts) -> None:
        name = candidate.axis.name
        reason = f"permutation, negative control at {len(candidate.axis.places)} places, slice equals mask"
        verdicts.accept(name, reason, max(error, verdicts.by_subject[name].error))

    def together(self, candidates: Sequence[Candidate], verdicts: Verdicts) -> list[Candidate]:
        """The candidates that can also be cut all at once: kinds are added in turn, what does not fit is rejected."""
        kept: list[Candidate] = []
        if not candidates or self.error(candidates, ALIKE)[0]:
            return list(candidates)
        for kind in ORDER:
            group = [c for c in candidates if c.axis.kind == kind]
            if not group or self.error([*kept, *group], ALIKE)[0]:
                kept += group
                continue
            kept += self._alone(self._fitted(kept, group, verdicts), group, verdicts)
        return kept

    def _fitted(self, kept: Sequence[Candidate], group: Sequence[Candidate], verdicts: Verdicts) -> list[Candidate]:
        """Those of one kind that go together with those kept; what was right for one is tried with all the rest of
        those alike at once."""
        fitted: list[Candidate] = []
        for same in alike(group):
            for i, candidate in enumerate(same):
                found = self._beside([*kept, *fitted], candidate, verdicts)
                if found is None:
                    continue
                fitted.append(found)
                rest = [other if found is candidate else self._guess(other) for other in same[i + 1 :]]
                if rest and self.error([*kept, *fitted, *rest], ALIKE)[0]:
                    fitted += rest
                    break
        return fitted

    def _alone(self, fitted: list[Candidate], group: Sequence[Candidate], verdicts: Verdicts) -> list[Candidate]:
        """Those whose new whole numbers are right without the axes that they were found beside, too: two halves may
        make up for one another."""
        changed_ones = [candidate for candidate in fitted if candidate not in group]
        if not changed_ones or self.error(changed_ones)[0]:
            return fitted
        for candidate in changed_ones:
            equal, error, wrong = self.error([candidate])
            if not equal:
                verdicts.reject(candidate.axis.name, f"cut without other axes, {wrong}", error)
                fitted = [other for other in fitted if other is not candidate]
        return fitted

    def _beside(self, kept: Sequence[Candidate], candidate: Candidate, verdicts: Verdicts) -> Candidate | None:
        """The candidate as it can be cut together with those kept: with other whole numbers if need be, since one that
        was taken for its own may be another axis's (two groups of two heads each)."""
        equal, error, wrong = self.error([*kept, candidate])
        if equal:
            return candidate
        known = self.learned.setdefault(candidate.axis.kind, [])
        for integers in sorted(islice(self._guesses(candidate), MAX_TRIES), key=len)[:OTHERS]:
            other = _with(candidate, integers)
            if other.axis.integers != candidate.axis.integers and self.error([*kept, other])[0]:
                known.insert(0, frozenset(name for _, name in integers))
                return other
        verdicts.reject(candidate.axis.name, f"cut together with other axes, {wrong}", error)
        return None


def hold_on(
    model: nn.Module, inputs: Inputs, certified: Sequence[Candidate], verdicts: Verdicts, rng: np.random.Generator
) -> list[Candidate]:
    """Those of the certified candidates that can be cut together on other inputs too; the rest is rejected."""
    bench = Bench(model, inputs, rng)
    traced = trace(bench.model, bench.inputs[0])
    found = {candidate.axis.name: candidate for candidate in propose(traced, model)[0]}
    for candidate in certified:
        if candidate.axis.name not in found:
            verdicts.reject(candidate.axis.name, "on longer inputs with padding it is no width of its own")
    same = [changed(found[c.axis.name], axis=c.axis) for c in certified if c.axis.name in found]
    bench.tell_units_apart([candidate.axis for candidate in same])
    kept = {candidate.axis.name: candidate.axis for candidate in _Slices(bench, traced).together(same, verdicts)}
    held: list[Candidate] = []
    for candidate in certified:
        now = kept.get(candidate.axis.name)
        if now is not None and now.integers == candidate.axis.integers:
            held.append(candidate)
        elif now is not None:
            verdicts.reject(candidate.axis.name, "on longer inputs with padding other whole numbers go with it")
    return held


def _with(candidate: Candidate, integers: tuple[tuple[str, str], ...]) -> Candidate:
    return changed(candidate, axis=changed(candidate.axis, integers=integers))


def _half(size: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(size, max(1, size // 2), replace=False))


def certify_branches(bench: Bench, branches: Sequence[Branch], verdicts: Verdicts) -> list[Branch]:
    """The branches whose removal computes what it should and makes a difference."""
    groups = [[branch for branch in branches if branch.kind == kind] for kind in ("attention", "ffn")]
    passed: list[Branch] = []
    heard = bench.heard(branches)
    for row in [*groups, *_alternate([branch for branch in branches if branch.kind == "layer"])]:
        group = [branch for branch in row if branch.name in heard]
        alone = [branch for branch in row if branch.name not in heard]  # an idle one must not hide among the others
        # All at once, and each half beside the other: what one leaves for another is missed when that one still runs.
        parts = [group, group[: len(group) // 2], group[len(group) // 2 :]]
        if len(group) > 1 and all(_skipped(bench, part, verdicts, ALIKE) for part in parts):
            passed += group
        else:
            alone += group
        passed += [branch for branch in alone if _skipped(bench, [branch], verdicts)]
    return [branch for branch in branches if branch in passed]


def _alternate(layers: Sequence[Branch]) -> list[list[Branch]]:
    """Every second layer of each list, and the others: skipped together they leave neighbours that have moved up."""
    lists: dict[str, list[Branch]] = {}
    for layer in layers:
        lists.setdefault(owner(layer.module), []).append(layer)
    return [row[begin::2] for row in lists.values() for begin in (0, 1) if row[begin::2]]


def _skipped(bench: Bench, group: Sequence[Branch], verdicts: Verdicts, share: float = SLICED) -> bool:
    """Skip these branches for real and in the full model; enter the verdict for each. A deviation may be this share of
    the effect."""
    layer = group[0].kind == "layer"
    try:
        real = bench.without(group)
        reference = bench.bypassed(group) if layer else bench.silenced(group)
    except Exception as failure:
        for branch in group:
            verdicts.reject(branch.name, f"the model without it fails: {type(failure).__name__}: {str(failure)[:160]}")
        return False
    error, effect = bench.differ(real, reference), bench.differ(reference, bench.outputs)
    equal = _equal(error, effect, ROUNDING[real[0][0].element_size()], share)
    for branch in group:
        if equal:
            verdicts.accept(branch.name, "skipped for real equals " + ("bypassed" if layer else "silenced"), error)
        elif effect == 0:
            verdicts.reject(branch.name, "the inputs never exercise it", error)
        else:
            verdicts.reject(branch.name, "without it the model computes something else", error)
    return equal
