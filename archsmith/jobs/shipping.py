"""The end of `optimize`: write what ships, load it back, measure all together, open the holdout once."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from archsmith.cost import decode_times, decodes, pinned
from archsmith.errors import BadInput
from archsmith.evaluate.trained import Teacher
from archsmith.jobs.case import Case
from archsmith.jobs.choice import Chosen
from archsmith.jobs.serving import (
    Served,
    answer,
    answered_once,
    artifact_records,
    reopened,
    serve,
    time_all,
    variants,
)
from archsmith.jobs.stages import Work
from archsmith.jobs.verdict import fastest_meeting, whole_of
from archsmith.model.pretrained import load_saved
from archsmith.model.save import save
from archsmith.report.plain import from_plain, to_plain
from archsmith.report.result import Holdout, Variant
from archsmith.space import JSON, Architecture
from archsmith.tasks import paired_interval
from archsmith.tasks.answer import load_array

DECODE_SECONDS = 20.0  # of timing what a language model generates


@dataclass(frozen=True, eq=False)
class Shipped:
    """What was written to RUN/model: the architecture and the module as it loads back; None: the original itself."""

    architecture: Architecture
    module: nn.Module
    predicted_ms: float | None = None


@dataclass(frozen=True)
class Final:
    """The last measurement: every variant on validation and in one timed run, what ships, and the ladder.

    The rungs, from the original to what ships, have their quality on the holdout where there is one.
    """

    originals: tuple[Variant, ...]
    smalls: tuple[Variant, ...]
    best: Variant
    ladder: tuple[Variant, ...]
    holdout: Holdout | None
    predicted_ms: float | None = None


def check_saved(case: Case) -> None:
    """Write the model as it is and load it back, before any work is done for it. Raises `BadInput`."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            save(case.model, case.loaded, folder, {}, case.task.example(2, 16), case.task.dynamic())
        except BadInput:
            raise
        except Exception as error:  # torch.export raises whatever the user's code runs into
            law = "a model must load back as it was saved: as a class of transformers, else as a torch.export program"
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            remedy = "let its forward pass take no decision by the values of tensors"
            raise BadInput(law, reason, case.loaded.source, remedy) from error


def ship(work: Work, teacher: Teacher, chosen: Chosen) -> Shipped:
    """Write RUN/model: the PyTorch folder and every exported file."""
    case = work.case

    def write(folder: Path) -> JSON:
        save(
            chosen.module,
            case.loaded,
            folder,
            chosen.architecture.to_json(),
            case.task.example(2, 16),
            case.task.dynamic(),
        )
        wrapped = case.task.wrap(chosen.module).eval()
        served = serve(case, wrapped, folder, "smaller", work.progress.say)
        return {"files": artifact_records(served, folder)}

    work.stage("model", write)
    return Shipped(chosen.architecture, chosen.module, chosen.predicted_ms)


def ship_original(work: Work) -> Shipped:
    """Write RUN/model where nothing is cut: the original and its exported files."""
    case = work.case

    def write(folder: Path) -> JSON:
        save(case.model, case.loaded, folder, {}, case.task.example(2, 16), case.task.dynamic())
        served = serve(case, case.task.wrap(case.model).eval(), folder, "smaller", work.progress.say)
        return {"files": artifact_records(served, folder)}

    work.stage("model", write)
    return Shipped(Architecture({}), case.model)


def measure_all(work: Work, shipped: Shipped) -> Final:
    """Original and small, every runtime and precision, from the files, interleaved in one run; then the holdout."""
    case = work.case

    before = work.record("original")

    def measure(folder: Path) -> JSON:
        small = loaded_back(work, shipped)
        whole_wrapped, small_wrapped = case.task.wrap(case.model).eval(), case.task.wrap(small).eval()
        wholes = reopened(work.case, work.run.folder("original"), before["files"], "original", whole_wrapped)
        files = work.record("model")["files"]
        smalls = reopened(work.case, work.run.folder("model"), files, "smaller", small_wrapped)
        times = time_all(case, [*wholes, *smalls], case.example(), 25.0)
        answered = answered_once(case, smalls, times)
        judged = {name: case.task.judge(outputs, "validation") for name, outputs in answered.items()}
        qualities = {row["name"]: row["quality"] for row in before["variants"]}
        originals = variants(case, whole_wrapped, wholes, times, {}, "validation")
        paths = {each.name: each.artifact.path.relative_to(work.run.path).as_posix() for each in (*wholes, *smalls)}
        paths |= {each.name: "model" for each in smalls if each.artifact.runtime == "pytorch"}
        decode = decode_ms(case, {"original": case.model, "smaller": small})
        originals = [
            replace(v, quality=qualities[v.name], path=paths[v.name] if v.runtime != "pytorch" else None)
            for v in decoding(originals, decode.get("original"))
        ]
        found = decoding(variants(case, small_wrapped, smalls, times, judged, "validation"), decode.get("smaller"))
        found = [replace(v, path=paths[v.name], architecture=dict(shipped.architecture)) for v in found]
        uncut = case.task.judge(load_array(work.run.folder("original") / "answered.npy"), "validation")
        drops = {name: case.task.drop(records, uncut) for name, records in judged.items()}
        best = best_of(case, found, whole_of(originals), drops)
        rungs, holdout = open_holdout(work, rungs_of(originals, found, best), [*wholes, *smalls])
        return to_plain(
            {
                "originals": originals,
                "smalls": found,
                "best": best,
                "ladder": rungs,
                "holdout": holdout,
                "ms": shipped.predicted_ms,
            }
        )

    record = work.stage("final", measure)
    return Final(
        originals=_read(record["originals"]),
        smalls=_read(record["smalls"]),
        best=_read([record["best"]])[0],
        ladder=_read(record["ladder"]),
        holdout=from_plain(Holdout, record["holdout"], "stage final") if record["holdout"] else None,
        predicted_ms=record["ms"],
    )


def decode_ms(case: Case, models: Mapping[str, nn.Module]) -> dict[str, float]:
    """Milliseconds of each further token that language models generate with their cache; empty for other models."""
    if case.task.name != "language-modelling":
        return {}
    prompt = case.task.example(1, case.request.length)["input_ids"]
    single = all(p.dtype == torch.float32 for model in models.values() for p in model.parameters())
    if not single or not all(decodes(model, prompt) for model in models.values()):
        return {}
    with pinned(case.request.threads):
        times = decode_times(models, prompt, case.rng(13), DECODE_SECONDS)
    return {name: float(np.median(ms)) for name, ms in times.items()}


def decoding(found: Sequence[Variant], ms: float | None) -> list[Variant]:
    """Variants of which that of PyTorch in fp32 takes so long for a further token."""
    return [replace(v, decode_ms=ms) if (v.runtime, v.precision) == ("pytorch", "fp32") else v for v in found]


def best_of(case: Case, found: Sequence[Variant], whole: Variant, drops: Mapping[str, float]) -> Variant:
    """What ships; each variant is taken to be `drops` points below the original, as the task tells."""
    quality = whole.quality or 0.0
    decided = [replace(v, quality=quality - drops[v.name]) for v in found]
    chosen = fastest_meeting(case, decided, whole)
    return next(v for v in found if v.name == chosen.name)


def loaded_back(work: Work, shipped: Shipped) -> nn.Module:
    """The PyTorch model as it loads from RUN/model; a module that is not a transformers model is taken as it is."""
    folder = work.run.folder("model")
    return load_saved(folder) if (folder / "config.json").exists() else shipped.module


RUNGS = ("original", "faster runtime", "lower precision", "smaller architecture", "all together")


def rungs_of(originals: Sequence[Variant], smalls: Sequence[Variant], best: Variant) -> dict[str, Variant]:
    """The ladder: original, faster runtime, lower precision, smaller architecture, all together, as far as there is.

    Where the original itself ships there is no smaller architecture.
    """

    def fastest(rows: Sequence[Variant]) -> Variant | None:
        return min(rows, key=lambda v: v.latency_ms or float("inf"), default=None)

    found = (
        whole_of(originals),
        fastest([v for v in originals if v.precision == "fp32" and v.runtime != "pytorch"]),
        fastest([v for v in originals if v.precision != "fp32"]),
        whole_of(smalls) if best.architecture else None,
        best,
    )
    return {name: variant for name, variant in zip(RUNGS, found, strict=True) if variant is not None}


def open_holdout(
    work: Work, rungs: Mapping[str, Variant], served: Sequence[Served]
) -> tuple[tuple[Variant, ...], Holdout | None]:
    """The rungs by their names, on the holdout, once; and the last of them against the first, on the same rows.

    What ships is run from its own file. Other files in fp32 compute what their module computes, which their export
    checked: one of them is run for all of the original, and one for all of the small network.
    """
    case = work.case
    if case.task.size("holdout") == 0:
        return tuple(replace(v, name=name) for name, v in rungs.items()), None
    case.task.open_holdout()
    files = {each.name: each for each in served}
    judged: dict[str, np.ndarray] = {}
    best = rungs["all together"]

    def found(variant: Variant) -> np.ndarray:
        whole = variant.name.startswith("original ")
        key = f"fp32 of the {'original' if whole else 'small one'}" if variant.precision == "fp32" else variant.name
        if key not in judged:
            own = best if not whole and variant.precision == best.precision else variant
            judged[key] = case.task.judge(answer(case, files[own.name], "holdout"), "holdout")
        return judged[key]

    ladder = [
        replace(v, name=name, quality=case.task.quality(found(v)), measured_on="holdout") for name, v in rungs.items()
    ]
    first, last = found(rungs["original"]), found(rungs["all together"])
    interval = paired_interval(first, last, case.rng(10), case.task.quality, block=case.task.block)
    holdout = Holdout(
        n=interval.examples,
        original=case.task.quality(first),
        best=case.task.quality(last),
        difference=interval.difference,
        interval=(interval.low, interval.high),
    )
    return tuple(ladder), holdout


def _read(rows: Sequence[JSON]) -> tuple[Variant, ...]:
    return tuple(from_plain(Variant, row, "stage final") for row in rows)
