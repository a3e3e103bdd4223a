"""Spaces for pictures: a chain of convolutions, ENAS's macro space, mobile networks, vision transformers."""

from __future__ import annotations

from collections.abc import Sequence

from archsmith.build.spaces.nasbench201 import relu_conv_norm
from archsmith.build.spec import Declared
from archsmith.space import JSON


def chain(widths: Sequence[int] = (16, 32, 64), depth: Sequence[int] = (1, 2, 3, 4, 5, 6)) -> Declared:
    """Layers one after another, each a convolution of its own kernel, width, activation and size; then linear ones."""
    layer: JSON = [
        {"conv": {"out": "$width", "kernel": "$kernel"}},
        "batch_norm",
        {"pick": "$activation", "of": {"relu": "relu", "silu": "silu"}},
        {"pick": "$pool", "of": {"none": "skip", "max": {"max_pool": {"kernel": 2, "stride": 2}},
                                 "avg": {"avg_pool": {"kernel": 2, "stride": 2}}}},
    ]  # fmt: skip
    network = [
        {"repeat": "$depth", "name": "layer", "of": layer},
        "mean",
        {"repeat": "$hidden_layers", "name": "hidden", "of": [{"linear": {"out": "$units"}}, "relu"]},
        {"linear": {"out": "$classes"}},
    ]
    choices: dict[str, Sequence[int | float | str]] = {"depth": depth, "width": widths, "kernel": [1, 3, 5]}
    choices |= {"activation": ["relu", "silu"], "pool": ["none", "max", "avg"]}
    return Declared({**choices, "hidden_layers": [0, 1], "units": [64, 128, 256]}, network)


def enas_macro(layers: int = 12, channels: int = 24) -> Declared:
    """Layers with an operator each and a skip connection from any before (Pham et al. 2018, section 2.3)."""
    ops: JSON = {
        "conv_3": relu_conv_norm("in", 3),
        "conv_5": relu_conv_norm("in", 5),
        "sep_3": ["relu", {"separable": {"out": "in", "kernel": 3}}, "batch_norm"],
        "sep_5": ["relu", {"separable": {"out": "in", "kernel": 5}}, "batch_norm"],
        "avg_3": {"avg_pool": {"kernel": 3}},
        "max_3": {"max_pool": {"kernel": 3}},
    }
    taken: JSON = {"pick": "$skip", "of": {"true": "skip", "false": "zero"}}
    nodes: list[JSON] = [{"name": "layer0", "from": ["in"], "of": [{"conv": {"out": channels}}, "batch_norm"]}]
    before = ["layer0"]
    for number in range(1, layers + 1):
        own = {"scope": f"layer{number}", "of": {"pick": "$op", "of": ops}}
        skips = [{"scope": f"layer{number}.{i}", "of": taken} for i in range(number - 1)]
        reads = [before[-1], *before[:-1]]
        nodes.append({"name": f"layer{number}", "from": reads, "of": [own, *skips], "join": "add"})
        before.append(f"layer{number}")
        if number in (layers // 3, 2 * layers // 3):  # everything so far at half the size
            half: JSON = ["relu", {"resample": {"out": "in"}}, "batch_norm"]
            nodes += [{"name": f"{name}/2", "from": [name], "of": half} for name in before]
            before = [f"{name}/2" for name in before]
    nodes.append({"name": "head", "from": [before[-1]], "of": ["relu", "mean", {"linear": {"out": "$classes"}}]})
    return Declared({"op": list(ops), "skip": [False, True]}, {"graph": {"nodes": nodes}})


def mobile(
    widths: Sequence[int] = (16, 24, 40, 80, 112, 160),
    strides: Sequence[int] = (1, 2, 2, 1, 2),
    depths: Sequence[int] = (2, 3, 4),
    resolutions: Sequence[float] = (0.75, 0.875, 1.0),
) -> Declared:
    """Inverted residuals (Sandler et al. 2018) as in Once-for-all (Cai et al. 2020): kernel and expansion of each,
    depth of each stage, and the resolution, as a share of the sides of the pictures that come."""
    network: list[JSON] = [{"resize": {"share": "$resolution"}}, {"conv": {"out": widths[0]}}, "batch_norm"]
    network.append("hardswish")
    for stage, (width, stride) in enumerate(zip(widths[1:], strides, strict=True)):
        first = {"scope": "first", "of": inverted(width, stride)}
        more = {"repeat": "$depth", "name": "more", "of": {"residual": inverted(width, 1)}}
        network.append({"scope": f"stage{stage}", "of": [first, more]})
    network += [{"conv": {"out": "in*4", "kernel": 1}}, "batch_norm", "hardswish", "mean"]
    network.append({"linear": {"out": "$classes"}})
    choices: dict[str, Sequence[float]] = {"kernel": [3, 5, 7], "expansion": [3, 4, 6], "resolution": resolutions}
    choices["depth"] = [depth - 1 for depth in depths]  # blocks behind the first of a stage
    return Declared(choices, network)


def inverted(width: int, stride: int) -> JSON:
    """Wider, a depthwise convolution, narrower."""
    return [
        {"conv": {"out": "in*$expansion", "kernel": 1}},
        "batch_norm",
        "hardswish",
        {"depthwise": {"kernel": "$kernel", "stride": stride}},
        "batch_norm",
        "hardswish",
        "squeeze_excite",
        {"conv": {"out": width, "kernel": 1}},
        "batch_norm",
    ]


def residual(
    stems: Sequence[int] = (16, 24, 32),
    widths: Sequence[Sequence[int]] = ((32, 48, 64), (64, 96, 128), (128, 192, 256)),
    depths: Sequence[int] = (0, 1, 2),
) -> Declared:
    """Residual networks (He et al. 2016) by what Radosavovic et al. 2020 leave open, each stage's width and depth; and
    how the sides are halved, the activation, and whether channels are weighed."""
    activation: JSON = {"pick": "$/activation", "of": {"relu": "relu", "silu": "silu"}}
    weighed: JSON = {"pick": "$excite", "of": {"true": "squeeze_excite", "false": "skip"}}
    twice = [{"conv": {"out": "in"}}, "batch_norm", activation, {"conv": {"out": "in"}}, "batch_norm", weighed]
    blocks: JSON = {"repeat": "$depth", "name": "block", "of": [{"residual": twice}, activation]}
    network: list[JSON] = [
        {"conv": {"out": "$stem", "stride": "$stride"}},
        "batch_norm",
        activation,
        {"scope": "stage0", "of": blocks},
    ]
    choices: dict[str, Sequence[int | str | bool]] = {"stem": stems, "stride": [1, 2], "depth": depths}
    for stage, options in enumerate(widths, 1):
        strided = [{"conv": {"out": f"$/width{stage}", "stride": 2}}, "batch_norm", activation]
        pooled = [
            {"conv": {"out": f"$/width{stage}"}},
            "batch_norm",
            activation,
            {"max_pool": {"kernel": 2, "stride": 2}},
        ]
        half: JSON = {"pick": "$half", "of": {"stride": strided, "pool": pooled}}
        network.append({"scope": f"stage{stage}", "of": [half, blocks]})
        choices[f"width{stage}"] = options
    choices |= {"half": ["stride", "pool"], "activation": ["relu", "silu"], "excite": [False, True]}
    return Declared(choices, [*network, "mean", {"linear": {"out": "$classes"}}])


def vision_transformer(
    widths: Sequence[int] = (96, 128, 192), depths: Sequence[int] = (4, 6, 8), patch: int = 4, head: int = 32
) -> Declared:
    """AutoFormer (Chen et al. 2021): width and depth of all, heads and feed-forward ratio of each layer."""
    layer: JSON = [
        {"residual": ["layer_norm", {"attention": {"heads": "$heads", "head": head}}]},
        {"residual": ["layer_norm", {"linear": {"out": "in*$ratio"}}, "gelu", {"linear": {"out": "$/width"}}]},
    ]
    network: list[JSON] = [
        {"patches": {"size": patch, "out": "$width"}},
        "positions",
        {"repeat": "$depth", "name": "layer", "of": layer},
        "layer_norm",
        "mean",
        {"linear": {"out": "$classes"}},
    ]
    choices = {"width": widths, "depth": depths, "heads": [2, 3, 4], "ratio": [1, 2, 3, 4]}
    return Declared(choices, network)
