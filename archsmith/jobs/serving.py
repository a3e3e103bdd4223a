"""Files that can be shipped: export a network for every runtime and precision, run, judge and time them together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.compress.quantise import lacks_nncf, quantise
from archsmith.cost import (
    RUNTIMES,
    Arrays,
    Artifact,
    Precision,
    Runtime,
    Session,
    agree,
    arrays,
    file_bytes,
    pinned,
    sample_times,
    summarise,
    weight_bytes,
)
from archsmith.cost import count as count_costs
from archsmith.cost.memory import serving_peak
from archsmith.errors import BadInput
from archsmith.jobs.case import Case
from archsmith.report.result import Variant
from archsmith.space import JSON
from archsmith.tasks.answer import answers
from archsmith.tasks.task import Part

CALIBRATION = 64  # inputs that int8 ranges are observed on
ROUNDS = 200  # of one timing at most; single calls differ by a fifth on a shared machine
AGREES = 1e-3  # of the output's scale, between an exported fp32 file and the module


@dataclass(frozen=True, eq=False)
class Served:
    """One way to serve one network: the file, the session that is timed, and what its weights take on disk.

    `reopen` makes a session with another number of threads.
    """

    name: str
    artifact: Artifact
    session: Session
    bytes: int
    reopen: Callable[[int], Session]


def runtimes_of(case: Case) -> list[Runtime]:
    """The runtimes asked for that this machine has; PyTorch always."""
    names = list(RUNTIMES) if case.request.runtime == "all" else ["pytorch", case.request.runtime]
    return [runtime for name, runtime in ((n, RUNTIMES[n]()) for n in dict.fromkeys(names)) if not runtime.available()]


def precisions_of(runtime: Runtime) -> list[Precision]:
    """The precisions that this CPU computes in on a runtime, as far as they can be made here."""
    found = [precision for precision, reason in runtime.precisions().items() if reason is None]
    if runtime.name == "openvino" and lacks_nncf():
        found = [precision for precision in found if not precision.startswith("int8")]
    return found


def calibration(case: Case) -> list[Arrays]:
    """Train inputs for observing ranges, one row each, at their natural lengths."""
    rows = case.rng(7).permutation(case.task.size("train"))[:CALIBRATION]
    return [arrays(case.task.inputs("train", [int(row)])) for row in rows]


def serve(case: Case, wrapped: nn.Module, folder: Path, label: str, say: Callable[[str], None]) -> list[Served]:
    """Export a wrapped network for every runtime and precision into `folder`, and open each file again.

    A precision that cannot be made is left out and said, and so is a runtime that was not asked for by its name. Raises
    `BadInput` where one that was does not take the network, or does not compute what the module computes.
    """
    ranges = calibration(case)
    found: list[Served] = []
    for runtime in runtimes_of(case):
        try:
            with _said(runtime, case):
                base = runtime.export(wrapped, case.task.example(2, 16), case.task.dynamic(), folder / runtime.name)
            for precision in precisions_of(runtime):
                try:
                    with _said(runtime, case):
                        found.append(_serve_one(case, wrapped, runtime, base, precision, ranges, label))
                except BadInput as error:
                    if precision == "fp32":
                        raise
                    say(f"{runtime.name} {precision} cannot be made: {str(error)[:200]}")
        except BadInput as error:
            if case.request.runtime != "all" or runtime.name == "pytorch":
                raise
            say(f"{runtime.name} is left out: {str(error)[:200]}")
    return found


@contextmanager
def _said(runtime: Runtime, case: Case) -> Iterator[None]:
    """What a runtime does not take is the network's fault, whatever it raises; a full disk is not."""
    try:
        yield
    except (BadInput, OSError):
        raise
    except Exception as error:  # each runtime raises classes of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise BadInput(f"{runtime.name} must take the network", reason, case.loaded.source) from error


def _serve_one(
    case: Case,
    wrapped: nn.Module,
    runtime: Runtime,
    base: Artifact,
    precision: Precision,
    ranges: list[Arrays],
    label: str,
) -> Served:
    """The fp32 file in one precision, opened; fp32 itself is compared with the module."""
    artifact = quantise(base, precision, ranges, base.path if base.path.is_dir() else base.path.parent)
    session = runtime.open(artifact, case.request.threads)
    if precision == "fp32" and runtime.name != "pytorch":
        check_agreement(case, wrapped, session, artifact)
    on_disk = weight_bytes(wrapped) if runtime.name == "pytorch" else file_bytes(artifact.path)
    return Served(f"{label} {runtime.name} {precision}", artifact, session, on_disk, opener(runtime, artifact))


def artifact_records(served: Sequence[Served], folder: Path) -> list[JSON]:
    """Served files as JSON, their paths relative to the stage's folder."""
    return [
        {
            "runtime": each.artifact.runtime,
            "precision": each.artifact.precision,
            "path": str(each.artifact.path.relative_to(folder)),
            "bytes": each.bytes,
        }
        for each in served
    ]


def reopened(case: Case, folder: Path, files: Sequence[JSON], label: str, wrapped: nn.Module) -> list[Served]:
    """Sessions on the files that a stage wrote into `folder`, opened from the disk; PyTorch runs `wrapped`."""
    runtimes = {runtime.name: runtime for runtime in runtimes_of(case)}
    found = []
    for row in files:
        artifact = Artifact(row["runtime"], row["precision"], folder / row["path"])
        runtime = runtimes[row["runtime"]]
        if runtime.name == "pytorch":
            runtime.export(wrapped, {}, {}, artifact.path)
        session = runtime.open(artifact, case.request.threads)
        name = f"{label} {row['runtime']} {row['precision']}"
        found.append(Served(name, artifact, session, row["bytes"], opener(runtime, artifact)))
    return found


def opener(runtime: Runtime, artifact: Artifact) -> Callable[[int], Session]:
    """threads -> a new session on a file."""
    return lambda threads: runtime.open(artifact, threads)


def answered_once(case: Case, served: Sequence[Served], times: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs on validation: the fastest fp32 file and every lower precision run; the other fp32 files, which compute
    the same to within what was checked at their export, take that one's."""
    whole = min((s for s in served if s.artifact.precision == "fp32"), key=lambda s: float(np.median(times[s.name])))
    same = answer(case, whole, "validation")
    return {
        each.name: same if each.artifact.precision == "fp32" else answer(case, each, "validation") for each in served
    }


def answered_in(case: Case, wrapped: nn.Module, runtime_name: str, precision: Precision) -> np.ndarray:
    """Outputs on validation of a network in one runtime and precision, from files that go again.

    Raises `BadInput` where it cannot be made.
    """
    runtime = RUNTIMES[runtime_name]()
    with tempfile.TemporaryDirectory() as folder, _said(runtime, case):
        base = runtime.export(wrapped, case.task.example(2, 16), case.task.dynamic(), Path(folder))
        return answer(
            case, _serve_one(case, wrapped, runtime, base, precision, calibration(case), "trained"), "validation"
        )


def check_agreement(case: Case, wrapped: nn.Module, session: Session, artifact: Artifact) -> None:
    """An exported file computes what the module computes, at several batch sizes and lengths and with padding; else
    `BadInput`."""
    shapes = [(1, 8), (3, 24), (2, case.request.length)]
    lengths = case.task.lengths("train")
    padded = case.task.inputs("train", [int(lengths.argmin()), int(lengths.argmax())])
    apart = agree(wrapped, session, [padded, *(case.task.example(batch, max(8, length)) for batch, length in shapes)])
    if not apart <= AGREES:
        law = "an exported file computes what the module computes"
        raise BadInput(law, f"a deviation of {apart:.1e} of the output's scale", str(artifact.path))


def answer(case: Case, served: Served, part: Part) -> np.ndarray:
    """Outputs for all rows of a part, as the file that is shipped gives them; on all cores."""
    session = served.reopen(os.cpu_count() or 1)

    def call(inputs: dict[str, Tensor]) -> np.ndarray:
        return session(arrays(inputs))

    return answers(call, case.task, part, batch=16)


def time_all(
    case: Case, served: Iterable[Served], inputs: Mapping[str, Tensor], seconds: float
) -> dict[str, np.ndarray]:
    """Milliseconds of each call in each interleaved round, name -> (rounds,), with the threads asked for."""
    ready = arrays(inputs)

    def call(session: Session) -> Callable[[], object]:
        return lambda: session(ready)

    with pinned(case.request.threads):
        return sample_times({each.name: call(each.session) for each in served}, ROUNDS, 3, case.rng(8), seconds)


def variants(
    case: Case,
    wrapped: nn.Module,
    served: Sequence[Served],
    times: Mapping[str, np.ndarray],
    judged: Mapping[str, np.ndarray],
    part: Part,
) -> list[Variant]:
    """What was measured of each way to serve one network, as the report writes it."""
    with torch.no_grad():
        costs = count_costs(wrapped, case.example())
    found = []
    wanted = case.limit("memory") is not None
    for each in served:
        latency = summarise(times[each.name])
        own_file = each.artifact.runtime != "pytorch"  # PyTorch is not served from a file
        found.append(
            Variant(
                name=each.name,
                quality=case.task.quality(judged[each.name]) if each.name in judged else None,
                latency_ms=latency.median_ms,
                latency_interval=(latency.low_ms, latency.high_ms),
                runtime=each.artifact.runtime,
                precision=each.artifact.precision,
                parameters=costs.parameters,
                macs=costs.macs,
                bytes=each.bytes,
                peak_bytes=serving_peak(each.artifact, arrays(case.example()), threads=case.request.threads)
                if wanted and own_file
                else None,
                measured_on=part,
            )
        )
    return found
