"""What a search is asked to do, as plain data: `plan.json` holds it, and every process that joins reads it there."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from archsmith.errors import BadInput
from archsmith.jobs import judging, oneshot
from archsmith.jobs.bench import FIDELITIES, parsed
from archsmith.jobs.ground import Scratch
from archsmith.jobs.scratch import inputs_of
from archsmith.jobs.stages import digest
from archsmith.model.pretrained import read_json
from archsmith.space import JSON
from archsmith.study.mlflow_tracker import MLflow
from archsmith.study.storage import plain
from archsmith.study.tensorboard_tracker import TensorBoard
from archsmith.study.tracker import Tracker
from archsmith.study.wandb_tracker import WeightsAndBiases

TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Asked:
    """What a search was asked to do, as plain data; `plan.json` holds it under "search".

    Either `benchmark` (as `bench` takes it), or `space` (a JSON file) with `evaluator` ("package.module:name", which
    needs `allow_code`, and lies in `folder`) and its `objectives`, or `scratch`: a task, its data and a space of
    networks; `evaluator` is then the name of one of ours (judging.py). `past`: runs of the same space that are learnt
    from.
    """

    strategy: str = "portfolio"
    trials: int = 100
    benchmark: str | None = None
    space: str | None = None
    evaluator: str | None = None
    scratch: Scratch | None = None
    objectives: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    executor: str = "local"
    workers: int | None = None  # one here; on Ray as many as the cluster has CPUs
    address: str | None = None
    store: str | None = None
    minutes: float | None = None
    patience: int | None = None
    trial_minutes: float | None = None
    trial_gigabytes: float | None = None
    track: tuple[str, ...] = ()
    seed: int = 0
    allow_code: bool = False
    folder: str = ""

    def anywhere(self) -> Asked:
        """The same, whatever folder it is gone on with from."""
        name, sign, file = (self.benchmark or "").partition("=")
        store = plain(self.store or "")
        here = store and "://" not in store
        return replace(
            self,
            benchmark=f"{name}{sign}{Path(file).absolute()}" if file else self.benchmark,
            space=str(Path(self.space).absolute()) if self.space else None,
            store=str(Path(store).absolute()) if here else self.store,
            scratch=self.scratch.anywhere() if self.scratch else None,
            past=tuple(str(Path(each).absolute()) for each in self.past),
            folder=self.folder or str(Path.cwd()),
        )

    def evaluates(self) -> str:
        """What tells what its trials measure from what those of other searches do, wherever its files lie."""
        told: JSON = self.evaluator
        if self.benchmark is not None:
            name, _, file = self.benchmark.partition("=")
            told = [name, digest(Path(file)) if file else ""]
        if (scratch := self.scratch) is not None:
            name, options = parsed(self.strategy)
            weights = [name, options] if name in oneshot.METHODS else self.evaluator
            space = Path(scratch.space).name
            plain = replace(scratch, data="", validation=None, holdout=None, space=space, processes=1)
            told = [weights, sorted(inputs_of(scratch).values()), asdict(plain)]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Asked:
        """Raises `BadInput` for what is no request of this version."""
        try:
            listed: dict[str, Any] = {
                name: tuple(data[name]) for name in ("objectives", "past", "track") if name in data
            }
            if data.get("scratch"):
                listed["scratch"] = Scratch.from_json(data["scratch"])
            return cls(**{**data, **listed})
        except TypeError as error:
            law = "a run's plan must be of this version of archsmith"
            raise BadInput(law, str(error), "plan.json", "use the version that began the run") from error

    def check(self) -> None:
        """Raise `BadInput` for a request that contradicts itself or names what there is not."""
        own = None if self.scratch else self.evaluator
        given = sum(each is not None for each in (self.benchmark, own, self.scratch))
        if given != 1 or (self.space is None) != (own is None):
            law = "a search needs a benchmark, or a space with an evaluator or with a task and its data"
            raise BadInput(law, "", "", "give --benchmark, --space with --evaluator, or --space with --task and --data")
        if own and not self.allow_code:
            raise BadInput("an evaluator is code and runs only when allowed", own, "", "give --allow-code")
        if own and not self.objectives:
            raise BadInput("a search needs at least one objective", "none", "", "name the evaluator's with --objective")
        if len(set(self.objectives)) < len(self.objectives):
            raise BadInput("objectives differ", ", ".join(self.objectives), "--objective", "name each once")
        if self.executor not in EXECUTORS:
            law = "an executor is one that is known"
            raise BadInput(law, repr(self.executor), "--executor", f"there are: {', '.join(EXECUTORS)}")
        if self.address is not None and self.executor != "ray":
            raise BadInput("an address is of a Ray cluster", self.address, "--address", "give --executor ray")
        name, options = parsed(self.strategy)
        untrained = self.scratch is not None and judging.judge_of(self.evaluator).scores
        if untrained and name in FIDELITIES and options.get("resource", "epochs") != "resolution":
            law = "scores of untrained networks are the same after any epochs"
            raise BadInput(law, name, "--strategy", f"take {name}:resource=resolution, or another strategy")
        if self.past and name in oneshot.SETTLING:
            law = f"{name} begins with what it has settled on itself"
            raise BadInput(law, self.past[0], "--past", "leave it out, or take another strategy")
        unknown = [name for name in self.track if name not in TRACKERS]
        if unknown:
            law = "a tracker is one that is known"
            raise BadInput(law, repr(unknown[0]), "--track", f"there are: {', '.join(TRACKERS)}")
        needed = [*self.track, *(["ray"] if self.executor == "ray" else [])]
        absent = [name for name in needed if importlib.util.find_spec(name) is None]
        if absent:
            law = f"{absent[0]} needs its package"
            raise BadInput(law, "none", "", f"pip install 'archsmith[{absent[0]}]'")
        for option in ("minutes", "trial_minutes", "trial_gigabytes"):
            limit = getattr(self, option)
            if limit is not None and not 0 < limit < math.inf:
                law = "minutes and gigabytes are above 0, and not without end"
                raise BadInput(law, str(limit), f"--{option.replace('_', '-')}", "give more, or leave it out")
        if min(self.trials, self.workers or 1) < 1:
            raise BadInput("trials and workers are at least 1", f"{self.trials}, {self.workers}")


def read_asked(path: str | Path) -> Asked | None:
    """What the search of a run was asked to do; None where the run is none of a search."""
    plan = Path(path) / "plan.json"
    found = read_json(plan) if plan.is_file() else {}
    return Asked.from_json(found["search"]) if "search" in found else None


def store_of(run: str | Path, asked: Asked | None) -> str:
    """Where the study of a run is: a file or a URL."""
    return (asked.store if asked else None) or str(Path(run) / "study.db")
