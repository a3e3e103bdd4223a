"""What stands in front of a cut module takes, of what it is given from outside, what belongs to the kept units."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

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


def test_a_class_is_put_in_front_once() -> None:
    assert taking(Sums) is taking(Sums) is taking(taking(Sums)) and issubclass(taking(Sums), Sums)


def test_the_uncut_model_is_left_alone() -> None:
    model = Whole()
    cut(model, draft([OUTER_AXIS], {"outer": [0]}))  # type: ignore[dict-item]
    assert type(model.part) is Sums and not hasattr(model.part, "taken")
    assert Anatomy({}, {}, ()).axes == {}
