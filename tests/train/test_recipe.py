"""Training from nothing: how pictures are varied, what the loss adds, and what happens where memory ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.errors import ArchsmithError, BadInput
from archsmith.tasks import ImageClassification
from archsmith.tasks.pictures import Preparation
from archsmith.train.recipe import Recipe, teach, varied

PLAIN = Recipe(steps=60, batch=16, learning_rate=3e-3)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> ImageClassification:
    """Pictures that are bright in their upper or in their lower half."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    x = rng.integers(0, 120, (300, 8, 8, 3))
    x[labels == 0, :4] += 60
    x[labels == 1, 4:] += 60
    file = tmp_path_factory.mktemp("halves") / "data.npz"
    np.savez(file, image=x.astype(np.uint8), label=labels)
    prepared = Preparation(8, 8, (0.5,) * 3, (0.25,) * 3)
    return ImageClassification.from_files(file, prepared=prepared, rng=rng, argument="x")


def small() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(54, 2))


class Taking(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def trained(task: ImageClassification, recipe: Recipe, seed: int = 0) -> tuple[nn.Module, Any]:
    module = Taking(small())
    return module, teach(task.wrap(module), task, recipe, seed)


@pytest.mark.parametrize("extra", [{}, {"optimiser": "sgd", "learning_rate": 0.05}, {"smoothing": 0.1}, {"shift": 1},
                                   {"mixup": 0.3}, {"cutout": 2}, {"turn": 10.0}, {"l1": 0.1}, {"share": 0.5},
                                   {"activation_l1": 0.01, "activation_l2": 0.01}], ids=str)  # fmt: skip
def test_every_recipe_learns_and_repeats(halves: ImageClassification, extra: dict[str, Any]) -> None:
    module, fitted = trained(halves, replace(PLAIN, **extra))
    again, _ = trained(halves, replace(PLAIN, **extra))
    other, _ = trained(halves, replace(PLAIN, **extra), seed=1)
    pairs = list(zip(module.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs) and not all(torch.equal(a, c) for a, _, c in pairs)
    assert fitted.steps == 60
    x, y = halves.inputs("validation", range(20))["x"], halves.targets("validation", range(20))
    assert (module(x).argmax(1) == y).float().mean() >= 0.9
    assert not any(part._forward_hooks for part in module.modules())


def test_penalties_do_what_they_say(halves: ImageClassification) -> None:
    def sizes(**extra: float) -> tuple[float, float]:
        module, _ = trained(halves, replace(PLAIN, weight_decay=0.0, **extra))
        with torch.no_grad():
            felt = module.inner[:2](halves.inputs("validation", range(20))["x"]).abs().mean()
        return sum(float(p.detach().abs().sum()) for p in module.parameters() if p.dim() > 1), float(felt)

    weights, felt = sizes()
    assert sizes(l1=5.0)[0] < 0.8 * weights
    assert sizes(activation_l1=3.0)[1] < 0.8 * felt and sizes(activation_l2=3.0)[1] < 0.8 * felt


def test_pictures_are_varied_each_by_itself_and_stay_pictures() -> None:
    x = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8).repeat(50, 1, 1, 1)
    same = varied(x, Recipe(1), np.random.default_rng(0))
    assert torch.equal(same, x)
    flipped = varied(x, Recipe(1, flip=True), np.random.default_rng(0))
    turned = (flipped == x.flip(3)).flatten(1).all(1)
    assert 25 < int(turned.sum()) < 75 and bool(((flipped == x).flatten(1).all(1) ^ turned).all())
    moved = varied(x, Recipe(1, shift=2), np.random.default_rng(0))
    assert moved[:, :, 3:5, 3:5].unique().numel() > 100 and moved.unique().numel() == x.unique().numel()
    blank = varied(x + 1, Recipe(1, cutout=4), np.random.default_rng(0)) == 0
    assert int(blank[:, 0].flatten(1).sum(1).min()) >= 4 and int(blank[:, 0].flatten(1).sum(1).max()) == 16
    tall = varied(torch.ones(40, 1, 4, 64), Recipe(1, shift=1, turn=5), np.random.default_rng(0))
    assert torch.allclose(tall, torch.ones(40, 1, 4, 64), atol=1e-5)
    line = torch.zeros(1, 1, 21, 81)
    line[:, :, 10] = 1.0  # turned by so many degrees it leaves the middle by the tangent of them
    bent = varied(line, Recipe(1, turn=10), np.random.default_rng(3))[0, 0]
    heights = bent.argmax(0).float()
    degrees = abs(float(torch.atan2(heights[60] - heights[20], torch.tensor(40.0)).rad2deg()))
    drawn = abs(float(np.random.default_rng(3).uniform(-10, 10, 1)[0]))
    assert degrees == pytest.approx(drawn, abs=2.0)
    round_ = varied(torch.ones(4, 1, 8, 8), Recipe(1, turn=45), np.random.default_rng(0))
    assert torch.allclose(round_, torch.ones(4, 1, 8, 8), atol=1e-5)


def test_a_batch_that_does_not_fit_is_halved(halves: ImageClassification, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = halves.inputs

    def little(part: Any, rows: Any) -> dict[str, Tensor]:
        if len(rows) > 5:
            raise torch.OutOfMemoryError("too much")
        return taken(part, rows)

    monkeypatch.setattr(halves, "inputs", little)
    _, fitted = trained(halves, PLAIN)
    assert fitted.steps == 240  # batches of 4 for 16

    def really(part: Any, rows: Any) -> dict[str, Tensor]:
        return taken(part, rows) if len(rows) <= 8 else {"x": torch.empty(10**15)}

    monkeypatch.setattr(halves, "inputs", really)
    module, fitted = trained(halves, PLAIN)
    assert fitted.steps == 120
    monkeypatch.setattr(halves, "inputs", taken)
    plan = replace(PLAIN, batch=8, steps=120, learning_rate=PLAIN.learning_rate / 2**0.5)
    assert all(
        torch.equal(a, b) for a, b in zip(module.parameters(), trained(halves, plan)[0].parameters(), strict=True)
    )

    def nothing(part: Any, rows: Any) -> dict[str, Tensor]:
        raise MemoryError

    monkeypatch.setattr(halves, "inputs", nothing)
    with pytest.raises(ArchsmithError, match="one row must fit into memory"):
        trained(halves, PLAIN)


def test_a_killed_training_of_halved_batches_goes_on_with_them(
    halves: ImageClassification, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken, file = halves.inputs, tmp_path / "checkpoint"

    def little(part: Any, rows: Any) -> dict[str, Tensor]:
        if len(rows) > 8:
            raise torch.OutOfMemoryError("too much")
        return taken(part, rows)

    def kill(step: int) -> None:
        if step == 110:
            raise KeyboardInterrupt

    monkeypatch.setattr(halves, "inputs", little)
    straight, _ = trained(halves, PLAIN)
    killed, rest = Taking(small()), Taking(small())
    with pytest.raises(KeyboardInterrupt):
        teach(halves.wrap(killed), halves, PLAIN, 0, checkpoint=file, progress=kill)
    steps: list[int] = []
    fitted = teach(halves.wrap(rest), halves, PLAIN, 0, checkpoint=file, progress=steps.append)
    assert (steps[0], steps[-1], fitted.steps) == (101, 120, 120)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), rest.parameters(), strict=True))


def test_an_unknown_optimiser_is_refused(halves: ImageClassification) -> None:
    with pytest.raises(BadInput, match="There are: adamw, sgd"):
        trained(halves, replace(PLAIN, optimiser="adam"))


def test_a_share_of_the_rows_is_the_same_share_in_every_pass(
    halves: ImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    taken = halves.inputs

    def noted(part: Any, rows: Any) -> dict[str, Tensor]:
        seen.update(rows)
        return taken(part, rows)

    monkeypatch.setattr(halves, "inputs", noted)
    trained(halves, replace(PLAIN, share=0.25))
    assert 0.2 < len(seen) / halves.size("train") < 0.3
