"""Spaces for text and series: convolutions, recurrence and attention; Transformer encoders and decoders; plain MLPs."""

from __future__ import annotations

from collections.abc import Sequence

from archsmith.build.spec import Declared
from archsmith.space import JSON


def text(
    widths: Sequence[int] = (64, 96, 128, 192),
    depth: Sequence[int] = (0, 1, 2, 3),
    rows: int = 2**16,
    bags: int = 2**18,
) -> Declared:
    """What fastText (Joulin et al. 2017), TextCNN (Kim 2014), BiLSTM and attention networks have in common: an
    embedding of tokens, and of runs of tokens in tables of `rows`, layers of any of these, a way to see all places at
    once; and in their place or beside them a bag of weighted runs, which is what TF-IDF sees, in a table of `bags`."""
    width = "$/width"
    ops: JSON = {
        "conv_3": {"residual": _convolved(width, 3)},
        "conv_5": {"residual": _convolved(width, 5)},
        "kernels": [{"concat": [{"conv": {"out": "in*0.5", "kernel": kernel}} for kernel in (3, 4, 5)]}, "relu",
                    {"linear": {"out": width}}],
        "lstm": {"lstm": {"out": "$/width*0.5", "both": True}},
        "gru": {"gru": {"out": "$/width*0.5", "both": True}},
        "attention": {"residual": ["layer_norm", {"attention": {"heads": 4}}]},
        "feed_forward": {"residual": ["layer_norm", {"linear": {"out": "in*2"}}, "gelu", {"linear": {"out": width}}]},
    }  # fmt: skip
    tokens: JSON = {"embedding": {"rows": "$vocabulary", "out": "$width"}}
    reads: JSON = {"tokens": tokens}
    for name, lengths in (("pairs", [2]), ("triples", [2, 3])):
        reads[name] = {"concat": [tokens, {"ngrams": {"rows": rows, "out": "$width", "lengths": lengths}}]}
    pools: JSON = {"max": "max", "mean": "mean", "attentive": "attentive", "both": {"concat": ["max", "mean"]}}
    layers: JSON = [
        {"pick": "$reads", "of": reads},
        {"dropout": {"p": "$dropout"}},
        {"repeat": "$depth", "name": "layer", "of": {"pick": "$op", "of": ops}},
        {"pick": "$pool", "of": pools},
    ]
    bag: JSON = [{"bag": {"rows": bags, "out": "$bag"}}, "relu"]
    sees: JSON = {"layers": layers, "bag": bag, "both": {"concat": [layers, bag]}}
    network: list[JSON] = [
        {"pick": "$sees", "of": sees},
        {"dropout": {"p": "$dropout"}},
        {"linear": {"out": "$classes"}},
    ]
    choices: dict[str, Sequence[int | float | str]] = {"width": widths, "depth": depth, "dropout": [0.1, 0.3, 0.5]}
    choices |= {"sees": list(sees), "reads": list(reads), "op": list(ops), "pool": list(pools), "bag": [16, 32]}
    return Declared(choices, network)


def _convolved(width: str, kernel: int) -> JSON:
    return ["relu", {"conv": {"out": width, "kernel": kernel}}, "layer_norm"]


def transformer(
    causal: bool = False,
    widths: Sequence[int] = (128, 192, 256),
    depths: Sequence[int] = (2, 3, 4, 6),
    head: int = 32,
) -> Declared:
    """An encoder that classifies, or (`causal`) a decoder that tells the next token at each place."""
    layer: JSON = [
        {"residual": ["layer_norm", {"attention": {"heads": "$heads", "head": head, "causal": causal}}]},
        {"residual": ["layer_norm", {"linear": {"out": "in*$ratio"}}, "gelu", {"linear": {"out": "$/width"}}]},
    ]
    end: list[JSON] = [{"linear": {"out": "$vocabulary"}}] if causal else ["mean", {"linear": {"out": "$classes"}}]
    network = [
        {"embedding": {"rows": "$vocabulary", "out": "$width"}},
        "positions",
        {"repeat": "$depth", "name": "layer", "of": layer},
        "layer_norm",
        *end,
    ]
    choices = {"width": widths, "depth": depths, "heads": [2, 4, 6, 8], "ratio": [1, 2, 4]}
    return Declared(choices, network)


def encoder_decoder(
    widths: Sequence[int] = (16, 32, 64),
    encoder: Sequence[int] = (1, 2, 3),
    decoder: Sequence[int] = (1, 2),
    queries: Sequence[int] = (4, 8, 16),
) -> Declared:
    """An encoder of a sequence, and a decoder whose learnt queries (Carion et al. 2020) ask it layer by layer."""
    feed_forward: JSON = {
        "residual": ["layer_norm", {"linear": {"out": "in*$ratio"}}, "gelu", {"linear": {"out": "$/width"}}]
    }
    itself: JSON = {"residual": ["layer_norm", {"attention": {"heads": "$/heads"}}]}
    linear: JSON = {"linear": {"out": "$/width"}}
    layer: JSON = {"graph": {"nodes": [
        {"name": "own", "from": ["in0"], "of": itself},
        {"name": "asked", "from": ["own", "in1", "in1"], "of": [["layer_norm", linear], linear, linear],
         "join": "attend", "heads": "$/heads"},
        {"name": "sum", "from": ["own", "asked"], "of": ["skip", linear], "join": "add"},
        {"name": "out", "from": ["sum"], "of": feed_forward},
    ]}}  # fmt: skip
    passing: JSON = {"graph": {"nodes": [{"name": "out", "from": ["in0"]}]}}
    nodes: list[JSON] = [
        {"name": "memory", "from": ["in"], "of": [
            linear, "positions", {"repeat": "$encoder", "name": "layer", "of": [itself, feed_forward]}, "layer_norm"]},
        {"name": "decoded0", "from": ["in"], "of": {"queries": {"rows": "$queries", "out": "$width"}}},
    ]  # fmt: skip
    for i in range(max(decoder)):
        of: JSON = {"pick": "$/decoder", "of": {str(depth): layer if depth > i else passing for depth in decoder}}
        scoped: JSON = {"scope": f"decoder{i}", "of": of}
        nodes.append({"name": f"decoded{i + 1}", "from": [f"decoded{i}", "memory"], "of": scoped})
    network: list[JSON] = [{"graph": {"nodes": nodes}}, "layer_norm", "flatten", {"linear": {"out": "$outputs"}}]
    choices = {"width": widths, "encoder": encoder, "decoder": decoder, "queries": queries}
    return Declared({**choices, "heads": [2, 4], "ratio": [1, 2, 4]}, network)


def mlp(widths: Sequence[int] = (32, 64, 128, 256), depth: Sequence[int] = (1, 2, 3, 4)) -> Declared:
    """Linear layers, each with a width and an activation of its own."""
    activations = ("relu", "gelu", "silu", "tanh")
    layer: JSON = [
        {"linear": {"out": "$width"}},
        {"pick": "$activation", "of": {name: name for name in activations}},
        {"dropout": {"p": "$/dropout"}},
    ]
    network = ["flatten", {"repeat": "$depth", "name": "layer", "of": layer}, {"linear": {"out": "$outputs"}}]
    choices: dict[str, Sequence[int | float | str]] = {"depth": depth, "width": widths, "dropout": [0.0, 0.1, 0.3]}
    return Declared({**choices, "activation": activations}, network)


def series(widths: Sequence[int] = (16, 32, 64), depth: Sequence[int] = (1, 2, 3)) -> Declared:
    """A forecast from a series' past: recurrence, attention, causal convolutions (Bai et al. 2018)."""
    reach = [
        {
            "residual": [
                {"conv": {"out": "$/width", "kernel": 3, "dilation": 2**i, "causal": True}},
                "layer_norm",
                "relu",
            ]
        }
        for i in range(4)
    ]
    ops: JSON = {
        "lstm": {"lstm": {"out": "$/width"}},
        "gru": {"gru": {"out": "$/width"}},
        "tcn": reach,
        "attention": [{"linear": {"out": "$/width"}}, {"residual": ["layer_norm", {"attention": {"heads": 4}}]}],
    }
    pools: JSON = {"last": "last", "mean": "mean", "flatten": "flatten"}
    network: list[JSON] = [
        {"repeat": "$depth", "name": "layer", "of": {"pick": "$op", "of": ops}},
        {"pick": "$pool", "of": pools},
        {"linear": {"out": "$outputs"}},
    ]
    return Declared({"width": widths, "depth": depth, "op": list(ops), "pool": list(pools)}, network)
