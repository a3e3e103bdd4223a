"""Declared networks made, trained and judged on real kinds of tasks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.build import Declared, Signal, known_space, network
from archsmith.build.layers import Bag
from archsmith.build.plan import Part as Plan
from archsmith.errors import ArchsmithError, BadInput
from archsmith.evaluate.from_scratch import FromScratch, Ground, check_recipe, quicker
from archsmith.evaluate.trained import validation_risk
from archsmith.evaluate.weight_shared import Shared
from archsmith.space import Architecture
from archsmith.tasks import ImageClassification
from archsmith.tasks.pictures import Preparation
from archsmith.train import Fitted
from archsmith.train.recipe import Recipe
from archsmith.trial import Proposal

RECIPE = Recipe(steps=80, batch=32, learning_rate=3e-3, warmup=0.1)


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> ImageClassification:
    """Stripes along or across, in any phase: no pixel by itself tells them apart."""
    rng = np.random.default_rng(0)
    labels, phase = rng.integers(0, 2, 500), rng.integers(0, 4, 500)
    wave = 100 + 60 * np.sin((np.arange(8)[None] + phase[:, None]) * np.pi / 2)
    x = np.where(labels[:, None, None] == 0, wave[:, :, None], wave[:, None, :])[..., None] + rng.normal(
        0, 20, (500, 8, 8, 3)
    )
    file = tmp_path_factory.mktemp("stripes") / "data.npz"
    np.savez(file, image=x.clip(0, 255).astype(np.uint8), label=labels)
    prepared = Preparation(8, 8, (0.5,) * 3, (0.25,) * 3)
    return ImageClassification.from_files(file, prepared=prepared, rng=rng, argument="x")


def test_pictures(stripes: ImageClassification) -> None:
    blueprint = known_space("nb201")
    evaluate = FromScratch(Ground.of(stripes), blueprint, RECIPE)
    point = dict.fromkeys(blueprint.space.choices, "skip_connect") | {"0->1": "nor_conv_3x3"}
    good = evaluate(Proposal(Architecture(point)), np.random.default_rng(0))
    assert good == evaluate(Proposal(Architecture(point)), np.random.default_rng(1))
    assert good["loss_points"] < 10 and good["parameters"] > 73_306 - 1000
    dead = evaluate(Proposal(Architecture(dict.fromkeys(point, "none"))), np.random.default_rng(0))
    assert dead["loss_points"] > 25 and dead["macs"] < good["macs"]


def test_fewer_epochs_are_fewer_steps(stripes: ImageClassification) -> None:
    blueprint = known_space("chain")
    evaluate, point = (
        FromScratch(Ground.of(stripes), blueprint, RECIPE),
        blueprint.space.sample(np.random.default_rng(0)),
    )
    assert evaluate.recipe_at(Proposal(point, {"epochs": 2.0})).steps == 2 * round(stripes.size("train") / 32)
    assert evaluate.recipe_at(Proposal(point, {"epochs": 2.0, "share": 0.5})).steps == round(stripes.size("train") / 32)
    assert evaluate.recipe_at(Proposal(point)) == RECIPE


def test_a_lower_resolution_is_seen_by_the_network_and_costs_are_of_the_whole(stripes: ImageClassification) -> None:
    blueprint, ground = known_space("nb201"), Ground.of(stripes)
    point = Architecture(dict.fromkeys(blueprint.space.choices, "nor_conv_3x3"))
    half = ground.at(0.5)
    assert half.plan(blueprint, point).gives.shape == (2,) and half.signal.shape == (3, 4, 4)
    evaluate = FromScratch(ground, blueprint, Recipe(steps=2, batch=8))
    whole = evaluate(Proposal(point), np.random.default_rng(0))
    low = evaluate(Proposal(point, {"resolution": 0.5}), np.random.default_rng(0))
    assert low["macs"] == whole["macs"] and low["parameters"] == whole["parameters"]
    plan, x = half.plan(blueprint, point), torch.randn(4, 3, 8, 8)
    inner = network(plan, 0).eval()
    torch.testing.assert_close(half.module(plan, 0).eval()(x), inner(torch.nn.functional.avg_pool2d(x, 2)))
    with pytest.raises(BadInput, match="a share of a picture's sides"):
        ground.at(1.5)


def test_texts(tiny_task: Callable[..., Any]) -> None:
    task = tiny_task("classification", rows=96)
    ground = Ground.of(task)
    assert ground.given["classes"] == 3 and ground.given["vocabulary"] == 96
    for name in ("text", "encoder"):
        blueprint = known_space(name)
        point = blueprint.space.sample(np.random.default_rng(0))
        values = FromScratch(ground, blueprint, Recipe(steps=3, batch=16))(Proposal(point), np.random.default_rng(0))
        assert 0 <= values["loss_points"] <= 100 and values["macs"] > 0


def test_a_bag_knows_the_train_texts_alone_wherever_it_is_built(tiny_task: Callable[..., Any]) -> None:
    task = tiny_task("classification", rows=96)
    ground = Ground.of(task)
    blueprint = Declared(
        {"bag": [4, 8]}, [{"bag": {"rows": 65_536, "out": "$bag", "longest": 1}}, {"linear": {"out": "$classes"}}]
    )
    plan = ground.plan(blueprint, {"bag": 4})
    alone, shared = ground.module(plan, 0), Shared(ground, blueprint).network(plan)
    seen: dict[int, set[int]] = {}
    rows = task.inputs("train", range(task.size("train")))
    for row, (ids, mask) in enumerate(zip(rows["input_ids"], rows["attention_mask"], strict=True)):
        for token in ids[mask != 0].tolist():
            seen.setdefault(token, set()).add(row)
    for built in (alone, shared):
        layer = next(part for part in built.modules() if isinstance(part, Bag))
        assert layer.texts == task.size("train")
        assert {int(row): int(layer.seen[row]) for row in layer.seen.nonzero()} == {
            token: len(texts) for token, texts in seen.items()
        }
    before = {name: buffer.clone() for name, buffer in alone.named_buffers()}
    FromScratch(ground, blueprint, Recipe(steps=3, batch=16)).trained(plan, Recipe(steps=3, batch=16))
    assert all(torch.equal(buffer, before[name]) for name, buffer in alone.named_buffers())


def test_a_space_of_another_kind_is_refused(stripes: ImageClassification, tiny_task: Callable[..., Any]) -> None:
    ground = Ground.of(stripes)
    with pytest.raises(BadInput, match=r"found \$vocabulary at image-classification"):
        ground.plan(known_space("text"), known_space("text").space.sample(np.random.default_rng(0)))
    with pytest.raises(BadInput, match="gives 2 numbers a row; found 7"):
        ground.plan(Declared({}, ["mean", {"linear": {"out": 7}}]), {})


def test_a_training_that_learns_by_heart_is_shortened(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (600, 8, 8, 3))
    labels = (x[:, :, :4].mean((1, 2, 3)) > x[:, :, 4:].mean((1, 2, 3))) ^ (rng.random(600) < 0.2)
    np.savez(tmp_path / "data.npz", image=x.astype(np.uint8), label=labels.astype(int))
    prepared = Preparation(8, 8, (0.5,) * 3, (0.25,) * 3)
    task = ImageClassification.from_files(
        tmp_path / "data.npz", prepared=prepared, rng=np.random.default_rng(0), argument="x"
    )
    blueprint = Declared({}, ["flatten", {"linear": {"out": 64}}, "relu", {"linear": {"out": "$classes"}}])
    maker = FromScratch(Ground.of(task), blueprint, RECIPE)
    plan, recipe = maker.ground.plan(blueprint, {}), Recipe(steps=400, batch=32, learning_rate=3e-3)
    whole, fitted = maker.trained(plan, recipe, checks=20)
    best, shorter = maker.annealed(plan, recipe, checks=20)
    at, least = min(fitted.validated, key=lambda check: check[1])
    assert at <= 0.35 * 400, "these rows are meant to be learnt by heart"
    assert shorter.steps == 2 * at
    assert validation_risk(best, task) == pytest.approx(min(value for _, value in shorter.validated))
    assert validation_risk(best, task) < least == pytest.approx(validation_risk(whole, task))
    kept = tmp_path / "winner.checkpoint"
    told: list[int] = []

    def die(step: int) -> None:
        told.append(step)
        if len(told) == 130:
            raise KeyboardInterrupt

    dying = replace(maker, progress=die)
    with pytest.raises(KeyboardInterrupt):
        dying.annealed(plan, recipe, checks=20, checkpoint=kept)
    again, _ = dying.annealed(plan, recipe, checks=20, checkpoint=kept)
    assert all(torch.equal(a, b) for a, b in zip(best.parameters(), again.parameters(), strict=True))
    assert told[130] == 101 and len(told) == 130 + 300 + shorter.steps, "it goes on from what was kept"


def test_where_batches_were_halved_an_early_best_is_as_early(
    stripes: ImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = FromScratch(Ground.of(stripes), Declared({}, ["mean", {"linear": {"out": "$classes"}}]), RECIPE)
    plan, asked, recipe = maker.ground.plan(maker.blueprint, {}), list[int](), Recipe(steps=1000)

    def trained(self: FromScratch, plan: Plan, recipe: Recipe, **more: object) -> tuple[nn.Module, Fitted]:
        asked.append(recipe.steps)
        if len(asked) == 2:
            raise ArchsmithError("training must stay finite")
        losses = tuple((each, 0.1 if each == 1200 else 1.0) for each in range(200, 4001, 200))
        return nn.Identity(), Fitted(4 * recipe.steps, 1.0, 0, losses, 1.0)

    monkeypatch.setattr(FromScratch, "trained", trained)
    _, fitted = maker.annealed(plan, recipe, checks=20)
    assert asked == [1000, 600] and fitted.steps == 4000  # the second failed, and the first stays


def test_what_a_recipe_varies_of_pictures_is_of_pictures(stripes: ImageClassification) -> None:
    ground, network = Ground.of(stripes), ["mean", {"linear": {"out": "$classes"}}]
    check_recipe(Declared({}, network, recipe={"flip": True, "mixup": 0.2}), ground)
    series, text = (replace(ground, signal=Signal((12,), tokens=tokens)) for tokens in (False, True))
    check_recipe(Declared({}, network, recipe={"mixup": 0.2}), series)
    with pytest.raises(BadInput, match="flip is of pictures"):
        check_recipe(Declared({}, network, recipe={"flip": True}), series)
    with pytest.raises(BadInput, match="mixup is of numbers"):
        check_recipe(Declared({}, network, recipe={"mixup": 0.2}), text)


def test_a_training_that_gets_better_to_its_end_is_left_alone(stripes: ImageClassification) -> None:
    blueprint = Declared({}, [{"conv": {"out": 4}}, "relu", "mean", {"linear": {"out": "$classes"}}])
    maker = FromScratch(Ground.of(stripes), blueprint, RECIPE)
    plan = maker.ground.plan(blueprint, {})
    recipe = Recipe(steps=40, batch=32, learning_rate=1e-3)
    once, fitted = maker.trained(plan, recipe, checks=4)
    settled, same = maker.annealed(plan, recipe, checks=4)
    assert same == fitted and all(
        torch.equal(a, b) for a, b in zip(once.parameters(), settled.parameters(), strict=True)
    )


QUICKER = {
    "quicker": (None, 0.5, True),
    "hardly quicker": (None, 0.95, False),
    "no bf16 here": ("the CPU has no bf16 units", 0.5, False),
}


@pytest.mark.parametrize(("lacking", "share", "expected"), QUICKER.values(), ids=QUICKER)
def test_bf16_is_taken_where_it_is_quicker(
    lacking: str | None, share: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archsmith.evaluate.from_scratch.lacks_bf16", lambda: lacking)
    autocast, seconds = quicker(lambda bf16: [2.0 * (share if bf16 else 1.0), 3.0 * (share if bf16 else 1.0)])
    assert autocast is expected and seconds == ([2.0 * share, 3.0 * share] if expected else [2.0, 3.0])


def test_bf16_that_a_network_does_not_bear_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archsmith.evaluate.from_scratch.lacks_bf16", lambda: None)

    def seconds(bf16: bool) -> list[float]:
        if bf16:
            raise NotImplementedError("\"a kernel\" not implemented for 'BFloat16'")
        return [2.0]

    assert quicker(seconds) == (False, [2.0])


def test_how_sure_a_network_is_of_itself_says_nothing_of_its_risk(stripes: ImageClassification) -> None:
    ground = Ground.of(stripes)
    blueprint = Declared({}, [{"conv": {"out": 4}}, "relu", "mean", {"linear": {"out": "$classes"}}])
    maker = FromScratch(ground, blueprint, RECIPE)
    wrapped, _ = maker.trained(ground.plan(blueprint, {}), replace(RECIPE, steps=6))

    class Louder(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.inner, self.by = wrapped, by

        def forward(self, **inputs: Tensor) -> Tensor:
            return self.inner(**inputs) * self.by

    risk = validation_risk(wrapped, stripes)
    assert 0.2 < risk < 0.6931, "some rows are meant to be wrong"
    assert validation_risk(Louder(8.0), stripes) == pytest.approx(risk, abs=1e-3)
    assert validation_risk(Louder(-8.0), stripes) > risk + 0.01
    assert math.isnan(validation_risk(Louder(math.nan), stripes))
