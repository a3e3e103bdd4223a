"""Plans: what they refuse, how they print, what a cut shares with the model it came from."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from families import tiny_model

from archsmith.errors import BadInput
from archsmith.model import cut, examine, plan, reorder
from archsmith.model.running import deviation, run

torch.set_num_threads(1)

FFN = "bert.encoder.layer.1.ffn"


@pytest.fixture(scope="module")
def bert():
    model, inputs = tiny_model("bert")
    return model, inputs, examine(model, inputs, np.random.default_rng(0))


REFUSED = [
    ({"bert.encoder.layer.1.fnn": [0]}, [], "Did you mean 'bert.encoder.layer.1.ffn'"),
    ({FFN: []}, [], "at least one unit"),
    ({FFN: [0, 48]}, [], "units are numbered 0 to 47; found 48"),
    ({FFN: [-1]}, [], "found -1"),
    ({FFN: [3, 3]}, [], "kept once"),
    ({}, ["bert.encoder.layer.7"], "a branch must be one that was certified"),
]


@pytest.mark.parametrize(("keep", "skip", "message"), REFUSED)
def test_a_plan_that_cannot_be_is_refused(bert, keep, skip, message):
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        plan(bert[2], keep, skip)


def test_an_order_that_is_no_permutation_is_refused(bert):
    with pytest.raises(BadInput, match="every unit of its axis once"):
        reorder(bert[0], bert[2], {FFN: [1, 0]})


def test_a_plan_prints_one_line_a_change(bert):
    text = str(plan(bert[2], {FFN: range(5), "bert.encoder.layer.0.ffn": [1]}, ["bert.encoder.layer.0"]))
    assert text.splitlines() == [
        "skip layer bert.encoder.layer.0",
        "bert.encoder.layer.1.ffn: 48 -> 5 (ffn, 3 places)",
    ]
    assert str(plan(bert[2], {})) == "nothing changes"


def test_a_cut_shares_what_it_leaves_alone_and_nothing_else(bert):
    model, _, anatomy = bert
    small = cut(model, plan(anatomy, {FFN: [0, 2]}))
    old, new = dict(model.named_parameters()), dict(small.named_parameters())
    changed = {name for name in new if new[name].shape != old[name].shape}
    assert changed == {place.parameter for place in anatomy.axes[FFN].places}
    for name, tensor in new.items():
        assert (tensor.untyped_storage().data_ptr() == old[name].untyped_storage().data_ptr()) == (name not in changed)
        assert tensor is not old[name] and tensor.requires_grad == old[name].requires_grad
    assert small.config is not model.config


def test_training_a_deep_copy_of_a_cut_leaves_the_model_alone(bert):
    model, inputs, anatomy = bert
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = copy.deepcopy(cut(model, plan(anatomy, {FFN: [0, 2]}))).train()
    optimiser = torch.optim.SGD(small.parameters(), lr=0.1)
    small(**inputs).logits.square().sum().backward()
    optimiser.step()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_skipped_layer_leaves_its_list_and_a_skipped_block_its_bias(bert):
    model, inputs, anatomy = bert
    small = cut(model, plan(anatomy, {}, ["bert.encoder.layer.0", "bert.encoder.layer.1.ffn.block"]))
    assert len(small.bert.encoder.layer) == 2 and len(model.bert.encoder.layer) == 3
    stub = small.bert.encoder.layer[0].output.dense
    assert torch.equal(stub.bias, model.bert.encoder.layer[1].output.dense.bias)
    names = [name for name, _ in small.named_parameters()]
    assert not any("layer.0.intermediate" in name or "layer.2." in name for name in names)
    assert deviation(run(small, inputs), run(model, inputs)) > 1e-3


def test_every_layer_can_go_at_once(bert):
    model, inputs, anatomy = bert
    layers = [name for name, branch in anatomy.branches.items() if branch.kind == "layer"]
    small = cut(model, plan(anatomy, {"residual": range(8)}, layers))
    assert len(small.bert.encoder.layer) == 0 and run(small, inputs)[0].shape == (2, 3)


def test_kept_units_are_those_named(bert):
    model, _, anatomy = bert
    small = cut(model, plan(anatomy, {"bert.encoder.layer.0.attention.heads": [3, 1], "residual": [5, 2, 9]}))
    query = model.bert.encoder.layer[0].attention.self.query.weight.view(4, 8, 32)
    kept = small.bert.encoder.layer[0].attention.self.query.weight.view(2, 8, 3)
    assert torch.equal(kept, query[[3, 1]][:, :, [5, 2, 9]])
