"""One made-up run, small enough to read; its numbers mean nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from archsmith.report.environment import observe
from archsmith.report.result import Holdout, Outcome, Result, Variant
from archsmith.report.story import LatencyPoint, Snippet, Story, Verdict, Width

LAYERS = [f"bert.encoder.layer.{i}" for i in range(6)]
HEADS = (6, 0, 4, 0, 8, 3)
FFN = (768, 0, 512, 0, 896, 384)


def variant(name: str, quality: float, latency_ms: float, runtime: str = "openvino", scale: float = 1.0) -> Variant:
    return Variant(
        name=name,
        quality=quality,
        latency_ms=latency_ms,
        latency_interval=(latency_ms * 0.99, latency_ms * 1.01),
        quality_interval=(quality - 1.4, quality + 1.4),
        runtime=runtime,
        precision="bf16" if scale < 1 else "fp32",
        parameters=int(22_700_000 * scale),
        macs=int(1_400_000_000 * scale),
        bytes=int(90_900_000 * scale),
        path=f"model/{name.replace(' ', '-')}",
        architecture={f"{layer}.attention.heads": heads for layer, heads in zip(LAYERS, HEADS, strict=True)},
    )


def example_result() -> Result:
    """A whole result; every optional field is there."""
    original = variant("original", 90.0, 27.8, "pytorch")
    best = variant("all together", 89.4, 1.9, scale=0.3)
    front = tuple(variant(f"front {i}", 90 - 8 / (i + 1) ** 2, 1.2 + i * 0.6, scale=0.2 + i * 0.1) for i in range(7))
    return Result(
        task="text-classification",
        metric="accuracy",
        original=original,
        best=best,
        ladder=(
            original,
            variant("faster runtime", 90.0, 23.5),
            variant("lower precision", 89.9, 6.8, scale=0.5),
            variant("smaller architecture", 89.5, 6.0, scale=0.6),
            best,
        ),
        front=front,
        targets=(Outcome("drop<=1.0", 0.6, True), Outcome("latency<=1.5ms", 1.9, False, floor=1.2)),
        architecture=best.architecture,
        holdout=Holdout(n=872, original=89.2, best=88.8, difference=-0.4, interval=(-1.6, 0.8)),
        environment=observe(threads=1),
        seconds={"measure": 40.2, "trace": 9.1, "rank": 31.0, "search": 120.5, "distil": 840.0, "export": 61.0},
    )


def example_story() -> Story:
    """A whole story; no part is empty."""
    widths = [Width("residual", "residual", 384, 320)]
    for layer, heads, ffn in zip(LAYERS, HEADS, FFN, strict=True):
        widths.append(Width(f"{layer}.attention.heads", "heads", 12, heads, layer))
        widths.append(Width(f"{layer}.ffn", "ffn", 1536, ffn, layer))
    return Story(
        title="minilm-sst2",
        plan={"trials": 400, "distillation_steps": 6_000, "minutes": 20.0},
        widths=tuple(widths),
        latency_points=tuple(
            LatencyPoint(f"random {i}", 2.0 + i, (2.0 + i) * (1.03 if i % 2 else 0.98), runtime)
            for runtime in ("openvino", "onnxruntime")
            for i in range(12)
        ),
        certificates=(
            *(Verdict(width.name, True, "permutation, control and slice hold", 3e-7) for width in widths),
            Verdict("pooler.width", False, "the negative control changed nothing", 0.0),
        ),
        frozen={"bert.embeddings.word_embeddings.weight[0]": "indexed by the input"},
        split={"train": 60_101, "validation": 2_000, "holdout": 872, "duplicates_removed": 411},
        loading=(Snippet("With transformers", "from transformers import AutoTokenizer\nprint('<b>')"),),
        notes=("Latency is the median of interleaved calls.",),
    )


@pytest.fixture(scope="session")
def result() -> Result:
    return example_result()


@pytest.fixture(scope="session")
def story() -> Story:
    return example_story()


@pytest.fixture(scope="session")
def bare() -> Result:
    """The least that a result can be: nothing searched, nothing timed."""
    original = Variant("original", None, None, "pytorch", "fp32", parameters=10, macs=None, bytes=40)
    return replace(
        example_result(),
        original=original,
        best=original,
        ladder=(original,),
        front=(),
        targets=(),
        holdout=None,
        seconds={},
    )
