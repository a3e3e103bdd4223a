"""An architecture made for real: cut, repaired in closed form, distilled for a number of steps, and judged."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from archsmith.compress.distil import distil
from archsmith.compress.local import distil_layers
from archsmith.compress.norms import BatchNorm, recalibrate
from archsmith.compress.repair import exit_paths, repair
from archsmith.evaluate.blocks import layer_paths, moved
from archsmith.model import Anatomy, realise
from archsmith.model.share import within
from archsmith.space import Value
from archsmith.tasks.answer import answers, calling
from archsmith.tasks.task import Task
from archsmith.train import Fitted, Schedule
from archsmith.trial import Proposal

Architecture = Mapping[str, Value]
CHUNK = 64  # rows that are compared together, as many as a batch of training
RISKED = 256  # rows that are answered together
HEAT = (-6.0, 6.0)  # logarithms of temperatures
# Learning rate for each 90th of the original's quality that a cut has cost (a point of SST-2's 90), and its bounds.
RATE_PER_POINT, RATES = 4.5e-5, (3e-5, 2.5e-4)
NORMED = 4.0  # times as much where norms over batches take out how large the weights become


@dataclass(frozen=True, eq=False)
class Teacher:
    """The original with its units sorted, and what was remembered of it.

    `outputs` (train rows, outputs) float32, NaN where a row was not run; `local`: inputs that layers learn on one by
    one, none where distillation is global only; `calibration`: inputs that repair refits on, none where it is left out;
    `answered` (rows, outputs): the original's outputs on validation, None where nothing is compared with it.
    """

    model: nn.Module
    anatomy: Anatomy
    task: Task
    outputs: np.ndarray | None = None
    local: Sequence[Mapping[str, Tensor]] = ()
    calibration: Sequence[Mapping[str, Tensor]] = ()
    answered: np.ndarray | None = None

    @property
    def judged(self) -> np.ndarray | None:
        """The original's records on validation."""
        return None if self.answered is None else self.task.judge(self.answered, "validation")


@dataclass(frozen=True)
class Effort:
    """How much is done for one architecture: steps of local and of global distillation, and how."""

    local_steps: int = 0
    steps: int = 0
    batch: int = 64
    learning_rate: float = 5e-4
    checks: int = 0


def repaired(teacher: Teacher, architecture: Architecture) -> nn.Module:
    """The small module of an architecture, repaired in closed form; the teacher is not touched.

    Raises what cutting raises for an architecture that the model cannot become.
    """
    task = teacher.task
    small = copy.deepcopy(realise(teacher.model, teacher.anatomy, architecture))
    if teacher.calibration:
        exits = _exits(teacher, small, architecture)
        kept = _kept_streams(teacher, architecture, exit_paths(teacher.model, teacher.anatomy))
        news = [moved(teacher.anatomy, architecture, path) for path in layer_paths(teacher.anatomy)]
        layers = [small.get_submodule(path) for path in news if path is not None]
        whole, wrapped = task.wrap(teacher.model).eval(), task.wrap(small).eval()
        repair(whole, wrapped, exits, teacher.calibration, kept, layers=layers)
        recalibrate(wrapped, teacher.calibration)
    return small


def learning_rate(teacher: Teacher, small: nn.Module) -> float:
    """The rate to train a repaired module with: the more a cut has cost, the more there is to be learnt anew.

    A module that is nearly as good as the original loses by large steps what it has.
    """
    loss, drop = compare(teacher, teacher.task.wrap(small).eval())
    whole = max(100.0 - loss + drop, 1e-6)
    faster = NORMED if any(isinstance(part, BatchNorm) for part in small.modules()) else 1.0
    return faster * float(np.clip(RATE_PER_POINT * drop * 90.0 / whole, *RATES))


def develop(
    teacher: Teacher,
    architecture: Architecture,
    effort: Effort,
    seed: int,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[nn.Module, Fitted | None]:
    """The small module of an architecture, after repair and distillation; the teacher is not touched.

    Raises what cutting raises for an architecture that the model cannot become.
    """
    if checkpoint is not None and checkpoint.exists():
        small = copy.deepcopy(realise(teacher.model, teacher.anatomy, architecture))  # the repair is behind it
    else:
        small = repaired(teacher, architecture)
    return small, teach(teacher, small, architecture, effort, seed, checkpoint=checkpoint, progress=progress)


def teach(
    teacher: Teacher,
    small: nn.Module,
    architecture: Architecture,
    effort: Effort,
    seed: int,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fitted | None:
    """Local and then global distillation of a small module, in place."""
    task = teacher.task
    wrapped = task.wrap(small).eval()
    total = effort.local_steps + effort.steps
    pairs = _layer_pairs(teacher, small, architecture)
    if effort.local_steps and pairs and teacher.local and (checkpoint is None or not checkpoint.exists()):
        distil_layers(
            task.wrap(teacher.model).eval(),
            wrapped,
            [(teacher.model.get_submodule(goal), layer) for goal, layer in pairs],
            teacher.local,
            Schedule(effort.local_steps, effort.learning_rate, seed=seed),
            kept=_kept_streams(teacher, architecture, [goal for goal, _ in pairs]),
            progress=(lambda step: progress(step, total)) if progress else None,
        )
    if not effort.steps or teacher.outputs is None:
        return None
    return distil(
        wrapped,
        task,
        teacher.outputs,
        Schedule(effort.steps, effort.learning_rate),
        seed,
        batch=effort.batch,
        validate=(lambda: distance(teacher, wrapped)) if effort.checks else None,
        checks=effort.checks,
        checkpoint=checkpoint,
        progress=(lambda step: progress(effort.local_steps + step, total)) if progress else None,
    )


def distance(teacher: Teacher, wrapped: nn.Module) -> float:
    """How far a wrapped network is from the original on validation: the task's divergence, or else points lost.

    On some hundred rows, points go up and down by chance more than training moves them; the divergence hardly does.
    """
    if teacher.answered is None:
        return validation_loss(wrapped, teacher.task)
    outputs = answers(calling(wrapped), teacher.task, "validation")
    pairs = [
        (torch.from_numpy(outputs[begin : begin + CHUNK]), torch.from_numpy(teacher.answered[begin : begin + CHUNK]))
        for begin in range(0, len(outputs), CHUNK)
    ]
    apart = [float(teacher.task.divergence(mine, whole)) for mine, whole in pairs]
    return float(np.average(apart, weights=[len(mine) for mine, _ in pairs]))


def validation_loss(wrapped: nn.Module, task: Task) -> float:
    """Points lost on the validation part: 100 - quality."""
    return 100.0 - task.quality(task.judge(answers(calling(wrapped), task, "validation"), "validation"))


def validation_risk(wrapped: nn.Module, task: Task) -> float:
    """The mean supervised loss on the validation part, of a network in eval mode: it moves less by chance than points
    do. Where the data are their own targets (running text), the points lost.

    Of classes it is that at the temperature that makes it least (Guo et al. 2017): a network that learns its rows by
    heart grows too sure of itself long before it takes fewer classes for right.
    """
    if task.targets("validation", [0]) is None:
        return validation_loss(wrapped, task)
    outputs, targets = [], []
    with torch.no_grad():
        for rows in task.batches("validation", RISKED):
            outputs.append(wrapped(**task.inputs("validation", rows)).float())
            targets.append(task.targets("validation", rows))
    given, true = torch.cat(outputs), torch.cat([each for each in targets if each is not None])
    risk = float(task.loss(given, true))
    if not hasattr(task, "classes") or not math.isfinite(risk):
        return risk
    at = minimize_scalar(lambda log_t: float(task.loss(given / math.exp(log_t), true)), bounds=HEAT, method="bounded")
    return min(risk, float(at.fun))


def compare(teacher: Teacher, wrapped: nn.Module) -> tuple[float, float]:
    """What a wrapped network loses on validation, and how much of it counts as below the original; in points."""
    task = teacher.task
    judged = task.judge(answers(calling(wrapped), task, "validation"), "validation")
    loss = 100.0 - task.quality(judged)
    original = teacher.judged
    return loss, loss if original is None else task.drop(judged, original)


@dataclass(frozen=True, eq=False)
class Trained:
    """The evaluator of architectures by what they reach after `effort`.

    Values `loss_points` (on validation), `drop_points` (below the original, as the task tells) and `latency_ms`; and
    the `learning_rate` where it was trained, which its cut decides.
    """

    teacher: Teacher
    effort: Effort
    seed: int
    latency: Callable[[Architecture], float]

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        """Develop one architecture and judge it."""
        small = repaired(self.teacher, proposal.architecture)
        values = {"latency_ms": self.latency(proposal.architecture)}
        if self.effort.steps:
            values["learning_rate"] = learning_rate(self.teacher, small)
            effort = replace(self.effort, learning_rate=values["learning_rate"])
            teach(self.teacher, small, proposal.architecture, effort, self.seed)
        loss, drop = compare(self.teacher, self.teacher.task.wrap(small).eval())
        return {**values, "loss_points": loss, "drop_points": drop}


def kept_stream(anatomy: Anatomy, architecture: Architecture, path: str, exits: Sequence[str] = ()) -> Tensor | None:
    """Positions (R,) that are kept of the residual stream that the last of these `exits` in a module writes (without
    one, of the stream that the module reads); None where it is whole."""
    writers = [f"{each}.weight" for each in reversed(exits) if within(each, path)]
    kept: dict[str, Tensor] = {}
    for name, axis in anatomy.axes.items():
        if axis.kind == "residual" and int(architecture.get(name, axis.size)) < axis.size:
            for place in axis.places:
                units = np.asarray(place.index)[: int(architecture[name])]
                if place.dim == 0:
                    kept[place.parameter] = torch.from_numpy(np.sort(units.reshape(-1)))
    written = writers[:1] or [name for name in kept if within(name, path)]
    return kept.get(written[0]) if written else None


def _kept_streams(teacher: Teacher, architecture: Architecture, paths: Sequence[str]) -> dict[nn.Module, Tensor]:
    """`kept_stream` of these exits or layers of the original, by module, where there is one."""
    exits = exit_paths(teacher.model, teacher.anatomy)
    found = {path: kept_stream(teacher.anatomy, architecture, path, exits) for path in paths}
    return {teacher.model.get_submodule(path): kept for path, kept in found.items() if kept is not None}


def _exits(teacher: Teacher, small: nn.Module, architecture: Architecture) -> list[tuple[nn.Module, nn.Module]]:
    pairs = []
    for path in exit_paths(teacher.model, teacher.anatomy):
        new = moved(teacher.anatomy, architecture, path)
        if new is not None:
            pairs.append((teacher.model.get_submodule(path), small.get_submodule(new)))
    return pairs


def _layer_pairs(teacher: Teacher, small: nn.Module, architecture: Architecture) -> list[tuple[str, nn.Module]]:
    """Each kept layer with the original's layer whose output it must give: the last of its list before the next kept.

    Layers that go before the first kept one of their list are nobody's goal.
    """
    paths = layer_paths(teacher.anatomy)
    news = [moved(teacher.anatomy, architecture, path) for path in paths]
    pairs: list[tuple[str, nn.Module]] = []
    goal: str | None = None
    for path, new in reversed(list(zip(paths, news, strict=True))):
        if goal is None or goal.rpartition(".")[0] != path.rpartition(".")[0]:
            goal = path
        if new is not None:
            pairs.append((goal, small.get_submodule(new)))
            goal = None
    return pairs[::-1]
