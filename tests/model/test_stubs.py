"""What stands in front of a cut module takes, of what it is given from outside, what belongs to the kept units."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.model import examine
from archsmith.model.anatomy import Anatomy, Axis, Entry
from archsmith.model.bench import draft
from archsmith.model.cut import cut
from archsmith.model.stubs import taking


class Sums(nn.Module):
    """Adds what it is given."""

    def forward(self, x: Tensor, slopes: Tensor | None = None, *more: Tensor) -> Tensor:
        return x if slopes is None else x + slopes + sum(more)


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = Sums()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.part(x, slopes=SLOPES)
        return out


BATCH, OUTER, INNER = 3, 4, 2
SLOPES = torch.arange(BATCH * OUTER * INNER * 5.0).reshape(BATCH * OUTER * INNER, 5)
APART = SLOPES.reshape(BATCH, OUTER, INNER, 5)


def axis(name: str, size: int, inner: int) -> Axis:
    return Axis(name, "heads", size, (), entries=(Entry("part", "slopes", 0, inner),))


OUTER_AXIS, INNER_AXIS = axis("outer", OUTER, INNER), axis("inner", INNER, 1)
CUTS = [
    ([{"outer": [3, 1]}], ([3, 1], [0, 1])),
    ([{"inner": [1]}], ([0, 1, 2, 3], [1])),
    ([{"outer": [3, 1], "inner": [1]}], ([3, 1], [1])),
    ([{"outer": [3, 1, 0]}, {"outer": [2, 0]}], ([0, 3], [0, 1])),
    ([{"inner": [1, 0], "outer": [0, 2, 1, 3]}, {"outer": [1, 2], "inner": [0]}], ([2, 1], [1])),
]


@pytest.mark.parametrize(("steps", "kept"), CUTS)
def test_cuts_follow_one_another(steps: list[dict[str, list[int]]], kept: tuple[list[int], list[int]]) -> None:
    model: nn.Module = Whole()
    sizes = {"outer": OUTER, "inner": INNER}
    for keep in steps:
        axes = [axis(name, sizes[name], INNER_NOW) for name, INNER_NOW in (("outer", sizes["inner"]), ("inner", 1))]
        model = cut(model, draft([a for a in axes if a.name in keep], keep))  # type: ignore[arg-type]
        sizes |= {name: len(units) for name, units in keep.items()}
    wanted = APART[:, kept[0]][:, :, kept[1]].flatten(0, 2)
    assert torch.equal(model(torch.zeros(())), wanted)


@pytest.mark.parametrize("by_name", [True, False])
def test_what_is_not_given_is_not_taken(by_name: bool) -> None:
    part = taking(Sums)()
    part.taken = (("slopes", 0, OUTER, INNER, (2,)), ("other", 0, 2, 1, (0,)))  # type: ignore[assignment]
    x = torch.zeros(())
    chosen = APART[:, [2]].flatten(0, 2)
    assert torch.equal(part(x), x) and torch.equal(part(x, None), x)
    assert torch.equal(part(x, slopes=SLOPES) if by_name else part(x, SLOPES, x, x), chosen)


class Loose(nn.Module):
    def forward(self, x: Tensor, *more: Tensor, slopes: Tensor | None = None) -> tuple[Tensor, ...]:
        return (x, *more, *([slopes] if slopes is not None else []))


def test_arguments_without_names_are_handed_on() -> None:
    part, x = taking(Loose)(), torch.zeros(())
    part.taken = (("slopes", 0, OUTER, INNER, (2,)),)  # type: ignore[assignment]
    found = part(x, x + 1, x + 2, slopes=SLOPES)
    assert [float(value) for value in found[:3]] == [0, 1, 2]
    assert torch.equal(found[3], APART[:, [2]].flatten(0, 2))


def test_it_is_copied_and_kept_whole() -> None:
    model = cut(Whole(), draft([OUTER_AXIS], {"outer": [2, 0]}))  # type: ignore[dict-item]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301  (made here)
        assert torch.equal(other(torch.zeros(())), model(torch.zeros(())))
        assert type(other.part) is taking(Sums)


@pytest.mark.parametrize("strict", [False, True])
def test_it_is_exported(strict: bool) -> None:
    model = cut(Whole(), draft([OUTER_AXIS], {"outer": [2, 0]}))  # type: ignore[dict-item]
    program = torch.export.export(model, (torch.zeros(()),), strict=strict)
    assert torch.equal(program.module()(torch.zeros(())), model(torch.zeros(())))


class Twice(nn.Module):
    """One attention, run twice, whose heads have slopes of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.inner, self.out = nn.Linear(5, 8), Sloped(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.read(x)
        slopes = (1 / torch.arange(1, 5.0)).expand(len(x), 4).reshape(-1, 1, 1)
        found: Tensor = self.out(hidden + self.inner(self.inner(hidden, slopes), slopes))
        return found


class Sloped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = 4, nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor, slopes: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, 2).permute(2, 0, 3, 1, 4).flatten(1, 2)
        scores = torch.baddbmm(slopes * torch.arange(x.shape[1] * 1.0), q, k.transpose(1, 2))
        mixed = torch.bmm(scores.softmax(-1), v).view(len(x), self.heads, -1, 2).transpose(1, 2).flatten(2)
        found: Tensor = self.out(mixed)
        return found


def test_a_module_that_runs_twice_takes_once() -> None:
    torch.manual_seed(0)
    model, inputs = Twice().eval(), {"x": torch.randn(2, 6, 5)}
    anatomy = examine(model, inputs, np.random.default_rng(0))
    heads = next(axis for axis in anatomy.axes.values() if axis.kind == "heads")
    assert heads.entries == (Entry("inner", "slopes", 0, 1),)


def test_a_class_is_put_in_front_once() -> None:
    assert taking(Sums) is taking(Sums) is taking(taking(Sums)) and issubclass(taking(Sums), Sums)


def test_the_uncut_model_is_left_alone() -> None:
    model = Whole()
    cut(model, draft([OUTER_AXIS], {"outer": [0]}))  # type: ignore[dict-item]
    assert type(model.part) is Sums and not hasattr(model.part, "taken")
    assert Anatomy({}, {}, ()).axes == {}
