"""Tiny random models of every type that the installed transformers knows, and inputs for them, by the names of config
values and of forward arguments: no type is known by name, except where a config cannot be guessed (`TOLD`)."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY, LENGTH, BATCH, IMAGE, PATCH, FRAMES, MELS, SAMPLES = 96, 11, 2, 32, 8, 4, 16, 4000

# A config value's name, as a regular expression -> its tiny value; the first that matches whole. Numbers differ, so
# that widths do not match by luck.
SMALL: tuple[tuple[str, Any], ...] = (
    (r"\w*vocab_size|num_embeddings", VOCABULARY),
    (r"\w*codebook_size", 64),
    (r"type_vocab_size", 2),
    (r"hidden_size|d_model|n_embd|embed_dim|(text|encoder|out)_hidden_size|hidden_size_global", 32),
    (r"decoder_hidden_size|projector_hidden_size|fusion_hidden_size|word_embed_proj_dim|embedding_dim", 32),
    (r"emb_dim|backbone_hidden_size|output_hidden_size|mask_feature_size|fpn_hidden_size", 32),
    (r"embedding_size", 24),
    (r"projection_dim|projection_size|output_dim", 20),
    (r"num_key_value_heads|num_kv_heads|swa_num_key_value_heads|n_kv_heads|num_key_value_groups", 2),
    (r"\w*attention_heads|num_heads|n_heads?|swa_num_attention_heads|resampler_n_heads", 4),
    (r"head_dim|d_kv|swa_head_dim|v_head_dim|qk_nope_head_dim|attention_head_size|kv_channels|dim_head|d_head", 8),
    (r"qk_rope_head_dim", 4),
    (r"rotary_dim", 6),
    (r"kv_lora_rank|q_lora_rank", 12),
    (r"intermediate_size|\w*ffn_dim|n_inner|d_ff|mlp_dim|ffn_hidden_size|dim_feedforward", 48),
    (r"\w*feedforward_dim|\w*_intermediate_size|d_inner", 40),
    (r"num_hidden_layers|n_layers?|num_layers|\w*encoder_layers|\w*decoder_layers|depth|layers", 2),
    (r"num_encoder_blocks|num_stages", None),
    (r"max_position_embeddings|n_positions|max_seq_len|max_sequence_length|max_target_positions", 64),
    (r"max_source_positions", 20),
    (r"num_mel_bins|mel_dim|feature_size", MELS),
    (r"image_size|img_size|pretrain_image_size|input_size|crop_size", IMAGE),
    (r"patch_size", PATCH),
    (r"num_frames", FRAMES),
    (r"tubelet_size|temporal_patch_size", 2),
    (r"sliding_window|attention_window|local_attention|sliding_window_size|block_size", 8),
    (r"window_size", 4),
    (r"num_experts|num_local_experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok|moe_topk|moe_k|top_k_experts|experts_per_token", 2),
    (r"n_group|topk_group", 1),
    (r"first_k_dense_replace", 1),
    (r"num_queries|num_query_tokens", 7),
    (r"mamba_d_state|state_size|ssm_state_size", 6),
    (r"mamba_n_heads|mamba_num_heads", 4),
    (r"mamba_d_head|mamba_head_dim", 16),
    (r"linear_(key|value)_head_dim", 8),
    (r"linear_num_key_heads", 2),
    (r"linear_num_value_heads", 4),
    (r"chunk_size|mamba_chunk_size", 8),
    (r"relative_attention_num_buckets", 8),
    (r"num_conv_pos_embeddings", 8),
    (r"num_conv_pos_embedding_groups", 2),
    (r"num_nextn_predict_layers|num_mtp_layers", 0),
    (r"xvector_output_dim|classifier_proj_size|codevector_dim|proj_codevector_dim", 16),
    (r"num_codevectors_per_group", 8),
    (r"prediction_length|context_length", 16),
    (r"query_pre_attn_scalar", 8),
)  # fmt: skip
# Lists of widths, of depths and of heads keep their lengths.
LISTS: tuple[tuple[str, Any], ...] = (
    (r"depths|layers|num_blocks|stage_num_blocks", lambda n: [2] + [1] * (n - 1)),
    (r"num_heads|num_attention_heads|n_heads", lambda n: [4] * n),
    (r"hidden_sizes|embed_dims?|neck_hidden_sizes|encoder_hidden_sizes", lambda n: [16 + 8 * i for i in range(n)]),
    (r"conv_dim|tdnn_dim", lambda n: [24] * n),
    (r"mlp_only_layers|attention_types", None),
)
RESNET = {"embedding_size": 16, "hidden_sizes": [16, 24], "depths": [1, 1], "layer_type": "basic",
          "out_features": ["stage2"]}  # fmt: skip
# What no rule gives: a config's values by model type, on top of the tiny ones.
TOLD: dict[str, dict[str, Any]] = {
    "bit": {"num_groups": 4},
    "distilbert": {"dim": 32, "hidden_dim": 48},
    "detr": {"use_timm_backbone": False, "backbone": None, "backbone_config": {"model_type": "resnet", **RESNET}},
    "swin": {"depths": [1, 1], "num_heads": [2, 4], "embed_dim": 16, "image_size": 32, "patch_size": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 2},
    "mpnet": {"relative_attention_num_buckets": 32},  # its code counts on 32 whatever the config says
    "xmod": {"default_language": "en_XX"},
}

MOST = 30_000_000  # parameters of a tiny model, at most
FLAVOURS = ("", "equal heads", "sections")  # what a class may ask for: a key head a head; rotary sections of its width
VARIANTS = 5  # sets of inputs that are tried

TASKS_FIRST = ("CausalLM", "Seq2SeqLM", "SpeechSeq2Seq", "ImageClassification", "MaskedLM", "SequenceClassification",
               "AudioClassification", "CTC", "VideoClassification", "SemanticSegmentation", "ObjectDetection",
               "DepthEstimation", "ImageTextToText", "TimeSeriesPrediction")  # fmt: skip


def model_types() -> list[str]:
    """Every model type of the installed transformers that some Auto class builds."""
    return sorted(name for name in CONFIG_MAPPING if auto_models(name))


def auto_models(model_type: str) -> list[str]:
    """The names of the classes that a type has, the likeliest to be deployed first."""
    order = {task: place for place, task in enumerate(TASKS_FIRST)} | {"AutoModel": 90}
    found: dict[str, int] = {}
    for name, auto in vars(modeling_auto).items():
        mapping = getattr(auto, "_model_mapping", None) if re.fullmatch(r"AutoModel(For\w+)?", name) else None
        names = mapping._model_mapping.get(model_type, ()) if mapping is not None else ()
        for each in (names,) if isinstance(names, str) else names:
            found[each] = min(found.get(each, 99), order.get(name.removeprefix("AutoModelFor"), 95))
    return sorted(found, key=lambda each: (found[each], each))


def tiny_config(model_type: str, flavour: str = "") -> Any:
    """A config of this type with small numbers, in one of `FLAVOURS`."""
    values = tiny_values(CONFIG_MAPPING[model_type], flavour) | copy.deepcopy(TOLD.get(model_type, {}))
    return CONFIG_MAPPING[model_type](**values)


def tiny_values(config_class: Any, flavour: str = "") -> dict[str, Any]:
    """What to give a config's constructor: its declared numbers made small, its parts' too, special tokens at its
    vocabulary's beginning."""
    default = config_class()
    values: dict[str, Any] = {}
    special = 0
    for name, value in vars(default).items():
        if name.startswith("_") or isinstance(value, bool):
            continue
        if isinstance(value, transformers.PreTrainedConfig):
            values[name] = {**tiny_values(type(value), flavour), "model_type": value.model_type}
        elif re.fullmatch(r"\w+_(token_id|token_index|token_ids)", name) and value is not None:
            special += 1
            values[name] = special if isinstance(value, int) else [special]
        elif isinstance(value, int) or (isinstance(value, float) and value > 8):
            small = match(SMALL, name)
            values |= {} if small is None or small > value else {name: small}
        elif isinstance(value, list | tuple) and value and all(isinstance(x, int) for x in value):
            small = match(LISTS, name)
            values |= {} if small is None else {name: type(value)(small(len(value)))}
    values |= kinds_of_layers(default, values)
    rope = getattr(default, "rope_parameters", None)
    if isinstance(rope, dict) and (flavour == "sections" or "mrope_section" in rope):
        values["rope_parameters"] = {**rope, "mrope_section": [2, 1, 1]}
    if flavour == "equal heads" and "num_key_value_heads" in values:
        values["num_key_value_heads"] = 4
    if "qk_rope_head_dim" in values and "head_dim" in values:
        values["head_dim"] = values["qk_rope_head_dim"]
    if "pad_token_id" in values or getattr(default, "pad_token_id", 0) is not None:
        values["pad_token_id"] = 0
    return values


def kinds_of_layers(default: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """As many layers as there are kinds of them, one of each kind, and two at least."""
    lists = {n: vars(default).get(n) for n in ("layer_types", "layers_block_type", "mlp_layer_types")}
    lists = {n: kinds for n, kinds in lists.items() if isinstance(kinds, list) and kinds and isinstance(kinds[0], str)}
    if not lists or "num_hidden_layers" not in values:
        return {}
    different = {name: list(dict.fromkeys(kinds)) for name, kinds in lists.items()}
    count = max(2, *map(len, different.values()))
    return {n: (kinds * count)[:count] for n, kinds in different.items()} | {"num_hidden_layers": count}


def match(table: tuple[tuple[str, Any], ...], name: str) -> Any:
    """The value of the first pattern that is the name."""
    return next((value for pattern, value in table if re.fullmatch(pattern, name)), None)


def build(model_type: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The first class of this type that builds and runs on inputs made for it; random in every bias and norm.

    Raises RuntimeError with what each class said.
    """
    said = []
    for flavour, name in product(FLAVOURS, auto_models(model_type)):
        torch.manual_seed(sum(model_type.encode()))
        try:
            config = tiny_config(model_type, flavour)
            model = getattr(transformers, name)(config).eval()
        except Exception as error:  # a config that tiny numbers do not fit
            said.append(f"{name} does not build: {type(error).__name__}: {str(error)[:200]}")
            continue
        if sum(p.numel() for p in model.parameters()) > MOST:
            said.append(f"{name} is not tiny: {sum(p.numel() for p in model.parameters()):,} parameters")
            continue
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        for inputs in tried_inputs(model, config):
            try:
                with torch.no_grad():
                    model(**inputs)
            except Exception as error:  # inputs that it does not take
                said.append(f"{name}({', '.join(inputs)}): {type(error).__name__}: {str(error)[:200]}")
                continue
            return model, inputs
    raise RuntimeError("; ".join(said) or "no class")


def tried_inputs(model: nn.Module, config: Any) -> Iterator[dict[str, Tensor]]:
    """Sets of inputs by the names of the forward pass, likeliest first."""
    accepted = inspect.signature(model.forward).parameters
    needed = [n for n, p in accepted.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    main = getattr(model, "main_input_name", "input_ids")
    mains = main if isinstance(main, list | tuple) else [main]
    names = dict.fromkeys(n for n in [*needed, *mains] if n in accepted)
    if not any(n in MAKERS for n in names):
        names |= dict.fromkeys(n for n in MAKERS if n in accepted)
    if getattr(config, "is_encoder_decoder", False):
        names |= dict.fromkeys(n for n in ("decoder_input_ids",) if n in accepted)
    for variant in range(VARIANTS):
        given = {name: MAKERS[name](config, variant) for name in names if name in MAKERS}
        if "input_ids" in given and "attention_mask" in accepted:
            given["attention_mask"] = torch.ones_like(given["input_ids"])
        if given:
            yield given
    if "input_ids" in accepted and main != "input_ids":
        ids = MAKERS["input_ids"](config, 0)
        yield (
            {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if "attention_mask" in accepted
            else {"input_ids": ids}
        )


def find(config: Any, *names: str, default: Any) -> Any:
    """The first of these values that a config or one of its parts has."""
    for name in names:
        for part in (config, *(v for v in vars(config).values() if isinstance(v, transformers.PreTrainedConfig))):
            value = getattr(part, name, None)
            if value is not None:
                return value
    return default


def ids(length: int) -> Any:
    """Token numbers that are no special ones."""
    return lambda config, variant: torch.randint(VOCABULARY // 2, VOCABULARY - 6, (BATCH, length))


def pixels(config: Any, variant: int) -> Tensor:
    """Images of the size that the config says, or usual ones."""
    size = find(config, "image_size", "img_size", default=64)
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    if variant == VARIANTS - 1:
        return video(config, 0)
    if variant:
        height = width = (64, 128, 224)[variant - 1]
    channels = find(config, "num_channels", "in_channels", "in_chans", default=3)
    return torch.randn(BATCH, channels if isinstance(channels, int) else 3, height, width)


def video(config: Any, variant: int) -> Tensor:
    """(batch, frames, channels, height, width)."""
    frames = find(config, "num_frames", "frames_per_clip", default=FRAMES)
    image = pixels(config, variant)
    return torch.randn(BATCH, frames, *image.shape[1:])


def features(config: Any, variant: int) -> Tensor:
    """Spectrograms, mel bands last or first."""
    mels = find(config, "num_mel_bins", "feature_size", "mel_dim", "input_feat_per_channel", "input_dim", default=MELS)
    long = 2 * find(config, "max_source_positions", default=20)
    return torch.randn(BATCH, *((mels, long), (long, mels), (40, mels), (mels, 64), (64, mels))[variant])


def waves(config: Any, variant: int) -> Tensor:
    """Sound, or spectrograms where that is what is called so."""
    if variant == 0:
        return torch.randn(BATCH, SAMPLES)
    if variant == 1:
        return torch.randn(BATCH, 1, SAMPLES)
    mels = find(config, "num_mel_bins", default=MELS)
    long = find(config, "max_length", default=64)
    return torch.randn(BATCH, long if isinstance(long, int) else 64, mels)


def boxes(config: Any, variant: int) -> Tensor:
    """(batch, length, 4): left, top, right, bottom."""
    first = torch.randint(0, 20, (BATCH, LENGTH, 2))
    return torch.cat([first, first + torch.randint(1, 20, (BATCH, LENGTH, 2))], -1)


def series(config: Any, variant: int) -> Tensor:
    """Past values (batch, time[, channels])."""
    long = find(config, "context_length", default=16) + max(find(config, "lags_sequence", default=[0]))
    wide = find(config, "num_input_channels", "input_size", default=1)
    return torch.randn(BATCH, long, wide) if variant or wide > 1 else torch.randn(BATCH, long)


MAKERS: Mapping[str, Any] = {
    "input_ids": ids(LENGTH),
    "decoder_input_ids": ids(5),
    "pixel_values": pixels,
    "pixel_values_videos": video,
    "input_features": features,
    "input_values": waves,
    "bbox": boxes,
    "past_values": series,
}
