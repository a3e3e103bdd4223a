"""Which networks are timed, what blocks an architecture keeps, and that the filled model predicts real timings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from archsmith.cost import PyTorch, pinned
from archsmith.evaluate.blocks import blocks, pattern, skipped
from archsmith.evaluate.latency import Bench, fill_latency, predict, probe_architectures, time_architectures
from archsmith.model import derive_space, examine, realise
from archsmith.model.anatomy import Anatomy, Axis, Branch
from archsmith.space import Architecture, Space, Value

DYNAMIC = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def fastest(space: Space) -> Architecture:
    """The floor of a space: every branch skipped that may be, every width at its smallest, constraints aside."""
    values: dict[str, Value] = {}
    pending = dict(space.choices)
    while pending:
        for name, choice in list(pending.items()):
            parent = choice.when.name if choice.when else None
            if parent in pending:
                continue
            del pending[name]
            if choice.when is None or (parent in values and choice.when.holds(values[choice.when.name])):
                values[name] = min(choice.values, key=float)
    return Architecture(values)


def axis(name: str, kind: Any, size: int, layer: str | None) -> Axis:
    return Axis(name, kind, size, (), layer)


def by_hand(layers: int = 3) -> Anatomy:
    """Three layers of 4 heads of 8 and 48 neurons, a residual width, a pooler."""
    axes = [axis("residual", "residual", 32, None), axis("pooler.width", "width", 32, None)]
    branches = []
    for index in range(layers):
        layer = f"layer.{index}"
        inside = (
            axis(f"{layer}.heads", "heads", 4, layer),
            axis(f"{layer}.query.width", "width", 8, layer),
            axis(f"{layer}.ffn", "ffn", 48, layer),
        )
        axes += inside
        names = tuple(a.name for a in inside)
        branches += [
            Branch(layer, "layer", layer, names),
            Branch(f"{layer}.attention", "attention", f"{layer}.attention", names[:2], layer),
            Branch(f"{layer}.mlp", "ffn", f"{layer}.mlp", names[2:], layer),
        ]
    return Anatomy({a.name: a for a in axes}, {b.name: b for b in branches}, ())


CASES: list[tuple[str, dict[str, Value], dict[str, tuple[float, ...]], float]] = [
    ("nothing named is full", {}, {"heads": (4, 4, 4), "ffn": (48, 48, 48), "": (1, 1, 1)}, 1.0),
    (
        "a layer takes all with it",
        {"layer.1": False},
        {"heads": (4, 4), "ffn": (48, 48), "": (1, 1)},
        1.0,
    ),
    (
        "a branch leaves its layer",
        {"layer.0.attention": False, "layer.2.mlp": False},
        {"heads": (4, 4), "ffn": (48, 48), "": (1, 1, 1)},
        1.0,
    ),
    (
        "head width is a factor",
        {"layer.0.query.width": 4, "layer.0.heads": 2, "layer.1.ffn": 16, "residual": 8},
        {"heads": (1, 4, 4), "ffn": (48, 16, 48), "": (1, 1, 1)},
        0.25,
    ),
    (
        "widths of skipped branches do not count",
        {"layer.0.attention": False, "layer.0.heads": 2},
        {"heads": (4, 4), "ffn": (48, 48, 48), "": (1, 1, 1)},
        1.0,
    ),
]


@pytest.mark.parametrize(("name", "architecture", "widths", "residual"), CASES, ids=[case[0] for case in CASES])
def test_blocks_are_what_the_architecture_keeps(
    name: str, architecture: dict[str, Value], widths: dict[str, tuple[float, ...]], residual: float
) -> None:
    found = blocks(by_hand(), architecture)
    assert {f"layer.*.{g}".rstrip("."): row for g, row in widths.items()} == {
        g: row for g, row in found.widths.items() if g != "pooler.width"
    }
    assert found.residual == residual


def test_stages_of_different_size_are_different_groups() -> None:
    axes = [axis("stage.0.width", "channels", 16, "stage.0"), axis("stage.1.width", "channels", 32, "stage.1")]
    anatomy = Anatomy({a.name: a for a in axes}, {}, ())
    assert set(blocks(anatomy, {}).widths) == {"stage.*.width[16]", "stage.*.width[32]"}
    assert pattern("encoder.layer.3.ffn") == "encoder.layer.*.ffn"


def test_probes_are_points_of_the_space_and_the_full_network_is_first() -> None:
    anatomy = by_hand()
    space = derive_space(anatomy)
    probes = probe_architectures(anatomy, space, np.random.default_rng(0))
    assert probes[0] == {}
    assert len({tuple(sorted(p.items())) for p in probes}) == len(probes) <= 20
    for probe in probes:
        gone = skipped(anatomy, probe)
        complete = {n: probe.get(n, c.values[0]) for n, c in space.choices.items() if n in probe or n not in gone}
        space.check(complete)


@pytest.mark.parametrize("most", [1, 5, 9, 40])
def test_fewer_probes_are_the_first_of_more(most: int) -> None:
    anatomy = by_hand()
    space = derive_space(anatomy)
    fewer = probe_architectures(anatomy, space, np.random.default_rng(0), most)
    assert len(fewer) == most
    assert fewer == probe_architectures(anatomy, space, np.random.default_rng(0), 50)[:most]


def test_probes_tell_every_group_from_every_other() -> None:
    """The table of what the probes contain has full rank: no two constants or slopes are confounded."""
    anatomy = by_hand()
    rows = []
    for probe in probe_architectures(anatomy, derive_space(anatomy), np.random.default_rng(0), 14):
        kept = blocks(anatomy, probe)
        sums = [sum(kept.widths.get(g, ())) for g in ("layer.*.heads", "layer.*.ffn", "layer.*")]
        counts = [len(kept.widths.get(g, ())) for g in ("layer.*.heads", "layer.*.ffn")]
        row = np.array([1.0, *sums, *counts])
        rows.append(np.concatenate([row[:4], row[4:], row[:4] * kept.residual]))
    assert np.linalg.matrix_rank(np.array(rows)) == 10


def test_the_floor_keeps_nothing_that_may_go() -> None:
    space = derive_space(by_hand())
    floor = fastest(space)
    space.check(floor)
    assert all(floor[f"layer.{index}"] is False for index in range(3))
    rng = np.random.default_rng(0)
    least = sum(map(len, blocks(by_hand(), floor).widths.values()))
    assert all(least <= sum(map(len, blocks(by_hand(), space.sample(rng)).widths.values())) for _ in range(20))


@pytest.fixture(scope="module")
def filled(tiny: Callable[..., Any], tmp_path_factory: Any) -> Any:
    """A BERT large enough to time, filled and measured in PyTorch."""
    model, inputs = tiny("bert", hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8)
    rng = np.random.default_rng(0)
    anatomy = examine(model, inputs, rng)
    space = derive_space(anatomy)
    example = {name: tensor[:1].repeat(1, 5) for name, tensor in inputs.items()}

    def build(architecture: Mapping[str, Value]) -> nn.Module:
        return Logits(realise(model, anatomy, architecture)).eval()

    bench = Bench(example, DYNAMIC, tmp_path_factory.mktemp("bench"), repeats=30, seconds=4.0)
    variants = [(PyTorch(), "fp32")]
    with pinned(1):
        models = fill_latency(build, anatomy, space, bench, variants, rng)
        drawn = [{}, *(space.sample(rng) for _ in range(5))]
        timed = time_architectures(build, anatomy, drawn, bench, variants, rng)
    return models, timed, anatomy, drawn, space, bench


def test_real_timings_are_predicted(filled: Any) -> None:
    """Loose, since tests run beside other work; benchmarks/latency_model.py holds the real bound."""
    models, timed, anatomy, drawn, _, _ = filled
    model, probes = models["pytorch", "fp32"], timed["pytorch", "fp32"]
    model = model.scaled(probes[0].ms / predict(model, anatomy, {}))
    errors = [abs(predict(model, anatomy, a) / p.ms - 1) for a, p in zip(drawn, probes, strict=True)]
    assert np.median(errors) < 0.3


def test_the_setting_and_the_scratch_folder_are_kept_honest(filled: Any) -> None:
    models, _, anatomy, _, space, bench = filled
    model = models["pytorch", "fp32"]
    assert model.setting == {
        "runtime": "pytorch",
        "precision": "fp32",
        "batch": 1,
        "length": 55,
        "threads": 1,
        "fixed": False,
    }
    assert len(model.errors) == len(model.probes) > 8
    assert not list(Path(bench.folder).iterdir())
    assert predict(model, anatomy, fastest(space)) <= predict(model, anatomy, {})


def test_the_floor_is_below_every_sample(filled: Any) -> None:
    models, _, anatomy, _, space, _ = filled
    model: Any = models["pytorch", "fp32"]
    least = predict(model, anatomy, fastest(space))
    rng = np.random.default_rng(7)
    assert all(least <= predict(model, anatomy, space.sample(rng)) + 1e-9 for _ in range(50))


def test_a_space_without_axes_still_has_its_full_network() -> None:
    assert probe_architectures(by_hand(), Space({}), np.random.default_rng(0)) == [{}]
