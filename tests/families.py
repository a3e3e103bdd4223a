"""Tiny random transformers models of many families, and measuring data that may be absent, by import or by fixture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parent.parent


class Tiny(NamedTuple):
    """A tiny random model in eval mode and inputs that it accepts as keywords, without padding."""

    model: nn.Module
    inputs: Mapping[str, Tensor]


def shared_path(path: str) -> Path:
    """A file or folder of the measuring data beside the repository; skips the test where it is absent."""
    found = REPOSITORY.parent / "shared" / path
    if not found.exists():
        pytest.skip(f"measuring data ../shared/{path} is not on this machine")
    return found


ENCODER = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "num_labels": 3,
}
DECODER = {**ENCODER, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

# family -> (model class, config class, config values); numbers differ so that widths do not match by luck
FAMILIES: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", "BertConfig", ENCODER),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"vocab_size": 96, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "num_labels": 3}
        | {"max_position_embeddings": 64},
    ),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", {**ENCODER, "pad_token_id": 1}),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 48, "n_positions": 64}
        | {"bos_token_id": 1, "eos_token_id": 2},
    ),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {**DECODER, "tie_word_embeddings": True}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", DECODER),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"vocab_size": 96, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 3, "num_heads": 4}
        | {"decoder_start_token_id": 0},
    ),
    "vit": (
        "ViTForImageClassification",
        "ViTConfig",
        {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
        | {"image_size": 16, "patch_size": 4, "num_labels": 3},
    ),
    "modernbert": (
        "ModernBertForSequenceClassification",
        "ModernBertConfig",
        {**ENCODER, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
        | {"local_attention": 8, "global_attn_every_n_layers": 2},
    ),
    "deberta-v2": (
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
        | {"norm_rel_ebd": "layer_norm", "share_att_key": True, "type_vocab_size": 0},
    ),
    "bloom": ("BloomForCausalLM", "BloomConfig", {"vocab_size": 96, "hidden_size": 36, "n_layer": 2, "n_head": 6}),
    "mpnet": ("MPNetForSequenceClassification", "MPNetConfig", {**ENCODER, "pad_token_id": 1}),
}


def tiny_model(family: str, **config: Any) -> Tiny:
    """A tiny random model of a family in FAMILIES and example inputs; `config` overrides configuration values.

    The weights depend on the family alone: the global random state is put back afterwards. All biases and norms are
    random too, since a bias of zero hides a mistake in cutting it.
    """
    import transformers  # takes seconds, and half of the rooms do without

    class_name, config_name, values = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(family.encode()))
        model = getattr(transformers, class_name)(getattr(transformers, config_name)(**{**values, **config})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        ids = torch.randint(3, 90, (2, 11))
        pixels = torch.randn(2, 3, 16, 16)
    if family == "vit":
        return Tiny(model, {"pixel_values": pixels})
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if family == "t5":
        inputs["decoder_input_ids"] = ids[:, :5]
    return Tiny(model, inputs)
