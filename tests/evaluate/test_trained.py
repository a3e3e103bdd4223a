"""An architecture made for real: which modules answer to which of the original, and that the original stays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from archsmith.evaluate.rank import order_units, rank_units
from archsmith.evaluate.trained import (
    RATES,
    Effort,
    Teacher,
    Trained,
    _layer_pairs,
    develop,
    distance,
    kept_stream,
    learning_rate,
    moved,
    repaired,
    validation_loss,
)
from archsmith.model import Anatomy, examine, reorder
from archsmith.model.anatomy import Axis, Branch, Place
from archsmith.space import Architecture, Value
from archsmith.tasks.answer import answers, calling
from archsmith.trial import Proposal

torch.set_num_threads(1)


def layer(path: str, inside: str | None = None) -> Branch:
    return Branch(path, "layer", path, (), inside)


def of_layers(*branches: Branch) -> Anatomy:
    return Anatomy({}, {branch.name: branch for branch in branches}, ())


PLAIN = of_layers(*(layer(f"a.layer.{n}") for n in range(12)))
TWO_LISTS = of_layers(
    *(layer(f"encoder.block.{n}") for n in range(3)), *(layer(f"decoder.block.{n}") for n in range(3))
)
PARTLY = of_layers(layer("a.layer.1"), layer("a.layer.2"))  # 0 and 3 cannot be skipped, yet 3 moves
NESTED = of_layers(
    layer("stage.0"),
    layer("stage.0.block.0", "stage.0"),
    layer("stage.1"),
    *(layer(f"stage.1.block.{n}", "stage.1") for n in range(3)),
)
BLOCKS = of_layers(
    layer("l.0"),
    layer("l.1"),
    Branch("l.1.attn.block", "attention", "l.1.attn", (), "l.1", "l.1.attn.out", feeder="l.1.norm"),
    Branch("l.1.ffn.block", "ffn", "l.1.up", (), "l.1", "l.1.down"),
)

MOVES: list[tuple[str, Anatomy, tuple[str, ...], str, str | None]] = [
    ("nothing gone", PLAIN, (), "a.layer.3.x.weight", "a.layer.3.x.weight"),
    ("outside any list", PLAIN, ("a.layer.0",), "a.pooler.dense", "a.pooler.dense"),
    ("the one after", PLAIN, ("a.layer.1",), "a.layer.2.x", "a.layer.1.x"),
    ("the one before", PLAIN, ("a.layer.1",), "a.layer.0.x", "a.layer.0.x"),
    ("two digits", PLAIN, ("a.layer.1", "a.layer.10"), "a.layer.11", "a.layer.9"),
    ("10 is not in 1", PLAIN, ("a.layer.1",), "a.layer.10.x", "a.layer.9.x"),
    ("gone itself", PLAIN, ("a.layer.1",), "a.layer.1", None),
    ("gone with its layer", PLAIN, ("a.layer.1",), "a.layer.1.x.y", None),
    ("another list", TWO_LISTS, ("encoder.block.0",), "decoder.block.1.x", "decoder.block.1.x"),
    ("both lists", TWO_LISTS, ("encoder.block.0", "decoder.block.0"), "decoder.block.2", "decoder.block.1"),
    ("an entry that cannot go moves all the same", PARTLY, ("a.layer.1", "a.layer.2"), "a.layer.3.x", "a.layer.1.x"),
    ("an inner list", NESTED, ("stage.1.block.0",), "stage.1.block.2.x", "stage.1.block.1.x"),
    ("an outer list", NESTED, ("stage.0",), "stage.1.block.2.x", "stage.0.block.2.x"),
    ("both levels", NESTED, ("stage.0", "stage.1.block.1"), "stage.1.block.2", "stage.0.block.1"),
    ("an inner one of another entry", NESTED, ("stage.0.block.0",), "stage.1.block.2", "stage.1.block.2"),
    ("inside what is gone", NESTED, ("stage.1",), "stage.1.block.2.x", None),
    ("a block's exit", BLOCKS, ("l.1.attn.block",), "l.1.attn.out", None),
    ("a block's norm", BLOCKS, ("l.1.attn.block",), "l.1.norm", None),
    ("an exit beside its block", BLOCKS, ("l.1.ffn.block",), "l.1.down", None),
    ("the other block", BLOCKS, ("l.1.ffn.block", "l.0"), "l.1.attn.out", "l.0.attn.out"),
]


@pytest.mark.parametrize(("anatomy", "gone", "path", "new"), [m[1:] for m in MOVES], ids=[m[0] for m in MOVES])
def test_modules_move_with_the_lists_that_shrink(
    anatomy: Anatomy, gone: tuple[str, ...], path: str, new: str | None
) -> None:
    assert moved(anatomy, dict.fromkeys(gone, False), path) == new


PAIRS: list[tuple[str, Anatomy, tuple[str, ...], list[tuple[str, str]]]] = [
    ("none gone", TWO_LISTS, (), [(name, name) for name in TWO_LISTS.branches]),
    (
        "each gives what the skipped after it gave",
        of_layers(*(layer(f"l.{n}") for n in range(5))),
        ("l.1", "l.2", "l.4"),
        [("l.2", "l.0"), ("l.4", "l.1")],
    ),
    (
        "the first gone",
        of_layers(*(layer(f"l.{n}") for n in range(3))),
        ("l.0", "l.1"),
        [("l.2", "l.0")],
    ),
    (
        "lists do not answer for one another",
        TWO_LISTS,
        ("encoder.block.1", "encoder.block.2", "decoder.block.0"),
        [
            ("encoder.block.2", "encoder.block.0"),
            ("decoder.block.1", "decoder.block.0"),
            ("decoder.block.2", "decoder.block.1"),
        ],
    ),
]


@pytest.mark.parametrize(("anatomy", "gone", "wanted"), [p[1:] for p in PAIRS], ids=[p[0] for p in PAIRS])
def test_a_kept_layer_answers_for_those_skipped_after_it(
    anatomy: Anatomy, gone: tuple[str, ...], wanted: list[tuple[str, str]]
) -> None:
    class Named(nn.Module):
        def get_submodule(self, target: str) -> Any:
            return target

    teacher = Teacher(nn.Identity(), anatomy, None)  # type: ignore[arg-type]
    assert _layer_pairs(teacher, Named(), dict.fromkeys(gone, False)) == wanted


def stream(units: list[list[int]]) -> Anatomy:
    index = np.array(units)
    axis = Axis(
        "residual", "residual", len(index), (Place("l.0.out.weight", 0, index), Place("l.0.in.weight", 1, index))
    )
    other = Axis("residual#2", "residual", 2, (Place("l.1.out.weight", 0, np.array([[1], [0]])),))
    return Anatomy({"residual": axis, "residual#2": other, "ffn": Axis("ffn", "ffn", 4, ())}, {}, ())


STREAMS: list[tuple[list[list[int]], dict[str, Value], list[int] | None]] = [
    ([[0], [1], [2], [3]], {}, None),
    ([[0], [1], [2], [3]], {"residual": 4}, None),
    ([[0], [1], [2], [3]], {"ffn": 1}, None),
    ([[0], [1], [2], [3]], {"residual": 3}, [0, 1, 2]),
    ([[6, 7], [0, 1], [2, 3], [4, 5]], {"residual": 2, "ffn": 1}, [0, 1, 6, 7]),
]


@pytest.mark.parametrize(("units", "architecture", "kept"), STREAMS)
def test_the_kept_stream_is_the_first_units_in_their_places(
    units: list[list[int]], architecture: dict[str, Value], kept: list[int] | None
) -> None:
    for path in ("l.0", "l.0.out"):
        found = kept_stream(stream(units), architecture, path, ("l.0.out", "l.1.out"))
        assert (found is None) if kept is None else (found is not None and found.tolist() == kept)


def test_each_exit_has_the_stream_that_it_writes() -> None:
    anatomy, exits = stream([[0], [1], [2], [3]]), ("l.0.out", "l.1.out")
    both = {"residual": 3, "residual#2": 1}
    assert [kept_stream(anatomy, both, path, exits).tolist() for path in exits] == [[0, 1, 2], [1]]  # type: ignore[union-attr]
    assert kept_stream(anatomy, {"residual#2": 1}, "l.0", exits) is None
    assert kept_stream(anatomy, {"residual#2": 1}, "l.1", ()).tolist() == [1]  # type: ignore[union-attr]


def make_teacher(family: str, tiny: Callable[..., Any], task: Any) -> Teacher:
    made = tiny(family)
    model = made.model
    if hasattr(model, "classifier"):
        with torch.no_grad():
            model.classifier.weight.mul_(20)  # answers that differ from text to text by more than dropout does
    anatomy = examine(model, made.inputs, np.random.default_rng(0))
    ranked = reorder(model, anatomy, order_units(rank_units(model, anatomy, task, np.random.default_rng(0), 32)))
    wrapped = task.wrap(ranked).eval()
    rows = list(task.batches("train", 16))
    outputs = answers(calling(wrapped), task, "train")
    inputs = [task.inputs("train", batch) for batch in rows[:3]]
    return Teacher(ranked, anatomy, task, outputs, inputs[:2], inputs)


@pytest.fixture(scope="module")
def teacher(tiny: Callable[..., Any], tiny_task: Callable[..., Any]) -> Teacher:
    return make_teacher("bert", tiny, tiny_task("classification"))


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


L = "bert.encoder.layer"
ARCHITECTURES: list[dict[str, Value]] = [
    {},
    {f"{L}.0.ffn": 8, f"{L}.1.ffn": 16},
    {f"{L}.1": False, f"{L}.2.ffn": 8},
    {f"{L}.0": False, f"{L}.2": False},
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("stream_width", [32, 20])
def test_the_teacher_keeps_its_bits(teacher: Teacher, architecture: dict[str, Value], stream_width: int) -> None:
    residual = next(name for name, axis in teacher.anatomy.axes.items() if axis.kind == "residual")
    before = state(teacher.model)
    told: list[tuple[int, int]] = []
    small, fitted = develop(
        teacher,
        {**architecture, residual: stream_width},
        Effort(local_steps=3, steps=4, batch=16, checks=2),
        0,
        progress=lambda done, total: told.append((done, total)),
    )
    assert same(before, state(teacher.model)) and not teacher.model.training
    shared = {p.data_ptr() for p in teacher.model.parameters()} & {p.data_ptr() for p in small.parameters()}
    assert not shared
    assert fitted is not None and len(fitted.validated) == 2
    assert told == [(step, 7) for step in range(1, 8)]
    assert not small.training


def test_the_same_seed_gives_the_same_bits(teacher: Teacher) -> None:
    effort = Effort(local_steps=2, steps=3, batch=16)
    found = []
    for seed in (0, 0, 1):
        torch.rand(2)  # whatever else was drawn
        found.append(state(develop(teacher, ARCHITECTURES[1], effort, seed)[0]))
    assert same(found[0], found[1]) and not same(found[0], found[2])


def test_effort_brings_the_answers_nearer(teacher: Teacher) -> None:
    assert teacher.outputs is not None
    architecture = {name: max(1, axis.size // 4) for name, axis in teacher.anatomy.axes.items() if axis.kind == "ffn"}
    architecture[f"{L}.1"] = False
    bare = Teacher(teacher.model, teacher.anatomy, teacher.task)
    apart = []
    for who, effort in (
        (bare, Effort()),
        (teacher, Effort()),
        (teacher, Effort(steps=80, batch=16, learning_rate=2e-3)),
    ):
        small, _ = develop(who, architecture, effort, 0)
        found = answers(calling(teacher.task.wrap(small).eval()), teacher.task, "train")
        apart.append(float(teacher.task.divergence(torch.from_numpy(found), torch.from_numpy(teacher.outputs))))
    assert apart[1] < 0.9 * apart[0], "repair"
    assert apart[2] < 0.7 * apart[1], "distillation"


def test_a_checkpoint_stands_for_what_came_before_it(teacher: Teacher, tmp_path: Path) -> None:
    effort, file = Effort(local_steps=2, steps=60, batch=32), tmp_path / "checkpoint"

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 55:
            raise Killed

    whole, _ = develop(teacher, ARCHITECTURES[1], effort, 0)
    with pytest.raises(Killed):
        develop(teacher, ARCHITECTURES[1], effort, 0, checkpoint=file, progress=kill)
    told: list[int] = []
    rest, _ = develop(
        teacher, ARCHITECTURES[1], effort, 0, checkpoint=file, progress=lambda done, total: told.append(done)
    )
    assert told == list(range(53, 63))
    assert same(state(whole), state(rest))


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_whatever_may_be_skipped_is_repaired_around(
    family: str, tiny: Callable[..., Any], tiny_task: Callable[..., Any]
) -> None:
    teacher = make_teacher(family, tiny, tiny_task("classification"))
    middle = [name for name in teacher.anatomy.branches if ".1" in name]
    assert len(middle) == 3
    assert {branch.kind for branch in teacher.anatomy.branches.values()} == {"layer", "attention", "ffn"}
    for name in middle:
        small, _ = develop(teacher, {name: False}, Effort(local_steps=1), 0)
        assert all(torch.isfinite(p).all() for p in small.parameters())


def test_a_network_without_layers_learns_globally(teacher: Teacher) -> None:
    bare = Anatomy({name: replace(axis, layer=None) for name, axis in teacher.anatomy.axes.items()}, {}, ())
    _, fitted = develop(replace(teacher, anatomy=bare), {f"{L}.0.ffn": 8}, Effort(local_steps=30, steps=2), 0)
    assert fitted is not None and fitted.steps == 2


def test_the_rate_of_learning_grows_with_what_the_cut_has_cost(teacher: Teacher) -> None:
    """A whole network is trained gently, one that has lost its layers as fast as any."""
    task = teacher.task
    answered = answers(calling(task.wrap(teacher.model).eval()), task, "validation")
    compared = replace(teacher, answered=answered)
    whole = learning_rate(compared, repaired(compared, {f"{L}.0.ffn": 48}))
    # An original that is never wrong: the small one is below it.
    right = np.eye(answered.shape[1], dtype=np.float32)[task.judge(answered, "validation")[:, 0]]
    cut = learning_rate(replace(teacher, answered=right), repaired(compared, {f"{L}.0": False, f"{L}.2": False}))
    assert whole == RATES[0] < cut <= RATES[1]


def test_the_evaluator_says_the_rate_it_trained_with(teacher: Teacher) -> None:
    proposal = Proposal(Architecture({f"{L}.0.ffn": 48}))
    found = Trained(teacher, Effort(steps=2), 0, lambda architecture: 2.5)(proposal, np.random.default_rng(0))
    assert RATES[0] <= found["learning_rate"] <= RATES[1]


def test_the_evaluator_gives_points_lost_and_milliseconds(teacher: Teacher) -> None:
    whole = Architecture({f"{L}.0.ffn": 48})
    proposal = Proposal(whole)
    found = Trained(teacher, Effort(), 0, lambda architecture: 2.5)(proposal, np.random.default_rng(0))
    own = validation_loss(teacher.task.wrap(copy.deepcopy(teacher.model)).eval(), teacher.task)
    assert found == {
        "loss_points": pytest.approx(own),
        "drop_points": pytest.approx(own),
        "latency_ms": 2.5,
    }


def test_training_ends_at_the_check_that_is_nearest_to_the_original(teacher: Teacher) -> None:
    """By divergence from its answers."""
    task = teacher.task
    compared = replace(teacher, answered=answers(calling(task.wrap(teacher.model).eval()), task, "validation"))
    small, fitted = develop(compared, {f"{L}.0.ffn": 8}, Effort(steps=6, batch=16, checks=3), 0)
    assert fitted is not None
    values = [value for _, value in fitted.validated]
    assert len(values) == 3
    assert distance(compared, task.wrap(small).eval()) == pytest.approx(min(values))
    assert distance(compared, task.wrap(copy.deepcopy(teacher.model)).eval()) == pytest.approx(0.0, abs=1e-5)
    assert min(values) > 1e-4
