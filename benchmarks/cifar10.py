"""CIFAR-10 from nothing: what is found beside a ResNet and a MobileNetV2 of as many multiply-accumulates.

Each has the same minutes on two cores: search and training here, three learning rates there. Latency: one picture, one
thread, ONNX Runtime in fp32.

Nine contestants of ninety minutes are thirteen hours. `--kept results/cifar10` holds what each has reached, a network
at each learning rate, with its machine: the same call goes on with what is missing, on this machine or another.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from contest import Contest, example, tell
from record import Record, main

from archsmith.build import Declared, Signal, planned
from archsmith.evaluate.paper import paper_costs
from archsmith.jobs.asked import Asked
from archsmith.jobs.ground import Scratch
from archsmith.space import JSON

POINTS, FASTER, NEAR = 1.0, 1.3, 0.05  # above; or as good and so many times as fast; MACs as many but for this share


def run(record: Record, options: argparse.Namespace) -> None:
    """Accuracy on the 5,000 test pictures and latency of each, mean of the seeds."""
    folder, work = record.data / "data" / "cifar10", options.work
    kept = options.kept or work
    for each in (work, kept):
        each.mkdir(parents=True, exist_ok=True)
    resnet = example("cifar10").resnet
    rows = []
    for seed in range(options.first, options.first + options.seeds):
        train, test = (str(folder / f"{part}.parquet") for part in ("train", "test"))
        scratch = Scratch(
            "image-classification", train, options.space, targets=(options.target,), holdout=test,
            runtime="onnxruntime", seed=seed,
        )  # fmt: skip
        asked = Asked(
            options.strategy, options.trials, evaluator=options.evaluator, scratch=scratch, minutes=options.minutes,
            seed=seed,
        )  # fmt: skip

        def networks(macs: float) -> Mapping[str, JSON]:
            return {"ResNet": scaled(resnet, macs, 3), "MobileNetV2": scaled(mobilenet, macs, 2)}

        rows.append(Contest(scratch, asked, networks).held(work, kept))
    how = (options.space, options.target, options.strategy, options.evaluator or "its own")
    record.say("space; target; strategy; evaluator", "; ".join(how))
    record.say("minutes each; seeds", f"{options.minutes:g}; {len(rows)}")
    for row in rows:
        apart = max(abs(each["macs"] / row["found"]["macs"] - 1) for each in row.values())
        record.say("multiply-accumulates apart", apart, "", apart <= NEAR)
    above, times = tell(record, rows)
    record.say("times as fast as the best of the others", times)
    held = above >= POINTS or (above >= 0 and times >= FASTER)
    record.say("points above it", above, "", held)


def scaled(make: Callable[[int, int], Any], macs: float, usual: int) -> JSON:
    """The network of as many multiply-accumulates, of its width; of its usual blocks a stage (three are a ResNet-20)
    where that comes near enough, else of as many as come nearest."""

    def nearest(blocks: int) -> tuple[float, JSON]:
        made = [make(width, blocks) for width in range(4, 81)]
        return min(((abs(costs(each) / macs - 1), each) for each in made), key=lambda pair: pair[0])

    found = nearest(usual)
    return found[1] if found[0] <= NEAR else min(map(nearest, (1, 2, 3, 5)), key=lambda pair: pair[0])[1]


def costs(network: JSON) -> float:
    """Multiply-accumulates of a picture of 32 x 32."""
    return paper_costs(planned(Declared({}, network).static({}, {"classes": 10}), Signal((3, 32, 32))))["macs"]


def mobilenet(width: int, blocks: int) -> list[Any]:
    """Inverted residuals of expansion 6 (Sandler et al. 2018), in three stages of 32, 16 and 8 pixels a side."""

    def inverted(out: int, stride: int) -> list[Any]:
        wide = [{"conv": {"out": "in*6", "kernel": 1}}, "batch_norm", "relu6"]
        deep = [{"depthwise": {"kernel": 3, "stride": stride}}, "batch_norm", "relu6"]
        return [*wide, *deep, {"conv": {"out": out, "kernel": 1}}, "batch_norm"]

    network: list[Any] = [{"conv": {"out": width}}, "batch_norm", "relu6"]
    for stage in range(3):
        out = width * 2**stage
        network.append(inverted(out, 2 if stage else 1))
        network += [{"residual": inverted(out, 1)} for _ in range(blocks)]
    return [
        *network,
        {"conv": {"out": "in*4", "kernel": 1}},
        "batch_norm",
        "relu6",
        "mean",
        {"linear": {"out": "$classes"}},
    ]


if __name__ == "__main__":
    main(
        "cifar10",
        run,
        ("--work", {"type": Path, "required": True}),
        ("--kept", {"type": Path, "help": "folder of what each reached so far, if not that of --work"}),
        ("--space", {"default": "residual"}),
        ("--target", {"default": "macs<=100M"}),
        ("--strategy", {"default": "evolution"}),
        ("--evaluator", {"default": "zero-cost"}),
        ("--minutes", {"type": float, "default": 90.0}),
        ("--trials", {"type": int, "default": 200}),
        ("--seeds", {"type": int, "default": 3}),
        ("--first", {"type": int, "default": 0}),
    )
