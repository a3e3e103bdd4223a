"""Prefix views: gradients reach the full weights, a step shows in the next call, no slower than the cut."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from families import shared_path, tiny_model

from archsmith.model import examine, realise, view
from archsmith.model.running import deviation, main_outputs, run

torch.set_num_threads(1)


@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen2"])
def test_gradients_flow_into_the_kept_units_only_and_steps_show(family):
    model, inputs = tiny_model(family)
    anatomy = examine(model, inputs, np.random.default_rng(0))
    name, axis = next((n, a) for n, a in anatomy.axes.items() if a.kind == "ffn")
    widths = {n: max(1, a.size // 2) for n, a in anatomy.axes.items()}
    call = view(model, anatomy, widths)
    before = main_outputs(call(**inputs))[0]
    before.square().sum().backward()
    place = axis.places[0]
    gradient = dict(model.named_parameters())[place.parameter].grad.movedim(place.dim, 0)
    moved = gradient.flatten(1).abs().sum(1) if gradient.dim() > 1 else gradient.abs()
    assert (moved[place.index[widths[name] :].ravel()] == 0).all() and (moved > 0).any()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
        after = main_outputs(call(**inputs))
    assert deviation(after, [before.detach()]) > 0
    assert deviation(after, run(realise(model, anatomy, widths), inputs)) < 1e-5
    assert name in anatomy.axes


@pytest.mark.slow
def test_a_view_takes_at_most_a_tenth_longer_than_the_cut():
    from transformers import AutoModelForSequenceClassification

    folder = shared_path("models/minilm-sst2")
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    short, ids = torch.randint(999, 9999, (2, 16)), torch.randint(999, 9999, (1, 128))
    anatomy = examine(model, {"input_ids": short, "attention_mask": torch.ones_like(short)}, np.random.default_rng(0))
    widths = {name: axis.size // 2 for name, axis in anatomy.axes.items() if axis.kind in {"heads", "ffn"}}
    both = {"view": view(model, anatomy, widths), "cut": realise(model, anatomy, widths)}
    seconds: dict[str, list[float]] = {name: [] for name in both}
    with torch.no_grad():
        for _ in range(40):
            for name, call in both.items():
                start = time.perf_counter()
                call(input_ids=ids)
                seconds[name].append(time.perf_counter() - start)
    assert np.median(seconds["view"]) <= 1.1 * np.median(seconds["cut"])
