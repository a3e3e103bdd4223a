"""Laws that hold for every family of transformers models: one tiny random model each, examined once."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from families import FAMILIES, tiny_model
from masking import cut_equals_masked, halves

from archsmith.model import cut, derive_space, examine, plan, realise, reorder, view
from archsmith.model.running import deviation, main_outputs, run

torch.set_num_threads(1)

SEQUENCE = {"vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SEQ2SEQ = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
# family -> (model class, config class, config values, shapes of its inputs)
MORE = {
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32},
        {"input_ids": (2, 9)},
    ),
    "gpt-neox": (
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
        {"input_ids": (2, 9)},
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {**SEQ2SEQ, "num_mel_bins": 12, "max_source_positions": 20, "decoder_start_token_id": 1},
        {"input_features": (2, 12, 40), "decoder_input_ids": (2, 7)},
    ),
    "resnet": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [16, 24], "depths": [2, 2], "num_labels": 3},
        {"pixel_values": (2, 3, 32, 32)},
    ),
    "convnext": (
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [16, 24], "depths": [2, 2], "num_stages": 2, "num_labels": 3},
        {"pixel_values": (2, 3, 32, 32)},
    ),
}

# family -> how many axes of each kind and branches of each kind must be found
EXPECTED = {
    "bert": ("heads 3 ffn 3 residual 1 width 1", "layer 3 attention 3 ffn 3"),
    "distilbert": ("heads 3 ffn 3 residual 1 width 1", "layer 3 attention 3 ffn 3"),
    "roberta": ("heads 3 ffn 3 residual 1 width 1", "layer 3 attention 3 ffn 3"),
    "gpt2": ("heads 3 ffn 3 residual 1", "layer 3 attention 3 ffn 3"),
    "qwen2": ("kv_groups 3 heads 3 ffn 3 residual 1", "layer 3 attention 3 ffn 3"),
    "llama": ("kv_groups 3 heads 3 ffn 3 residual 1", "layer 3 attention 3 ffn 3"),
    "t5": ("heads 3 ffn 6 residual 1", "layer 4 ffn 6"),
    "vit": ("heads 3 ffn 3 residual 1", "layer 3 attention 3 ffn 3"),
    "modernbert": ("heads 3 ffn 3 residual 1 width 1", "layer 3 attention 3 ffn 3"),
    "deberta-v2": ("heads 3 ffn 3 residual 1 width 4", "layer 3 attention 3 ffn 3"),
    "mpnet": ("heads 1 ffn 3 residual 1 width 1", "layer 3 attention 3 ffn 3"),
    "bloom": ("heads 2 ffn 2 residual 1 width 2", "layer 2 ffn 2"),
    "opt": ("heads 2 ffn 2 residual 1", "layer 2 attention 2 ffn 2"),
    "gpt-neox": ("heads 2 ffn 2 residual 1", "layer 2 attention 2 ffn 2"),
    "whisper": ("heads 6 ffn 4 residual 2 channels 1", "layer 4 attention 6 ffn 4"),
    "resnet": ("channels 9 residual 2", "layer 2"),
    "convnext": ("ffn 4 channels 2", "layer 5 ffn 4"),
}
TWICE = ["bert", "gpt2", "qwen2", "resnet", "bloom"]


@cache
def built(family):
    """The model and its inputs."""
    if family in FAMILIES:
        return tiny_model(family)
    import transformers

    class_name, config_name, values, shapes = MORE[family]
    text = SEQUENCE if any("ids" in name for name in shapes) else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(family.encode()))
        model = getattr(transformers, class_name)(getattr(transformers, config_name)(**text, **values)).eval()
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter) * 0.1
        inputs = {n: torch.randint(3, 90, s) if "ids" in n else torch.randn(s) for n, s in shapes.items()}
    return model, inputs


@cache
def examined(family):
    model, inputs = built(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    anatomy = examine(model, inputs, np.random.default_rng(0))
    unchanged = all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    return model, inputs, anatomy, unchanged


def counted(text: str) -> dict[str, int]:
    words = text.split()
    return {kind: int(count) for kind, count in zip(words[::2], words[1::2], strict=True)}


each_family = pytest.mark.parametrize("family", EXPECTED)


@each_family
def test_what_can_change_is_found_and_the_model_is_left_alone(family):
    _, _, anatomy, unchanged = examined(family)
    axes, branches = EXPECTED[family]
    assert Counter(axis.kind for axis in anatomy.axes.values()) == counted(axes)
    assert Counter(branch.kind for branch in anatomy.branches.values()) == counted(branches)
    assert unchanged and not anatomy.unknown_operators
    subjects = [certificate.subject for certificate in anatomy.certificates]
    assert len(subjects) == len(set(subjects)) and {*anatomy.axes, *anatomy.branches} <= set(subjects)


@each_family
def test_a_random_cut_of_everything_but_the_stream_equals_the_mask(family):
    model, inputs, anatomy, _ = examined(family)
    kinds = ("heads", "kv_groups", "ffn", "channels", "width")
    if family in {"convnext", "whisper"}:
        kinds = ("heads", "ffn")  # their other channels pass a layer norm
    if family in {"bert", "modernbert", "roberta", "deberta-v2", "mpnet"}:
        kinds = ("heads", "kv_groups", "ffn")
    assert cut_equals_masked(model, inputs, anatomy, np.random.default_rng(1), kinds) < 1e-4


@each_family
def test_sorting_units_changes_nothing_and_views_equal_cuts(family):
    model, inputs, anatomy, _ = examined(family)
    rng = np.random.default_rng(2)
    order = {name: list(map(int, rng.permutation(axis.size))) for name, axis in anatomy.axes.items()}
    ordered = reorder(model, anatomy, order)
    assert deviation(run(ordered, inputs), run(model, inputs)) < 1e-4
    widths = {name: max(1, axis.size // 2) for name, axis in anatomy.axes.items()}
    skip = [name for name, branch in anatomy.branches.items() if branch.kind != "layer"][:1]
    call = view(ordered, anatomy, widths, skip)
    small = realise(ordered, anatomy, {**widths, **dict.fromkeys(skip, False)})
    with torch.no_grad():
        assert deviation(main_outputs(call(**inputs)), run(small, inputs)) < 1e-5


@each_family
def test_random_architectures_of_the_space_run(family):
    model, inputs, anatomy, _ = examined(family)
    space = derive_space(anatomy)
    rng = np.random.default_rng(3)
    shapes = [tensor.shape for tensor in run(model, inputs)]
    for _ in range(3):
        outputs = run(realise(model, anatomy, space.sample(rng)), inputs)
        assert [tensor.shape for tensor in outputs] == shapes
        assert all(torch.isfinite(tensor).all() for tensor in outputs)


@pytest.mark.parametrize("family", TWICE)
def test_a_cut_of_a_cut_is_examined_anew(family):
    model, inputs, anatomy, _ = examined(family)
    keep = halves(anatomy, np.random.default_rng(4), ("heads", "kv_groups", "ffn", "residual", "channels"))
    layers = [name for name, branch in anatomy.branches.items() if branch.kind == "layer"]
    blocks = [name for name, branch in anatomy.branches.items() if branch.kind == "attention"]
    once = cut(model, plan(anatomy, keep, [*layers[-1:], *blocks[:1]]))
    again = examine(once, inputs, np.random.default_rng(5))
    streams = {n: a.size for n, a in again.axes.items() if a.kind == "residual"}
    widest = max(axis.size for axis in anatomy.axes.values() if axis.kind == "residual")
    assert streams and all(size <= widest // 2 for size in streams.values())
    kinds = ("heads", "ffn", "channels")
    if any(axis.kind in kinds and axis.size > 1 for axis in again.axes.values()):
        assert cut_equals_masked(once, inputs, again, np.random.default_rng(6), kinds) < 1e-4


def test_the_names_say_where_things_are():
    _, _, anatomy, _ = examined("bert")
    assert list(anatomy.axes)[:3] == ["residual", "bert.encoder.layer.0.attention.heads", "bert.encoder.layer.0.ffn"]
    branch = anatomy.branches["bert.encoder.layer.0.attention.block"]
    assert (branch.kind, branch.layer) == ("attention", "bert.encoder.layer.0")
    assert branch.axes == ("bert.encoder.layer.0.attention.heads",)


def test_a_decoder_without_a_layer_still_generates():
    model, inputs, anatomy, _ = examined("llama")
    small = cut(model, plan(anatomy, {"model.layers.1.mlp.ffn": range(7)}, ["model.layers.0"]))
    assert [layer.self_attn.layer_idx for layer in small.model.layers] == [0, 1]
    ids = inputs["input_ids"][:1]
    cached = small.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    plain = small.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0, use_cache=False)
    assert torch.equal(cached, plain)
