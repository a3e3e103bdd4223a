"""Distillation from answers: rows without one are left out; a killed one goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.compress.distil import distil
from archsmith.errors import ArchsmithError
from archsmith.model import examine, realise
from archsmith.tasks.answer import answers, calling
from archsmith.train import Schedule

torch.set_num_threads(1)
ROWS = 64


class Known:
    """A tiny BERT with clear answers, its anatomy, a task, and its answers on the train part."""

    def __init__(self, made: Any, task: Any) -> None:
        self.model, self.task = made.model, task
        with torch.no_grad():
            self.model.classifier.weight.mul_(20)  # answers that differ from text to text by more than dropout does
        self.anatomy = examine(made.model, made.inputs, np.random.default_rng(0))
        self.outputs = answers(calling(self.wrapped(self.model)), task, "train")

    def wrapped(self, model: nn.Module) -> nn.Module:
        module: nn.Module = self.task.wrap(model).eval()
        return module

    def small(self, kind: str, share: float) -> tuple[nn.Module, dict[str, Any]]:
        architecture = {
            n: max(1, int(a.size * share)) for n, a in self.anatomy.axes.items() if a.kind == kind or kind == "all"
        }
        return copy.deepcopy(realise(self.model, self.anatomy, architecture)), architecture

    def apart(self, small: nn.Module) -> float:
        found = answers(calling(self.wrapped(small)), self.task, "train")
        return float(self.task.divergence(torch.from_numpy(found), torch.from_numpy(self.outputs)))


@pytest.fixture(scope="module")
def known(tiny: Callable[..., Any], tiny_task: Callable[..., Any]) -> Known:
    return Known(tiny("bert"), tiny_task("classification", ROWS))


def test_global_distillation_brings_the_answers_nearer(known: Known) -> None:
    small, _ = known.small("all", 0.5)
    before = known.apart(small)
    fitted = distil(known.wrapped(small), known.task, known.outputs, Schedule(100, learning_rate=2e-3), 0, batch=16)
    assert known.apart(small) < 0.5 * before
    assert fitted.steps == 100 and fitted.skipped == 0


def test_rows_without_answers_are_left_out(known: Known) -> None:
    """Whatever the unanswered rows would say, the weights end the same; no step is lost to NaN."""
    outputs = known.outputs.copy()
    outputs[::3] = np.nan
    outputs[1, 0] = np.nan  # half an answer is none
    asked: list[int] = []
    inputs = known.task.inputs

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(known.task, name)

        def inputs(self, part: Any, rows: list[int]) -> dict[str, Tensor]:
            asked.extend(rows)
            found: dict[str, Tensor] = inputs(part, rows)
            return found

    task: Any = Watched()
    small, _ = known.small("ffn", 0.5)
    fitted = distil(known.wrapped(small), task, outputs, Schedule(20), 0, batch=16)
    assert fitted.skipped == 0 and np.isfinite(fitted.loss)
    assert set(asked) == set(range(ROWS)) - set(range(0, ROWS, 3)) - {1}


def test_data_without_any_answer_is_refused(known: Known) -> None:
    small, _ = known.small("ffn", 0.5)
    with pytest.raises(ArchsmithError, match="at least one batch"):
        distil(known.wrapped(small), known.task, np.full_like(known.outputs, np.nan), Schedule(2), 0)


def test_answers_of_another_part_are_refused(known: Known) -> None:
    with pytest.raises(ArchsmithError, match=r"train part: 5 for 64 rows"):
        distil(known.wrapped(known.model), known.task, known.outputs[:5], Schedule(2), 0)


def test_a_frozen_network_learns_all_the_same(known: Known) -> None:
    small, _ = known.small("all", 0.5)
    small.requires_grad_(False)
    before = known.apart(small)
    distil(known.wrapped(small), known.task, known.outputs, Schedule(30, learning_rate=2e-3), 0, batch=16)
    assert known.apart(small) < before


def test_a_killed_distillation_ends_with_the_same_bits(known: Known, tmp_path: Path) -> None:
    schedule, ends = Schedule(60), []

    class Killed(Exception):
        pass

    def kill(step: int) -> None:
        if step == 55:
            raise Killed

    for killed in (False, True):
        small, _ = known.small("ffn", 0.25)
        file = tmp_path / "checkpoint" if killed else None
        if killed:
            with pytest.raises(Killed):
                begun, _ = known.small("ffn", 0.25)
                wrapped = known.wrapped(begun)
                distil(wrapped, known.task, known.outputs, schedule, 1, batch=8, checkpoint=file, progress=kill)
        distil(known.wrapped(small), known.task, known.outputs, schedule, 1, batch=8, checkpoint=file)
        ends.append(small.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_batches_are_full_though_few_rows_have_answers(known: Known) -> None:
    """A quarter of 64 rows has answers: batches of 8 are made of 32 rows each."""
    outputs = known.outputs.copy()
    outputs[np.arange(ROWS) % 4 != 0] = np.nan
    sizes: list[int] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(known.task, name)

        def inputs(self, part: Any, rows: list[int]) -> dict[str, Tensor]:
            sizes.append(len(rows))
            found: dict[str, Tensor] = known.task.inputs(part, rows)
            return found

    task: Any = Watched()
    small, _ = known.small("ffn", 0.5)
    distil(known.wrapped(small), task, outputs, Schedule(8), 0, batch=8)
    assert sum(sizes) / 8 == pytest.approx(8, abs=1)  # a step's rows may be shared out over cores
