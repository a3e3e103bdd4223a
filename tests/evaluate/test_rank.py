"""Ranks of units: what does nothing ranks last, and the model is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from archsmith.evaluate.rank import order_units, rank_units
from archsmith.model import Anatomy, examine

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def known(tiny: Callable[..., Any], tiny_task: Callable[..., Any]) -> tuple[nn.Module, Anatomy, Any]:
    made = tiny("bert")
    return made.model, examine(made.model, made.inputs, np.random.default_rng(0)), tiny_task("classification")


@pytest.fixture
def case(known: tuple[nn.Module, Anatomy, Any], tiny: Callable[..., Any]) -> tuple[nn.Module, Anatomy, Any]:
    return tiny("bert").model, known[1], known[2]


def axis_named(anatomy: Anatomy, start: str, kind: str) -> str:
    return next(name for name, axis in anatomy.axes.items() if name.startswith(start) and axis.kind == kind)


DEAD_UNITS = [
    ("a neuron that nothing reads", "ffn", (3, 17), "output.dense.weight", 1),
    ("a neuron that reads nothing", "ffn", (0, 40), "intermediate.dense", 0),
    ("a head that nothing reads", "heads", (2,), "attention.output.dense.weight", 1),
]


@pytest.mark.parametrize(("kind", "units", "where", "dim"), [d[1:] for d in DEAD_UNITS], ids=[d[0] for d in DEAD_UNITS])
def test_units_of_zero_weight_rank_last(
    case: tuple[nn.Module, Anatomy, Any], kind: str, units: tuple[int, ...], where: str, dim: int
) -> None:
    model, anatomy, task = case
    name = axis_named(anatomy, "bert.encoder.layer.1", kind)
    width = 32 // 4 if kind == "heads" else 1
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.startswith(f"bert.encoder.layer.1.{where}"):
                for unit in units:
                    parameter.narrow(dim, unit * width, width).zero_()
    importance = rank_units(model, anatomy, task, np.random.default_rng(0), rows=40)
    assert all(importance[name][unit] == 0 for unit in units)
    assert sum(importance[name] == 0) == len(units)
    assert set(order_units(importance)[name][-len(units) :]) == set(units)


def test_every_axis_gets_a_rank_of_its_units(case: tuple[nn.Module, Anatomy, Any]) -> None:
    model, anatomy, task = case
    importance = rank_units(model, anatomy, task, np.random.default_rng(0), rows=40)
    assert list(importance) == list(anatomy.axes)
    for name, axis in anatomy.axes.items():
        assert importance[name].shape == (axis.size,) and (importance[name] >= 0).all()
        assert np.isfinite(importance[name]).all() and importance[name].max() > 0
    for name, order in order_units(importance).items():
        assert sorted(order) == list(range(anatomy.axes[name].size))
        assert all(a >= b for a, b in zip(importance[name][order], importance[name][order][1:], strict=False))


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(case: tuple[nn.Module, Anatomy, Any], training: bool) -> None:
    model, anatomy, task = case
    model.train(training)
    model.classifier.train(not training)  # type: ignore[operator, union-attr]
    frozen = {"bert.encoder.layer.0.output.dense.weight", "classifier.weight"}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    rank_units(model, anatomy, task, np.random.default_rng(0), rows=16)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == frozen
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_ranks_depend_on_the_generator_alone(case: tuple[nn.Module, Anatomy, Any]) -> None:
    model, anatomy, task = case
    found = [rank_units(model.train(), anatomy, task, np.random.default_rng(seed), rows=24) for seed in (0, 0, 1)]
    name = next(iter(anatomy.axes))
    assert np.array_equal(found[0][name], found[1][name]) and not np.array_equal(found[0][name], found[2][name])


def test_a_network_whose_layers_alone_can_go_has_nothing_to_rank(case: tuple[nn.Module, Anatomy, Any]) -> None:
    model, anatomy, task = case
    assert rank_units(model, replace(anatomy, axes={}), task, np.random.default_rng(0)) == {}


ORDERS = [
    ([3.0, 1.0, 2.0], [0, 2, 1]),
    ([1.0, 1.0, 2.0], [2, 0, 1]),  # of equals the first
    ([0.0], [0]),
]


@pytest.mark.parametrize(("scores", "order"), ORDERS)
def test_units_are_ordered_by_importance(scores: list[float], order: list[int]) -> None:
    assert order_units({"axis": np.array(scores)}) == {"axis": order}
