"""The end of a run: what the small files are judged against, the rungs, and the one reading of the holdout."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from archsmith.errors import ArchsmithError
from archsmith.jobs.case import Case, Request, prepare
from archsmith.jobs.serving import Served, serve
from archsmith.jobs.shipping import Shipped, open_holdout, rungs_of, standard
from archsmith.jobs.stages import Work
from archsmith.report.result import Variant
from archsmith.space import Architecture


def variant(runtime: str, precision: str, quality: float | None, ms: float, **more: Any) -> Variant:
    return Variant(f"{runtime} {precision}", quality, ms, runtime, precision, 10, 10, 10, **more)


ORIGINALS = [
    variant("pytorch", "fp32", 96.0, 60.0),
    variant("onnxruntime", "fp32", 96.0, 50.0),
    variant("openvino", "fp32", 96.0, 45.0),
    variant("onnxruntime", "int8", 95.0, 30.0),
]
SMALLS = [
    variant("pytorch", "fp32", 94.0, 20.0, path="model"),
    variant("onnxruntime", "int8", 93.5, 9.0, path="model/a.onnx"),
]


@pytest.mark.parametrize(
    ("drop", "quality", "wanted"),
    [
        (None, 94.0, 96.0),  # nothing was decided: the original as it was measured
        (0.4, 94.0, 94.4),  # the small module counts as 0.4 below, so int8 may lose the rest of the bound
        (0.4, None, 96.0),
    ],
)
def test_the_original_stands_where_the_small_module_was_found_to_be_below_it(
    drop: float | None, quality: float | None, wanted: float
) -> None:
    shipped = Shipped(Architecture({}), torch.nn.Identity(), None, drop)
    found = standard(shipped, [replace(SMALLS[0], quality=quality), SMALLS[1]], ORIGINALS)
    assert found.quality == pytest.approx(wanted)
    assert found.name == "pytorch fp32"


def test_the_ladder_has_the_fastest_of_each_kind() -> None:
    found = rungs_of(ORIGINALS, SMALLS, SMALLS[1])
    assert {name: v.latency_ms for name, v in found.items()} == {
        "original": 60.0,
        "faster runtime": 45.0,
        "lower precision": 30.0,
        "smaller architecture": 20.0,
        "all together": 9.0,
    }


def test_a_rung_that_was_not_measured_is_left_out() -> None:
    found = rungs_of(ORIGINALS[:1], SMALLS[:1], SMALLS[0])
    assert list(found) == ["original", "smaller architecture", "all together"]


@pytest.fixture
def small_case(kind_bert: Path, texts: dict[str, Path]) -> Case:
    request = Request(
        model=str(kind_bert),
        task="text-classification",
        data=str(texts["train"]),
        validation=str(texts["validation"]),
        holdout=str(texts["holdout"]),
        runtime="pytorch",
        length=16,
    )
    return prepare(request)


def opposed(case: Case) -> torch.nn.Module:
    """The model that says the other class."""
    model: Any = copy.deepcopy(case.model)
    with torch.no_grad():
        model.classifier.weight.neg_()
        model.classifier.bias.neg_()
    return cast(torch.nn.Module, model)


def counted(served: Served, calls: list[str]) -> Served:
    """The same, noting each time that it is opened again to be judged."""

    def reopen(threads: int) -> Any:
        calls.append(served.name)
        return served.reopen(threads)

    return replace(served, reopen=reopen)


def test_the_holdout_is_read_once_by_each_network(small_case: Case, tmp_path: Path) -> None:
    """The small network says the opposite: what it loses is known without running it."""
    case = small_case
    whole = serve(case, case.task.wrap(case.model).eval(), tmp_path / "whole", "original", print)
    small = serve(case, case.task.wrap(opposed(case)).eval(), tmp_path / "small", "smaller", print)
    calls: list[str] = []
    served = [counted(each, calls) for each in (*whole, *small)]
    first = replace(ORIGINALS[0], name=whole[0].name)
    last = replace(SMALLS[0], name=small[0].name)
    work = Work(case, cast(Any, None), cast(Any, None))
    with pytest.raises(ArchsmithError, match="holdout"):
        case.task.inputs("holdout", [0])  # sealed until now
    ladder, holdout = open_holdout(
        work, {"original": first, "smaller architecture": last, "all together": last}, served
    )
    assert holdout is not None
    assert holdout.n == 200
    assert holdout.original > 90
    assert holdout.original + holdout.best == pytest.approx(100.0)
    assert holdout.difference == pytest.approx(holdout.best - holdout.original)
    assert holdout.interval[0] <= holdout.difference <= holdout.interval[1] < 0
    assert [(v.name, v.quality) for v in ladder] == [
        ("original", holdout.original),
        ("smaller architecture", holdout.best),
        ("all together", holdout.best),
    ]
    assert {v.measured_on for v in ladder} == {"holdout"}
    assert calls == [whole[0].name, small[0].name]
