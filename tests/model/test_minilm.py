"""A real trained model: what can change in the MiniLM that all is measured on, and how long that takes to see."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import torch
from families import shared_path
from masking import cut_equals_masked, masked

from archsmith.model import cut, derive_space, examine, plan, realise
from archsmith.model.running import deviation, run

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def minilm():
    from transformers import AutoModelForSequenceClassification

    folder = shared_path("models/minilm-sst2")
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ids = torch.randint(999, 9999, (2, 16))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    start = time.process_time()
    anatomy = examine(model, inputs, np.random.default_rng(0))
    return model, inputs, anatomy, time.process_time() - start


def test_it_is_seen_in_fifteen_seconds(minilm):
    assert minilm[3] <= 15


def test_heads_widths_stream_and_every_branch_are_certified(minilm):
    anatomy = minilm[2]
    assert Counter(axis.kind for axis in anatomy.axes.values()) == {"heads": 6, "ffn": 6, "residual": 1, "width": 1}
    assert Counter(branch.kind for branch in anatomy.branches.values()) == {"attention": 6, "ffn": 6, "layer": 6}
    assert len(anatomy.axes["residual"].places) == 78
    sizes = {kind: {axis.size for axis in anatomy.axes.values() if axis.kind == kind} for kind in ("heads", "ffn")}
    assert sizes == {"heads": {12}, "ffn": {1536}}


def test_a_random_cut_of_all_heads_and_widths_equals_the_mask(minilm):
    model, inputs, anatomy, _ = minilm
    assert cut_equals_masked(model, inputs, anatomy, np.random.default_rng(1), ("heads", "ffn", "width")) < 1e-4


def test_the_stream_of_256_equals_a_model_whose_norms_see_256(minilm):
    """An independent reference: positions at zero, and every LayerNorm replaced by one over the kept channels."""
    model, inputs, anatomy, _ = minilm
    keep = np.sort(np.random.default_rng(2).choice(384, 256, replace=False))
    small = cut(model, plan(anatomy, {"residual": keep}))
    reference = masked(model, anatomy, {"residual": keep.tolist()})
    kept = torch.from_numpy(keep)

    def over_kept(module, args, out):
        x = args[0][..., kept]
        norm = torch.nn.functional.layer_norm(x, (256,), module.weight[kept], module.bias[kept], module.eps)
        return torch.zeros_like(out).index_copy(-1, kept, norm)

    for module in reference.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_hook(over_kept)
    assert deviation(run(small, inputs), run(reference, inputs)) < 1e-4
    assert deviation(run(small, inputs), run(masked(model, anatomy, {"residual": keep.tolist()}), inputs)) > 1e-2


def test_its_space_holds_the_small_architectures(minilm):
    model, inputs, anatomy, _ = minilm
    space = derive_space(anatomy)
    assert space.choices["bert.encoder.layer.3.ffn"].values[::4] == (1536, 1024, 512)
    assert space.choices["residual"].values[:2] == (384, 352)
    small = realise(
        model,
        anatomy,
        {f"bert.encoder.layer.{i}": False for i in (0, 2, 4)}
        | {f"bert.encoder.layer.{i}.attention.heads": 6 for i in (1, 3, 5)}
        | {f"bert.encoder.layer.{i}.ffn": 768 for i in (1, 3, 5)},
    )
    assert len(small.bert.encoder.layer) == 3
    assert [layer.intermediate.dense.out_features for layer in small.bert.encoder.layer] == [768] * 3
    assert run(small, inputs)[0].shape == (2, 2)
