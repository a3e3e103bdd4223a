"""What the trainings of shared weights, of all kinds, do where a batch does not fit into memory, and where they are
killed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from archsmith.build import Declared
from archsmith.errors import ArchsmithError
from archsmith.evaluate.controlled import train_controlled
from archsmith.evaluate.differentiable import Mixture, train_mixture, train_progressively
from archsmith.evaluate.elastic import Elastic
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.shrinking import train_shrinking
from archsmith.evaluate.weight_shared import Shared, train_shared
from archsmith.search.policy import Policy
from archsmith.train import Fitted
from archsmith.train.recipe import Recipe

RECIPE = Recipe(steps=12, batch=16, learning_rate=2e-3)
HALVED = Recipe(steps=24, batch=8, learning_rate=2e-3 / 2**0.5)
Trained = tuple[Fitted, list[Tensor]]


def paths(ground: Ground, wide: Declared, recipe: Recipe, **how: Any) -> Trained:
    shared = Shared(ground, wide)
    return train_shared(shared, recipe, paths=2, **how), list(shared.parameters())


def shrinking(ground: Ground, wide: Declared, recipe: Recipe, **how: Any) -> Trained:
    shared = Elastic(ground, wide)
    return train_shrinking(shared, recipe, **how), list(shared.parameters())


def mixed(ground: Ground, wide: Declared, recipe: Recipe, **how: Any) -> Trained:
    mixture = Mixture(Shared(ground, wide))
    found = train_mixture(mixture, recipe, **how)
    return found.fitted, [*mixture.shared.parameters(), *mixture.strength.parameters()]


def staged(ground: Ground, wide: Declared, recipe: Recipe, **how: Any) -> Trained:
    mixture, found = train_progressively(lambda depth: Shared(ground, wide), recipe, **how)
    return found.fitted, [*mixture.shared.parameters(), *mixture.strength.parameters()]


def controlled(ground: Ground, wide: Declared, recipe: Recipe, **how: Any) -> Trained:
    shared, writing = Shared(ground, wide), Policy(wide.space, "reinforce", "recurrent", 24)
    fitted, draws = train_controlled(shared, writing, recipe, **how)
    next(draws)
    baseline = torch.tensor(writing.baseline)
    return fitted, [*shared.parameters(), *writing.writer.parameters(), baseline]


second_order = partial(mixed, second_order=True)
sampled = partial(mixed, method="gdas")
Train = Callable[..., Trained]


@pytest.mark.parametrize("train", [paths, shrinking, mixed, second_order, controlled])
def test_a_batch_that_does_not_fit_is_halved(
    ground: Ground, wide: Declared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, train: Train
) -> None:
    straight, expected = train(ground, wide, HALVED)
    little_room(ground, monkeypatch, 11)
    with caplog.at_level(logging.WARNING, "archsmith"):
        fitted, parameters = train(ground, wide, RECIPE)
    assert "a batch of 16 rows did not fit into memory; training begins anew with 8" in caplog.text
    assert fitted == straight and fitted.steps == 24
    assert all(torch.equal(a, b) for a, b in zip(parameters, expected, strict=True))


@pytest.mark.parametrize("train", [paths, shrinking, mixed, second_order, sampled, staged, controlled])
def test_a_killed_training_goes_on_as_if_nothing_had_been(
    ground: Ground, wide: Declared, tmp_path: Path, train: Train
) -> None:
    recipe, last = (Recipe(steps=240, batch=8), 145) if train is staged else (Recipe(steps=80, batch=8), 65)
    straight, expected = train(ground, wide, recipe)

    def kill(step: int) -> None:
        if step == last:  # of P-DARTS in its second stage
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(ground, wide, recipe, checkpoint=tmp_path / "shared.checkpoint", progress=kill)
    steps: list[int] = []
    fitted, parameters = train(ground, wide, recipe, checkpoint=tmp_path / "shared.checkpoint", progress=steps.append)
    assert len(steps) < 0.6 * recipe.steps and fitted == straight
    assert all(torch.equal(a, b) for a, b in zip(parameters, expected, strict=True))


def test_one_row_that_does_not_fit_is_said(ground: Ground, wide: Declared, monkeypatch: pytest.MonkeyPatch) -> None:
    little_room(ground, monkeypatch, 0, 0)
    with pytest.raises(ArchsmithError, match="one row must fit into memory"):
        paths(ground, wide, RECIPE)


def test_a_halved_training_that_is_killed_goes_on_with_its_batch(
    ground: Ground, wide: Declared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    straight, killed, rest = (Shared(ground, wide) for _ in range(3))
    recipe, file = Recipe(steps=60, batch=16), tmp_path / "shared.checkpoint"
    little_room(ground, monkeypatch, 11)
    train_shared(straight, recipe)

    def kill(step: int) -> None:
        if step == 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_shared(killed, recipe, checkpoint=file, progress=kill)
    steps: list[int] = []
    train_shared(rest, recipe, checkpoint=file, progress=steps.append)
    assert (steps[0], steps[-1]) == (51, 120)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), rest.parameters(), strict=True))


def little_room(ground: Ground, monkeypatch: pytest.MonkeyPatch, calls: int, most: int = 8) -> None:
    """Let there be memory for so many batches of any size, and then for `most` rows."""
    taken, seen = ground.task.inputs, 0

    def little(part: str, rows: Any) -> dict[str, Tensor]:
        nonlocal seen
        seen += part == "train"
        if seen > calls and len(rows) > most:
            raise torch.OutOfMemoryError("too much")
        return taken(part, rows)

    monkeypatch.setattr(ground.task, "inputs", little)
