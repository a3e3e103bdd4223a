"""Fill a latency model: choose few networks of a space, build and export them, time them together, fit.

A build and export takes seconds, so probes are what to save. Five decide most: the full network, one layer alone, two
layers with few heads, with thin feed-forward, with both; the rest are small.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from archsmith.compress.quantise import quantise
from archsmith.cost import (
    Artifact,
    LatencyModel,
    Precision,
    Probe,
    Runtime,
    Session,
    arrays,
    fit_latency,
    sample_times,
    weight_bytes,
)
from archsmith.cost.measure import Clock
from archsmith.evaluate.blocks import blocks, factors_of, group_of, keeps_a_layer, pattern, skipped
from archsmith.model.anatomy import Anatomy
from archsmith.space import Space, Value

Build = Callable[[Mapping[str, Value]], nn.Module]
Values = Mapping[str, Value]
Variant = tuple[Runtime, Precision]
FEW = 2  # layers of a list that are kept where widths are asked about
TOGETHER_BYTES = 3 * 2**29  # weights of networks that are open at the same time


@dataclass(frozen=True)
class Bench:
    """How networks are served while they are timed.

    `example`: wrapped keyword inputs of the batch and length in question; `dynamic`: their open dimensions by name;
    `folder`: scratch space, left empty; `fixed`: compile for the example's shape. A timing ends after `repeats`
    rounds or `seconds`; at most `probes` networks are built to fill a latency model. `whole`: runtime -> the full
    network's fp32 file, where it has been exported before.
    """

    example: Mapping[str, Tensor]
    dynamic: Mapping[str, Mapping[int, str]]
    folder: Path
    threads: int = 1
    fixed: bool = False
    repeats: int = 40
    seconds: float = 20.0
    probes: int = 20
    whole: Mapping[str, Artifact] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(batch, length) of the example; 1 where it has no such dimension."""
        sizes = {"batch": 1, "length": 1}
        for name, dims in self.dynamic.items():
            sizes.update({label: self.example[name].shape[dim] for dim, label in dims.items()})
        return sizes["batch"], sizes["length"]


def fill_latency(
    build: Build, anatomy: Anatomy, space: Space, bench: Bench, variants: Sequence[Variant], rng: np.random.Generator
) -> dict[tuple[str, Precision], LatencyModel]:
    """One latency model for each (runtime, precision), from the same few networks.

    `build` makes the wrapped network of an architecture (its weights do not matter). Raises `BadInput` where a
    network cannot be exported.
    """
    probes_wanted = probe_architectures(anatomy, space, rng, bench.probes)
    timed = time_architectures(build, anatomy, probes_wanted, bench, variants, rng)
    batch, length = bench.shape
    models = {}
    for (runtime, precision), probes in timed.items():
        setting = {"runtime": runtime, "precision": precision, "batch": batch, "length": length}
        models[runtime, precision] = fit_latency(probes, setting | {"threads": bench.threads, "fixed": bench.fixed})
    return models


def predict(model: LatencyModel, anatomy: Anatomy, architecture: Values) -> float:
    """Milliseconds that an architecture should take."""
    kept = blocks(anatomy, architecture)
    return model.predict(kept.widths, kept.residual)


def probe_architectures(
    anatomy: Anatomy, space: Space, rng: np.random.Generator, most: int = 20
) -> list[dict[str, Value]]:
    """At most `most` networks to time, each as what differs from the full one; what teaches most comes first.

    The full network; each list of layers cut to its first; the least network, one layer with its blocks skipped,
    which shows the constant; a few layers with all groups of axes at their smallest, and with each group alone; some of
    these at a narrow residual width; one layer with one kind of block alone; all layers with nearly all blocks skipped;
    the least network with what is outside of layers at its smallest, which would drown in a larger one; the rest is
    drawn from the space, since what a search ends with is small and mixed. What a width costs is seen in two layers as
    in all, and those are exported in a third of the time.
    """
    low = {n: min(space.choices[n].values, key=float) for n in anatomy.axes if n in space.choices}
    groups, outside, inner, stream = _groups(anatomy, low)
    narrow = _narrow(anatomy, space, stream)
    lists = _branch_groups(anatomy, space, layers=True)
    few: dict[str, Value] = {name: False for names in lists for name in names[FEW:]}
    thin = few | {name: low[name] for names in groups for name in names}
    short = [_all_but_first(names) for names in lists]
    alone = [few | {name: low[name] for name in names} for names in groups] if len(groups) > 1 else []
    kinds = _branch_groups(anatomy, space, layers=False)
    one: dict[str, Value] = {name: False for cut in short for name in cut}
    lone = [one | dict.fromkeys(names, False) for names in kinds]
    least = {name: value for probe in [one, *lone] for name, value in probe.items()}
    bare = {name: value for names in kinds for name, value in _all_but_first(names).items()}
    probes: list[dict[str, Value]] = [{}, thin, *short, least, *alone]
    probes += [few | narrow, thin | narrow, least | narrow, *(probe | narrow for probe in short)]
    probes += [*lone, *(probe | narrow for probe in lone), bare]
    probes += [few | {name: low[name] for name in inner}, least | {name: low[name] for name in outside}]
    settled = _settled(anatomy, probes)[:most]
    # A bounded number of draws: a small space may not hold as many networks as are wanted.
    drawn = [dict(space.sample(rng)) for _ in range(4 * most if space.choices else 0)]
    return _settled(anatomy, [*settled, *(point for point in drawn if keeps_a_layer(anatomy, point))])[:most]


def _settled(anatomy: Anatomy, probes: Iterable[dict[str, Value]]) -> list[dict[str, Value]]:
    """Without the names that are gone with a skipped layer or branch, and each network once."""
    settled = {}
    for probe in probes:
        gone = skipped(anatomy, probe)
        layers = {b.layer or name for name, b in anatomy.branches.items() if b.kind == "layer" and name in gone}
        inside = {name for name, b in anatomy.branches.items() if b.kind != "layer" and b.layer in layers}
        values = {
            name: value
            for name, value in probe.items()
            if name not in inside and (name in anatomy.branches or name not in gone)
        }
        settled[tuple(sorted(values.items()))] = values
    return list(settled.values())


def _narrow(anatomy: Anatomy, space: Space, stream: Iterable[str]) -> dict[str, Value]:
    """Each residual axis at its smallest value that is at least a quarter of its size, else at its largest."""
    chosen: dict[str, Value] = {}
    for name in stream:
        values = sorted(space.choices[name].values, key=float)
        chosen[name] = next((v for v in values if float(v) >= anatomy.axes[name].size / 4), values[-1])
    return chosen


def _groups(anatomy: Anatomy, names: Iterable[str]) -> tuple[list[list[str]], list[str], list[str], list[str]]:
    """Axes alike within lists of layers; axes outside every list; widths of heads; residual widths."""
    factors = {name for row in factors_of(anatomy).values() for name in row}
    groups: dict[str, list[str]] = {}
    outside, inner, stream = [], [], []
    for name in names:
        axis = anatomy.axes[name]
        if axis.kind == "residual":
            stream.append(name)
        elif name in factors:
            inner.append(name)
        elif axis.layer is None:
            outside.append(name)
        else:
            groups.setdefault(group_of(anatomy, axis), []).append(name)
    return list(groups.values()), outside, inner, stream


def _branch_groups(anatomy: Anatomy, space: Space, layers: bool) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, branch in anatomy.branches.items():
        if name in space.choices and (branch.kind == "layer") == layers:
            groups.setdefault(pattern(name), []).append(name)
    return list(groups.values())


def _all_but_first(names: Sequence[str]) -> dict[str, Value]:
    return dict.fromkeys(names[1:] if len(names) > 1 else names, False)


def time_architectures(
    build: Build,
    anatomy: Anatomy,
    architectures: Sequence[Values],
    bench: Bench,
    variants: Sequence[Variant],
    rng: np.random.Generator,
) -> dict[tuple[str, Precision], list[Probe]]:
    """Build, export and time architectures on every variant, interleaved; probes in the order given.

    The first is the reference: it is open beside every batch of others, and all are scaled by their ratio to it, so
    that a machine that slows half-way does not bend the result.
    """
    runtimes = {runtime.name: runtime for runtime, _ in variants}
    kept = [blocks(anatomy, architecture) for architecture in architectures]
    probes: dict[tuple[str, Precision], list[Probe]] = {}
    for name, runtime in runtimes.items():
        precisions = [precision for other, precision in variants if other.name == name]
        ms = _time_on(runtime, precisions, build, architectures, bench, rng)
        for precision, times in ms.items():
            probes[name, precision] = [
                Probe(known.widths, time, known.residual) for known, time in zip(kept, times, strict=True)
            ]
    return probes


def _time_on(
    runtime: Runtime,
    precisions: Sequence[Precision],
    build: Build,
    architectures: Sequence[Values],
    bench: Bench,
    rng: np.random.Generator,
) -> dict[Precision, list[float]]:
    """Milliseconds on one runtime, precision -> one time an architecture: the geometric mean of the rounds.

    Where other work slows a call by a fifth and the next not at all, a median jumps between the two.
    """
    times: dict[Precision, list[float]] = {precision: [] for precision in precisions}
    # One thread's CPU time is its wall time without the other work of the machine.
    clock: Clock = "cpu" if bench.threads == 1 else "wall"
    bench.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bench.folder) as scratch:
        reference = build(architectures[0])
        first = bench.whole.get(runtime.name) if not architectures[0] else None
        if first is None:
            first = runtime.export(reference, bench.example, bench.dynamic, Path(scratch) / "reference")
        for batch in _batches(build, architectures[1:]):
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                files = [first] + [
                    runtime.export(module, bench.example, bench.dynamic, Path(folder) / str(number))
                    for number, module in enumerate(batch)
                ]
                for precision, known in times.items():
                    calls = _calls(runtime, files, precision, bench, Path(folder))
                    samples = sample_times(calls, bench.repeats, 2, rng, bench.seconds, clock)
                    ms = [float(np.exp(np.log(samples[str(index)]).mean())) for index in range(len(files))]
                    known += ms[:1] if not known else []
                    known += [time * known[0] / ms[0] for time in ms[1:]]
    return times


def _batches(build: Build, architectures: Sequence[Values]) -> Iterator[list[nn.Module]]:
    """Networks that are open at the same time: as many as weigh `TOGETHER_BYTES`; one empty batch for none."""
    batch: list[nn.Module] = []
    weight = 0
    for architecture in architectures:
        module = build(architecture)
        weight += weight_bytes(module)
        if batch and weight > TOGETHER_BYTES:
            yield batch
            batch, weight = [], weight_bytes(module)
        batch.append(module)
    yield batch


def _calls(
    runtime: Runtime, files: Sequence[Artifact], precision: Precision, bench: Bench, folder: Path
) -> dict[str, Callable[[], object]]:
    """A timed call for each exported network, in the precision asked for."""
    inputs = arrays(bench.example)

    def call(session: Session) -> Callable[[], object]:
        return lambda: session(inputs)

    calls = {}
    for number, file in enumerate(files):
        lowered = quantise(file, precision, [inputs], folder / f"{precision}-{number}")
        if bench.fixed:
            lowered = replace(lowered, fixed=bench.shape)
        calls[str(number)] = call(runtime.open(lowered, bench.threads))
    return calls
