"""The first half of `optimize`, a function a stage: measure, see, rank, survey, select, plan, remember."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archsmith.cost import RUNTIMES, Artifact, LatencyModel, pinned
from archsmith.errors import ArchsmithError, BadInput
from archsmith.evaluate.latency import Bench, fill_latency, time_architectures
from archsmith.evaluate.rank import order_units, rank_units
from archsmith.evaluate.scores import score_blocks
from archsmith.evaluate.trained import Teacher
from archsmith.jobs import select as selection
from archsmith.jobs.case import SHORTEST, Case
from archsmith.jobs.plan import costs_of
from archsmith.jobs.select import Point, Terrain
from archsmith.jobs.serving import answered_once, artifact_records, serve, time_all, variants
from archsmith.jobs.verdict import of_runtime, whole_of
from archsmith.model import Anatomy, examine, realise, reorder
from archsmith.model.record import anatomy_from_json, anatomy_to_json
from archsmith.report.plain import from_plain, to_plain
from archsmith.report.result import Variant
from archsmith.report.terminal import Progress
from archsmith.space import JSON, Architecture, Value
from archsmith.study import RunDirectory
from archsmith.tasks.answer import load_array, save_array

# Most rows of calibration data, and most tokens of them, that ranking, scoring and repair look at.
RANKED, SCORED, REPAIRED = (192, 2600), (96, 1300), (512, 7000)
REPAIR_SECONDS = 15.0  # of the original's passes over what repair looks at, at most
SCORING = 0.2  # share of the minutes that scoring blocks may take
LARGER = 1.03  # of a file: its graph, norms and scales do not shrink with the weights
SHORT = 8  # minutes below which blocks are timed and scored with fewer probes
NEAR_LIMIT = 0.97  # predictions this share of a bound are taken as within it
EXAMINED = (2, SHORTEST)  # batch and length that a text model is examined on
READ = re.compile(r"(tokenizer|vocab|merges|special_tokens|added_tokens|modules|sentence_bert|1_Pooling)|.*\.model$")
"""Names of the files beside the weights that decide what a model answers."""


@dataclass(frozen=True, eq=False)
class Work:
    """A case being worked on: its run's record, and whom to tell."""

    case: Case
    run: RunDirectory
    progress: Progress

    def stage(self, name: str, work: Callable[[Path], JSON]) -> Any:
        """The record of a stage, done now if it has not been; one line when it begins."""
        if self.run.finished(name):
            return self.run.stage(name, work)
        self.progress.step(name, 0, 1)
        result = self.run.stage(name, work)
        self.progress.step(name, 1, 1)
        return result

    def counting(self, name: str) -> Callable[[int, int], None]:
        """Tells how far a stage is."""

        def tell(done: int, total: int) -> None:
            self.progress.step(f"{name} steps", done, total)

        return tell

    def record(self, name: str) -> Any:
        """The record of a stage that has been done."""
        if not self.run.finished(name):
            raise ArchsmithError(f"stage {name} must have been recorded before it is read; run archsmith resume")
        return self.run.stage(name, lambda folder: None)

    @property
    def spent(self) -> float:
        """Seconds of the finished stages."""
        return sum(self.run.seconds().values())


def remember_inputs(work: Work) -> None:
    """Check that data and weights are those that the run began with. Raises `BadInput` where one has changed."""
    request, loaded = work.case.request, work.case.loaded
    named = {name: Path(name) for name in (request.data, request.validation, request.holdout) if name}
    if loaded.folder is not None:  # of a hub, the folder that it was loaded into
        parts = [path for ending in ("*.safetensors", "*.bin", "config.json") for path in loaded.folder.glob(ending)]
        files = {path.name: path for path in parts}
        files |= {name: path for name, path in loaded.files.items() if READ.match(name)}
        named |= {f"{request.model}/{name}": path for name, path in sorted(files.items())}
    now = {name: digest(path) for name, path in named.items() if path.exists()}
    refuse_others(now, work.stage("inputs", lambda folder: dict(now)), "data and weights")


def refuse_others(now: Mapping[str, str], began: Mapping[str, str], what: str) -> None:
    """Raise `BadInput` where what a run began with has other content now; both have a digest for each name."""
    changed = [name for name, sha256 in began.items() if now.get(name) != sha256]
    if changed:
        law = f"a run goes on with the {what} that it began with"
        raise BadInput(law, "other content", changed[0], "put the file back, or begin a new run")


def digest(path: Path) -> str:
    """The SHA-256 of a file; of a folder, that of the names and sizes of its files."""
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        told = "\0".join(f"{file.relative_to(path)}\0{file.stat().st_size}" for file in files)
        return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def original(work: Work) -> list[Variant]:
    """The original on every runtime and precision, judged on validation and timed together."""
    case = work.case

    def measure(folder: Path) -> JSON:
        wrapped = case.task.wrap(case.model).eval()
        served = serve(case, wrapped, folder, "original", work.progress.say)
        times = time_all(case, served, case.example(), 12.0)
        answered = answered_once(case, served, times)
        save_array(folder / "answered.npy", next(answered[s.name] for s in served if s.artifact.precision == "fp32"))
        judged = {name: case.task.judge(outputs, "validation") for name, outputs in answered.items()}
        found = variants(case, wrapped, served, times, judged, "validation")
        return {"variants": to_plain(found), "files": artifact_records(served, folder)}

    return [from_plain(Variant, row, "stage original") for row in work.stage("original", measure)["variants"]]


def examine_model(work: Work) -> Anatomy:
    """What can change, certified. Raises `BadInput` where nothing can."""

    def see(folder: Path) -> JSON:
        anatomy = examine(work.case.model, work.case.task.example(*EXAMINED), work.case.rng(1), work.case.as_served())
        return anatomy_to_json(anatomy)

    anatomy = anatomy_from_json(work.stage("anatomy", see))
    if not anatomy.axes and not anatomy.branches:
        reasons = "; ".join(f"{c.subject}: {c.reason}" for c in anatomy.certificates[:3]) or "no free width was found"
        raise BadInput("a model must have something that can change", reasons, work.case.loaded.source)
    return anatomy


def sort_units(work: Work, anatomy: Anatomy) -> Teacher:
    """The original with the units of every axis sorted, most important first."""
    case = work.case

    def rank(folder: Path) -> JSON:
        rows = len(drawn_rows(case, 2, RANKED))
        return order_units(rank_units(case.model, anatomy, case.task, case.rng(2), rows))

    order = work.stage("rank", rank)
    most = within_time(work, REPAIRED, REPAIR_SECONDS)
    rows = sorted(drawn_rows(case, 3, most), key=lambda row: int(case.task.lengths("train")[row]))
    calibration = [case.task.inputs("train", rows[begin : begin + 32]) for begin in range(0, len(rows), 32)]
    answered = np.array(load_array(work.run.folder("original") / "answered.npy"))
    return Teacher(reorder(case.model, anatomy, order), anatomy, case.task, calibration=calibration, answered=answered)


def survey(work: Work, teacher: Teacher, measured: Sequence[Variant]) -> Terrain:
    """The space with its latency model, in the setting that will be shipped, and its block scores."""
    case, anatomy = work.case, teacher.anatomy
    space = selection.searched_space(anatomy)
    best = served_best(case, measured)

    build = builder(case, teacher)

    def time_blocks(folder: Path) -> JSON:
        bench = bench_of(work, folder, 7 if case.request.minutes < SHORT else 9)
        setting = (RUNTIMES[best.runtime](), best.precision)
        with pinned(case.request.threads):
            filled = fill_latency(build, anatomy, space, bench, [setting], case.rng(4))  # type: ignore[list-item]
        return next(iter(filled.values())).to_json()

    latency = LatencyModel.from_json(work.stage("latency", time_blocks))

    def score(folder: Path) -> JSON:
        short = case.request.minutes < SHORT
        probes = 2 if short else 4
        # A score begins in the middle of a pass, on the mean.
        passes = sum(min(probes, len(choice.values) - 1) for choice in space.choices.values()) / 2
        most = (SCORED[0] // 2, SCORED[1] // 2) if short else SCORED
        seconds = SCORING * case.request.minutes * 60 / max(1.0, passes)
        rows = drawn_rows(case, 5, within_time(work, most, seconds))
        tell = work.counting("blocks")
        found = score_blocks(build, case.task, space, rows, probes=probes, anatomy=anatomy, progress=tell)
        return {name: [[value, score] for value, score in row.items()] for name, row in found.items()}

    scores = {name: dict(map(tuple, row)) for name, row in work.stage("blocks", score).items()}
    return Terrain(anatomy, space, scores, latency)


def within_time(work: Work, most: tuple[int, int], seconds: float) -> tuple[int, int]:
    """`most` rows and tokens, or fewer tokens, so that the original in PyTorch answers them in these seconds."""
    request = work.case.request
    sizes = {"batch": request.batch, "length": request.length}
    open_dims = {label for dims in work.case.task.dynamic().values() for label in dims.values()}
    tokens = float(np.prod([sizes[label] for label in open_dims]))
    return most[0], min(most[1], int(seconds * tokens / (setting_ms(work, "pytorch", "fp32") / 1e3)))


def drawn_rows(case: Case, place: int, most: tuple[int, int]) -> list[int]:
    """Train rows drawn at random: at most so many, of at most so many tokens together, and one at least."""
    rows = case.rng(place).permutation(case.task.size("train"))[: most[0]]
    tokens = np.cumsum(case.task.lengths("train")[rows])
    return [int(row) for row in rows[: max(1, int(np.searchsorted(tokens, most[1])))]]


def served_best(case: Case, measured: Sequence[Variant]) -> Variant:
    """The fastest (runtime, precision) of the original that keeps its quality: what the search ships on."""
    whole = whole_of(measured)
    drop = case.limit("drop")
    allowed = min(1.0, max(0.2, (1.0 if drop is None else drop) / 2))
    able = [v for v in measured if v.quality is not None and v.quality >= (whole.quality or 0.0) - allowed]
    if case.request.runtime != "all":
        able = [v for v in able if v.runtime == case.request.runtime] or able
    # int8 must be made anew for each network that is timed: only where it is clearly faster is the search led by it.
    return min(able, key=lambda v: (v.latency_ms or float("inf")) * (1.2 if v.precision.startswith("int8") else 1.0))


def select(work: Work, teacher: Teacher, terrain: Terrain) -> list[Point]:
    """The fronts of all residual widths, thinned to points that differ in latency by 2 % or more."""

    def choose(folder: Path) -> JSON:
        rows = []
        for points in selection.streams_of(terrain, selection.front(terrain)):
            last = 0.0
            for point in points:
                if point.ms > last * 1.02:
                    rows.append([point.architecture.to_json(), point.score, point.ms])
                    last = point.ms
        return rows

    points = [Point(Architecture.from_json(a), score, ms) for a, score, ms in work.stage("front", choose)]
    within = [point for point in points if affordable(work, teacher, point.architecture)]
    return within or [min(points, key=lambda p: p.ms)]


def calibrate(work: Work, teacher: Teacher, terrain: Terrain, points: Sequence[Point]) -> tuple[Terrain, list[Point]]:
    """With a bound on latency: time the point that would be chosen, and scale all predictions by what was off there."""
    limit = work.case.limit("latency")
    if limit is None:
        return terrain, list(points)
    point = selection.at_most(points, limit * NEAR_LIMIT) or min(points, key=lambda p: p.ms)

    def measure(folder: Path) -> JSON:
        bench = bench_of(work, folder, 2)
        runtime, precision = terrain.latency.setting["runtime"], terrain.latency.setting["precision"]
        architectures: list[Mapping[str, Value]] = [{}, dict(point.architecture)]
        build = builder(work.case, teacher)
        with pinned(work.case.request.threads):
            timed = time_architectures(
                build, teacher.anatomy, architectures, bench, [(RUNTIMES[runtime](), precision)], work.case.rng(12)
            )
        whole, small = next(iter(timed.values()))
        # A shared machine's speed moves by a fifth within minutes: what repeats is the ratio to the original, and a
        # bound is to be kept at the slowest that was seen of it.
        slowest = max(setting_ms(work, runtime, precision), terrain.latency.probes[0].ms, whole.ms)
        return {"ms": small.ms / whole.ms * slowest, "predicted": point.ms}

    record = work.stage("calibrate", measure)
    factor = record["ms"] / record["predicted"]
    scaled = [replace(each, ms=each.ms * factor) for each in points]
    return replace(terrain, latency=terrain.latency.scaled(factor)), scaled


def setting_ms(work: Work, runtime: str, precision: str) -> float:
    """The original's milliseconds on a runtime in a precision, as its own stage measured them."""
    rows = work.record("original")["variants"]
    return float(next(row["latency_ms"] for row in rows if (row["runtime"], row["precision"]) == (runtime, precision)))


def builder(case: Case, teacher: Teacher) -> Callable[[Mapping[str, Value]], torch.nn.Module]:
    """architecture -> the wrapped network, untrained."""
    return lambda architecture: case.task.wrap(realise(teacher.model, teacher.anatomy, architecture)).eval()


def bench_of(work: Work, folder: Path, probes: int) -> Bench:
    """How networks are timed while searching; the original's files are there from its own stage."""
    case, originals = work.case, work.run.folder("original")
    return Bench(
        case.example(),
        case.task.dynamic(),
        folder,
        case.request.threads,
        repeats=60,
        seconds=8.0,
        probes=probes,
        whole={
            row["runtime"]: Artifact(row["runtime"], "fp32", originals / row["path"])
            for row in work.record("original")["files"]
            if row["precision"] == "fp32" and row["runtime"] != "pytorch"
        },
    )


def affordable(work: Work, teacher: Teacher, architecture: Mapping[str, Value]) -> bool:
    """Whether an architecture keeps the bounds on parameters, MACs, size and memory that need no training to know."""
    if all(work.case.limit(metric) is None for metric in ("parameters", "macs", "size", "memory")):
        return True
    costs = costs_of(work.case, teacher, architecture)
    return costs_allowed(work, {"macs": costs.macs, "parameters": costs.parameters, "weight_bytes": costs.weight_bytes})


def costs_allowed(work: Work, costs: Mapping[str, float]) -> bool:
    """Whether `parameters`, `macs` and `weight_bytes` of an architecture keep the bounds on costs.

    Size and memory are estimated from the original's smallest file and least peak: a file shrinks as the weights do,
    and of the peak what its weights took.
    """
    case = work.case
    measured = [from_plain(Variant, row, "stage original") for row in work.record("original")["variants"]]
    share = costs["weight_bytes"] / whole_of(measured).bytes
    found = {"parameters": costs["parameters"], "macs": costs["macs"]}
    found["size"] = min(v.bytes for v in of_runtime(case, measured)) * share * LARGER
    peaks = [v.peak_bytes - (1 - share) * v.bytes for v in of_runtime(case, measured) if v.peak_bytes is not None]
    found["memory"] = min(peaks, default=0.0)
    return all(value <= (math.inf if (bound := case.limit(m)) is None else bound) for m, value in found.items())
