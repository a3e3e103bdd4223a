"""What is found from nothing beside networks that were designed by hand, each in the same minutes: what the comparisons
on data of different kinds share."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from record import Record, machine

from archsmith.build import Declared
from archsmith.jobs.asked import Asked
from archsmith.jobs.baseline import baseline, steps_in
from archsmith.jobs.ground import Scratch, grounded
from archsmith.jobs.scratch import exported_ms, inputs_of
from archsmith.jobs.search import follow, search
from archsmith.model.pretrained import read_json
from archsmith.report.plain import write_text
from archsmith.report.result import read_result
from archsmith.space import JSON, Architecture
from archsmith.study import RunDirectory

RATES = (1e-3, 2e-3, 4e-3)
TURNS = 5  # in which latencies are taken
STAGES = ("inputs", "pace", "chosen", "length")  # of a search, that networks beside it go by
Rows = dict[str, dict[str, float]]  # contestant -> quality (points on the holdout), ms, seconds, macs


@dataclass(frozen=True)
class Held:
    """A file of what is known of a contest."""

    file: Path
    asked: JSON
    reached: Rows = field(default_factory=dict)
    stages: Mapping[str, JSON] = field(default_factory=dict)  # of the search, as they were told
    rates: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)  # of a network -> learning rate -> it
    steps: dict[str, int] = field(default_factory=dict)  # of a network at each rate, by its pace where the search was
    machines: dict[str, JSON] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path, asked: JSON) -> Held:
        """A new one where there is no file."""
        content = json.loads(file.read_text()) if file.exists() else {"asked": asked}
        if content["asked"] != asked:
            raise SystemExit(f"{file} is of another contest; name another folder with --kept")
        return cls(file, **content)

    def keep(self, name: str, **reached: float) -> None:
        """What one has reached."""
        self.reached[name] = reached
        self.write(name, reached)

    def write(self, name: str, told: Mapping[str, float]) -> None:
        """All so far, and the machine that the newest of it was reached on."""
        self.machines[name] = machine()
        content = {key: value for key, value in vars(self).items() if key != "file"}
        write_text(self.file, json.dumps(content, indent=1) + "\n")
        print(f"{self.file.stem}, {name}: {json.dumps(told)}", flush=True)


@dataclass(frozen=True)
class Contest:
    """A search, and what it is compared with: networks that may depend on how many multiply-accumulates were found."""

    scratch: Scratch
    asked: Asked
    networks: Callable[[float], Mapping[str, JSON]]
    more: Mapping[str, Callable[[Scratch], dict[str, float]]] = field(default_factory=dict)

    def held(self, work: Path, kept: Path) -> Rows:
        """What each reached. `kept` holds it, each as soon as it is there and with the machine that it was reached on,
        and what networks are trained on beside a search: where the rest of it, in `work`, is lost, or on another
        machine, what was stopped goes on with the next of them. Their steps are settled where the search was, at once:
        another machine may be quicker."""
        seed = self.scratch.seed
        file, out = kept / f"seed{seed}.json", work / f"run{seed}"
        held = Held.read(file, self.told())
        found = held.reached
        if "found" not in found:
            self.searched(out)
            plain = next(
                each for each in read_result(out).ladder if (each.runtime, each.precision) == ("onnxruntime", "fp32")
            )
            holdout = read_result(out).holdout
            assert holdout is not None and plain.latency_ms is not None and plain.macs is not None
            stages = {name: read_json(stage_of(out, name))["result"] for name in STAGES}
            stages["inputs"] = {Path(path).name: digest for path, digest in stages["inputs"].items()}
            held = replace(held, stages=stages)
            seconds = spent(out)
            held.keep("found", quality=holdout.original, ms=plain.latency_ms, seconds=seconds, macs=plain.macs)
        elif not out.exists():
            self.revive(out, held.stages)
        networks = self.networks(found["found"]["macs"])
        for name, network in networks.items():
            if self.asked.minutes and name not in found and name not in held.steps:
                held.steps[name] = steps_in(out, network, self.asked.minutes / len(RATES))
                held.write(f"{name}'s steps", {"steps": held.steps[name]})
        for name, network in networks.items():
            if name not in found:
                held.keep(name, **self.trained(held, name, network, work))
        for name, reach in self.more.items():
            if name not in found:
                held.keep(name, **reach(self.scratch))
        together = self.latencies(out, networks)  # a machine is not as quick every hour
        return {name: {**row, "ms": together.get(name, row["ms"])} for name, row in found.items()}

    def trained(self, held: Held, name: str, network: JSON, work: Path) -> dict[str, float]:
        """What a network reaches: at each rate it is trained for a share of the minutes, and that which is best on
        validation counts. What the others reach on the holdout is kept, not asked."""
        rates, seed, steps = held.rates.setdefault(name, {}), self.scratch.seed, held.steps.get(name)
        for rate in RATES:
            if (word := f"{rate:g}") not in rates:
                out = work / f"{name}{seed}" / word
                one = baseline(work / f"run{seed}", network, learning_rates=(rate,), steps=steps, out=out)
                rates[word] = asdict(one)
                held.write(f"{name} at {word}", rates[word])
        best = max(rates.values(), key=lambda each: each["validation"])
        seconds = sum(each["seconds"] for each in rates.values())
        return {"quality": best["quality"], "ms": best["latency_ms"], "seconds": seconds, "macs": best["macs"]}

    def told(self) -> JSON:
        """What it is, wherever its data lie."""
        data, holdout = (path and Path(path).name for path in (self.scratch.data, self.scratch.holdout))
        scratch = replace(self.scratch, data=data or "", holdout=holdout)
        return json.loads(json.dumps(asdict(replace(self.asked, scratch=scratch))))

    def revive(self, out: Path, stages: Mapping[str, JSON]) -> None:
        """The folder of a search that is lost, as far as networks are trained beside what it found."""
        now = inputs_of(self.scratch)
        if sorted(now.values()) != sorted(stages["inputs"].values()):
            raise SystemExit(f"{self.scratch.data} has changed since the search of seed {self.scratch.seed}")
        with RunDirectory.create(out, {"search": asdict(self.asked.anywhere())}) as run:
            for name, result in {**stages, "inputs": dict(now)}.items():
                run.stage(name, partial(_known, result))

    def latencies(self, out: Path, networks: Mapping[str, JSON]) -> dict[str, float]:
        """Milliseconds of a row for what was found and each of the networks, in fp32; the median of turns."""
        ground, blueprint = grounded(self.scratch)
        chosen = Architecture.from_json(read_json(stage_of(out, "chosen"))["result"])
        plans = {"found": ground.plan(blueprint, chosen)}
        plans |= {name: ground.plan(Declared({}, network), {}) for name, network in networks.items()}
        wrapped = {name: ground.task.wrap(ground.module(plan, 0)).eval() for name, plan in plans.items()}
        turns = [[exported_ms(self.scratch, ground.task, each) for each in wrapped.values()] for _ in range(TURNS)]
        return dict(zip(wrapped, np.median(turns, axis=0).tolist(), strict=True))

    def searched(self, out: Path) -> None:
        """Search, or go on with it where only the winner was left to train, whose steps are settled: a search that was
        killed before has lost count of its minutes, and begins anew."""
        if stage_of(out, "length").exists():
            follow(out, self.asked.anywhere())
        else:
            shutil.rmtree(out, ignore_errors=True)
            search(out, self.asked)


def _known(result: JSON, folder: Path) -> JSON:
    return result


def stage_of(run: Path, name: str) -> Path:
    """The file of what a stage came to."""
    return run / "stages" / f"{name}.json"


def spent(run: Path) -> float:
    """Seconds from the beginning of a search to its network, whatever killed it while that was trained."""
    searching = stage_of(run, "chosen").stat().st_mtime - (run / "plan.json").stat().st_mtime
    return searching + float(read_json(stage_of(run, "winner"))["result"]["seconds"])


def tell(record: Record, rows: list[Rows]) -> tuple[float, float]:
    """Means over seeds; by how many points what was found is above the best of the others, and how many times as fast
    it is."""
    means = {name: {key: float(np.mean([row[name][key] for row in rows])) for key in rows[0][name]} for name in rows[0]}
    for name, mean in means.items():
        record.say(f"{name}: points on the holdout", mean["quality"])
        record.say(f"{name}: each seed", ", ".join(f"{row[name]['quality']:.2f}" for row in rows))
        record.say(f"{name}: latency", mean["ms"], "ms")
        record.say(f"{name}: search and training", mean["seconds"] / 60, "minutes")
    best = max((name for name in means if name != "found"), key=lambda name: means[name]["quality"])
    record.say("the best of the others", best)
    above = means["found"]["quality"] - means[best]["quality"]
    return above, means[best]["ms"] / means["found"]["ms"]


def example(name: str) -> Any:
    """A script of `examples/` as a module."""
    file = Path(__file__).resolve().parent.parent / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
