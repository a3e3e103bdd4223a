"""What is found from nothing beside networks that were designed by hand, each in the same minutes: what the comparisons
on data of different kinds share."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from record import Record

from archsmith.build import Declared
from archsmith.jobs.asked import Asked
from archsmith.jobs.baseline import baseline
from archsmith.jobs.ground import Scratch, grounded
from archsmith.jobs.scratch import exported_ms
from archsmith.jobs.search import follow, search
from archsmith.report.plain import write_text
from archsmith.report.result import Result, read_result
from archsmith.space import JSON, Architecture

RATES = (1e-3, 2e-3, 4e-3)
TURNS = 5  # in which latencies are taken
Rows = dict[str, dict[str, float]]  # contestant -> quality (points on the holdout), ms, seconds, macs


@dataclass(frozen=True)
class Contest:
    """A search, and what it is compared with: networks that may depend on what was found."""

    scratch: Scratch
    asked: Asked
    networks: Callable[[Result], Mapping[str, JSON]]
    more: Mapping[str, Callable[[Scratch], dict[str, float]]] = field(default_factory=dict)

    def held(self, work: Path) -> Rows:
        """What each reached; kept in a file, each as soon as it is there, so that what was stopped goes on."""
        seed, minutes = self.scratch.seed, self.asked.minutes
        file, out = work / f"seed{seed}.json", work / f"run{seed}"
        asked = json.loads(json.dumps(asdict(self.asked)))
        kept = json.loads(file.read_text()) if file.exists() else {"asked": asked, "reached": {}}
        if kept["asked"] != asked:
            raise SystemExit(f"{file} is of another contest; name another folder with --work")
        found: Rows = kept["reached"]

        def keep(name: str, **reached: float) -> None:
            found[name] = reached
            write_text(file, json.dumps(kept, indent=1))
            print(f"seed {seed}, {name}: {json.dumps(reached)}", flush=True)

        if "found" not in found:
            self.searched(out)
            result = read_result(out)
            assert result.holdout is not None
            plain = next(each for each in result.ladder if (each.runtime, each.precision) == ("onnxruntime", "fp32"))
            assert plain.latency_ms is not None and plain.macs is not None
            seconds = spent(out)
            keep("found", quality=result.holdout.original, ms=plain.latency_ms, seconds=seconds, macs=plain.macs)
        networks = self.networks(read_result(out))
        for name, network in networks.items():
            if name not in found:
                trained = work / f"{name}{seed}"
                each = baseline(out, network, learning_rates=RATES, minutes=minutes, out=trained)
                keep(name, quality=each.quality, ms=each.latency_ms, seconds=each.seconds, macs=each.macs)
        for name, reach in self.more.items():
            if name not in found:
                keep(name, **reach(self.scratch))
        for name, ms in self.latencies(out, networks).items():  # together: a machine is not as quick every hour
            keep(name, **{**found[name], "ms": ms})
        return found

    def latencies(self, out: Path, networks: Mapping[str, JSON]) -> dict[str, float]:
        """Milliseconds of a row for what was found and each of the networks, in fp32; the median of turns."""
        ground, blueprint = grounded(self.scratch)
        chosen = Architecture.from_json(json.loads((out / "stages" / "chosen.json").read_text())["result"])
        plans = {"found": ground.plan(blueprint, chosen)}
        plans |= {name: ground.plan(Declared({}, network), {}) for name, network in networks.items()}
        wrapped = {name: ground.task.wrap(ground.module(plan, 0)).eval() for name, plan in plans.items()}
        turns = [[exported_ms(self.scratch, ground.task, each) for each in wrapped.values()] for _ in range(TURNS)]
        return dict(zip(wrapped, np.median(turns, axis=0).tolist(), strict=True))

    def searched(self, out: Path) -> None:
        """Search, or go on with it where only the winner was left to train, whose steps are settled: a search that was
        killed before has lost count of its minutes, and begins anew."""
        if (out / "stages" / "length.json").exists():
            follow(out, self.asked.anywhere())
        else:
            shutil.rmtree(out, ignore_errors=True)
            search(out, self.asked)


def spent(run: Path) -> float:
    """Seconds from the beginning of a search to its network, whatever killed it while that was trained."""
    plan, chosen = run / "plan.json", run / "stages" / "chosen.json"
    searching = chosen.stat().st_mtime - plan.stat().st_mtime
    winner = json.loads((run / "stages" / "winner.json").read_text())
    return searching + float(winner["result"]["seconds"])


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
