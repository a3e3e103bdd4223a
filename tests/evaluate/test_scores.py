"""Block scores: 0 for what is whole, never better when narrower, straight lines between what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.evaluate.scores import score_blocks
from archsmith.model import derive_space, examine, realise, reorder
from archsmith.space import Choice, Space, Value

torch.set_num_threads(1)
ROWS = list(range(40))


class Shifted(nn.Module):
    """Outputs (rows, 3) of which the first is `by`: its distance from the whole network's is known."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, **inputs: Tensor) -> Tensor:
        return torch.tensor([self.by, 0.0, 0.0]).expand(len(inputs["input_ids"]), 3)


@pytest.fixture(scope="module")
def task(tiny_task: Callable[..., Any]) -> Any:
    return tiny_task("classification")


def shifts(by: Mapping[Value, float], asked: list[Value] | None = None) -> Callable[[Mapping[str, Value]], nn.Module]:
    def build(architecture: Mapping[str, Value]) -> nn.Module:
        assert len(architecture) <= 1
        if asked is not None and architecture:
            asked.append(architecture["width"])
        return Shifted(by[architecture["width"]] if architecture else 0.0)

    return build


def distance(task: Any, by: float) -> float:
    return float(task.divergence(torch.tensor([[by, 0.0, 0.0]]), torch.zeros(1, 3)))


def test_a_score_is_the_divergence_from_the_whole(task: Any) -> None:
    by = {8: 0.0, 6: 1.0, 4: 2.0, 2: 3.0}
    found = score_blocks(shifts(by), task, Space({"width": Choice((8, 6, 4, 2))}), ROWS)
    assert list(found["width"]) == [8, 6, 4, 2]
    assert found["width"] == pytest.approx({width: distance(task, shift) for width, shift in by.items()})
    assert found["width"][8] == 0.0


def test_a_smaller_width_never_scores_better(task: Any) -> None:
    by = {8: 0.0, 6: 2.0, 4: 1.0, 2: 3.0}
    found = score_blocks(shifts(by), task, Space({"width": Choice((8, 6, 4, 2))}), ROWS)["width"]
    assert found[4] == found[6] == pytest.approx(distance(task, 2.0))
    assert found[2] == pytest.approx(distance(task, 3.0))


@pytest.mark.parametrize(
    ("probes", "measured"), [(1, [10]), (2, [50, 10]), (4, [70, 50, 30, 10]), (9, list(range(90, 0, -10)))]
)
def test_widths_between_the_probes_are_interpolated(task: Any, probes: int, measured: list[int]) -> None:
    values = tuple(range(100, 0, -10))
    asked: list[Value] = []
    by = {value: (100 - value) / 25 for value in values}
    seen: list[tuple[int, int]] = []
    found = score_blocks(
        shifts(by, asked),
        task,
        Space({"width": Choice(values)}),
        ROWS,
        probes=probes,
        progress=lambda done, total: seen.append((done, total)),
    )["width"]
    assert asked == measured
    assert seen == [(done, len(measured)) for done in range(1, len(measured) + 1)]
    known = sorted([*measured, 100])
    line = np.interp(values, known, [distance(task, by[value]) for value in known])
    assert list(found.values()) == pytest.approx(line.tolist())
    assert list(found) == list(values)


def test_every_row_counts_alike_whatever_its_batch(task: Any) -> None:
    """40 rows are a batch of 32 and one of 8; the shift is seen in the shorter texts only."""

    class Short(nn.Module):
        def forward(self, **inputs: Tensor) -> Tensor:
            hit = (inputs["attention_mask"].sum(1) <= 8).float()
            return hit[:, None] * torch.tensor([2.0, 0.0, 0.0])

    def build(architecture: Mapping[str, Value]) -> nn.Module:
        return Short() if architecture else Shifted(0.0)

    found = score_blocks(build, task, Space({"width": Choice((True, False))}), ROWS)["width"]
    share = float(np.mean(task.lengths("train")[ROWS] <= 8))
    assert 0.1 < share < 0.9
    assert found == {True: 0.0, False: pytest.approx(share * distance(task, 2.0))}


def test_a_real_network_scores_fall_with_width(task: Any, tiny: Callable[..., Any]) -> None:
    model, inputs = tiny("bert")
    anatomy = examine(model, inputs, np.random.default_rng(0))
    names = ("bert.encoder.layer.0.ffn", "bert.encoder.layer.1", "bert.encoder.layer.2.ffn")
    whole = reorder(model, anatomy, {})
    choices = {name: Choice((48, 32, 16, 1)) if name.endswith("ffn") else Choice((True, False)) for name in names}
    found = score_blocks(lambda a: task.wrap(realise(whole, anatomy, a)).eval(), task, Space(choices), ROWS, probes=2)
    for name, choice in choices.items():
        scores = list(found[name].values())
        assert tuple(found[name]) == choice.values
        assert scores[0] == 0.0 and scores == sorted(scores) and scores[-1] > 0


def test_what_lies_before_a_change_is_run_once(task: Any, tiny: Callable[..., Any]) -> None:
    model, inputs = tiny("bert")
    anatomy = examine(model, inputs, np.random.default_rng(0))
    whole = reorder(model, anatomy, {})
    space = derive_space(anatomy)
    ran: list[int] = []

    def build(architecture: Mapping[str, Value]) -> nn.Module:
        small = realise(whole, anatomy, architecture)
        layer = small.get_submodule("bert.encoder.layer.0.output.dense")
        layer.register_forward_hook(lambda module, args, out: ran.append(1))
        return task.wrap(small).eval()

    plain = score_blocks(build, task, space, ROWS[:8], probes=2)
    slow = len(ran)
    ran.clear()
    assert score_blocks(build, task, space, ROWS[:8], probes=2, anatomy=anatomy) == plain
    assert len(ran) < 0.6 * slow
