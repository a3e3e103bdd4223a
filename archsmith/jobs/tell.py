"""What a run tells in the end: result.json, story.json, report.html."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from archsmith.cost import LatencyModel
from archsmith.evaluate.blocks import factors_of, skipped
from archsmith.jobs.shipping import Final
from archsmith.jobs.stages import Work
from archsmith.jobs.verdict import outcomes, whole_of
from archsmith.model.anatomy import Anatomy
from archsmith.model.record import anatomy_from_json
from archsmith.report.environment import observe
from archsmith.report.loading import snippets
from archsmith.report.page import write_page
from archsmith.report.picture import write_picture
from archsmith.report.result import Result, Variant, write_result
from archsmith.report.story import LatencyPoint, Story, Verdict, Width, write_story
from archsmith.study import Store
from archsmith.trial import pareto


def tell(
    work: Work, measured: Sequence[Variant], final: Final, notes: Sequence[str] = (), tried: float | None = None
) -> Result:
    """Write the result, the story and the page, with these notes, and return the result. `tried`: seconds of all trials
    together, where the network was found from nothing."""
    case, run, found = work.case, work.run, tried is not None
    whole, best = final.ladder[0], final.ladder[-1]
    floors = {"latency": floor_ms(work)} if run.finished("front") else {}
    result = Result(
        task=case.task.name,
        metric=case.task.metric,
        original=whole,
        best=best,
        ladder=final.ladder,
        front=() if found else front(work, final),
        targets=outcomes(case, best, whole, {k: v for k, v in floors.items() if v is not None}),
        architecture=dict(best.architecture),
        holdout=final.holdout,
        environment=observe(case.request.threads),
        seconds={**({"trials": tried} if tried is not None else {}), **run.seconds()},
        found=found,
    )
    result = write_result(result, run.path)
    story = replace(tell_story(work, final), notes=tuple(notes))
    write_story(story, run.path)
    write_page(result, story, run.path)
    write_picture(result, story.title, run.path)
    return result


def front(work: Work, final: Final) -> tuple[Variant, ...]:
    """Trials that no other beats, fast to good: predicted latency, measured quality; what ships and the original, as
    measured. All of it on validation."""
    path = work.run.path / "study.db"
    found = [replace(final.best, name="best"), replace(whole_of(final.originals), name="original")]
    if path.exists() and work.run.finished("latency"):
        setting = work.record("latency")["setting"]
        with closing(Store.read(path)) as store:
            trials = pareto([t for t in store.history() if not t.proposal.fidelity], store.objectives)
        found += [
            replace(
                final.best,
                name=f"trial {trial.number}",
                quality=100.0 - trial.values["loss_points"],
                latency_ms=trial.values["latency_ms"],
                macs=int(trial.values["macs"]),
                parameters=int(trial.values["parameters"]),
                bytes=int(trial.values["weight_bytes"]),
                peak_bytes=None,
                runtime=setting["runtime"],
                precision=setting["precision"],
                latency_interval=None,
                path=None,
                architecture=dict(trial.proposal.architecture),
                note="latency predicted, quality after a short training, bytes of its weights in fp32",
            )
            for trial in trials
        ]
    return tuple(sorted(found, key=lambda v: v.latency_ms or 0.0))


def floor_ms(work: Work) -> float | None:
    """The least latency of any architecture on the front, predicted, and corrected by what a timing was off."""
    rows = work.record("front")
    least = min((ms for _, _, ms in rows), default=None)
    if least is None or not work.run.finished("calibrate"):
        return least
    timed = work.record("calibrate")
    return float(least * timed["ms"] / timed["predicted"])


def tell_story(work: Work, final: Final) -> Story:
    """All that the page shows beside the result."""
    run, case = work.run, work.case
    anatomy = anatomy_from_json(work.record("anatomy")) if run.finished("anatomy") else None
    split = getattr(case.task, "split", None)
    return Story(
        title=f"{case.request.model.rstrip('/').rpartition('/')[2]} · {case.task.name}",
        plan=work.record("plan") if run.finished("plan") else {},
        widths=widths(anatomy, final.best) if anatomy else (),
        latency_points=latency_points(work, final),
        certificates=tuple(
            Verdict(c.subject, c.accepted, c.reason, c.error if math.isfinite(c.error) else None)
            for c in anatomy.certificates
        )
        if anatomy
        else (),
        frozen=dict(anatomy.frozen) if anatomy else {},
        split=counts_of(split.as_json()) if split is not None else {},
        loading=snippets(run.path, final.best, case.request.threads),
    )


def widths(anatomy: Anatomy, best: Variant) -> tuple[Width, ...]:
    """Every searched axis before and after; 0 where it is gone with its block or layer."""
    gone = skipped(anatomy, best.architecture)
    inner = {name for row in factors_of(anatomy).values() for name in row}
    return tuple(
        Width(
            name, axis.kind, axis.size, 0 if name in gone else int(best.architecture.get(name, axis.size)), axis.layer
        )
        for name, axis in anatomy.axes.items()
        if name not in inner
    )


def latency_points(work: Work, final: Final) -> tuple[LatencyPoint, ...]:
    """Predicted against measured, in the setting that the search was led by: the probes of the fit, and what ships."""
    if not work.run.finished("latency"):
        return ()
    model = LatencyModel.from_json(work.record("latency"))
    setting = (str(model.setting["runtime"]), str(model.setting["precision"]))
    found = [
        LatencyPoint(f"probe {number}", model.predict(probe.widths, probe.residual), probe.ms, *setting)
        for number, probe in enumerate(model.probes)
    ]
    shipped = next((v for v in final.smalls if (v.runtime, v.precision) == setting), None)
    if final.predicted_ms is not None and shipped is not None and shipped.latency_ms is not None:
        found.append(LatencyPoint("best", final.predicted_ms, shipped.latency_ms, *setting))
    return tuple(found)


def counts_of(split: Mapping[str, Any]) -> dict[str, int]:
    """The counts of a split report, flat: "train", "duplicates: train in holdout", ..."""
    found = {name: int(rows) for name, rows in split["rows"].items()}
    if split.get("set_aside"):
        found["set aside"] = int(split["set_aside"])
    for kind in ("duplicates", "phrases", "quotations", "cut"):
        found.update({f"{kind}: {where}": int(rows) for where, rows in split.get(kind, {}).items() if rows})
    return found
