"""The official files of NAS-Bench-201 (Dong & Yang 2020) and NATS-Bench (Dong et al. 2021), topology and size.

NAS-Bench-201-v1_1-096897.pth; NATS-tss-v1_0-3ffb9 and NATS-sss-v1_0-50262, each as one `.pickle.pbz2` or as the folder
`-simple` of one such file an architecture. In them an architecture has results by hyper-parameters ("12" epochs,
"200"), data set and seed of the training; a result has accuracies in per cent by set and epoch, "x-valid@11".

Accuracy on validation is that of networks trained without the validation pictures: for CIFAR-10 the data set
"cifar10-valid". Of several seeds the mean is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.errors import BadInput, first_line
from archsmith.evaluate.nasbench201 import NAMES, SPACE, paths
from archsmith.evaluate.plain_pickle import read_plain
from archsmith.evaluate.tabular import Features, Table, with_scores
from archsmith.space import Architecture, Choice, Space

# Data set -> where validation and test accuracies are: data set and set of pictures in the files.
WHERE = {
    "cifar10": (("cifar10-valid", "x-valid"), ("cifar10", "ori-test")),
    "cifar100": (("cifar100", "x-valid"), ("cifar100", "x-test")),
    "imagenet16-120": (("ImageNet16-120", "x-valid"), ("ImageNet16-120", "x-test")),
}
CHANNELS = tuple(range(8, 65, 8))
SIZES = Space({f"layer {layer}": Choice(CHANNELS) for layer in range(1, 6)})
LAW = "a file of NAS-Bench-201 or NATS-Bench has meta_archs and arch2infos"
Results = Mapping[str, Any]


def read_topology(path: str | Path, data: str = "cifar10") -> Table:
    """Cells of NAS-Bench-201, from its file or those of NATS-Bench's topology space.

    Columns as `read_npz` of NAS-Bench-201 gives them. Raises `BadInput` for what is not that, or lacks cells.
    """
    points = {_cell(Architecture(point)): Architecture(point) for point in SPACE.points()}
    return _table(Path(path), f"nb201-{data}", SPACE, points, data, (12, 200), paths)


def read_size(path: str | Path, data: str = "cifar10") -> Table:
    """Channels of five layers, 8 to 64 each, from the files of NATS-Bench's size space. Raises as `read_topology`."""
    points = {":".join(str(point[name]) for name in SIZES.choices): point for point in SIZES.points()}
    return _table(Path(path), f"nats-size-{data}", SIZES, points, data, (1, 12, 90), None)


def _table(
    path: Path,
    name: str,
    space: Space,
    points: Mapping[str, Architecture],
    data: str,
    epochs: tuple[int, ...],
    features: Features | None,
) -> Table:
    """The columns of a space whose points are written so in the files."""
    names = [f"{part}_error{'' if e == epochs[-1] else f'@{e}'}" for e in epochs for part in ("val", "test")]
    columns = {each: np.full(len(points), np.nan) for each in [*names, "parameters"]}
    rows = {point: row for row, point in enumerate(points.values())}
    for text, found in _records(path):
        if text not in points:
            raise BadInput("an architecture must be one of the space", repr(text), str(path), "check the version")
        row = rows[points[text]]
        for number in epochs:
            results = found.get(f"{number:02d}")
            if results is None:
                continue
            for part, (data_set, pictures) in zip(("val", "test"), WHERE[data], strict=True):
                column = columns[f"{part}_error{'' if number == epochs[-1] else f'@{number}'}"]
                column[row] = 100.0 - _accuracy(results, data_set, pictures, path)
            columns["parameters"][row] = _parameters(results, WHERE[data][1][0], path)
    missing = int(np.isnan(columns["val_error"]).sum())
    if missing:
        raise BadInput(f"{name} has results for {len(points):,} architectures", f"{missing:,} without", str(path))
    whole = {each: column for each, column in columns.items() if np.isfinite(column).all()}
    able = tuple(float(e) for e in epochs[:-1] if f"val_error@{e}" in whole)
    told = with_scores(features, rows.__getitem__, [whole["parameters"]]) if "parameters" in whole else features
    levels = (*able, float(epochs[-1]))
    return Table(name, space, whole, rows.__getitem__, told, "val_error", ("test_error",), levels)


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, Results]]]:
    """Each architecture as written, and its results by epochs ("12")."""
    if path.is_dir():
        meta = _checked(read_plain(path / "meta.pickle.pbz2"), path, ("meta_archs",))
        for number, text in enumerate(meta["meta_archs"]):
            names = (path / f"{number:06d}.pickle.pbz2", path / f"{number}.pickle.pbz2")
            file = next((each for each in names if each.is_file()), None)
            if file is None:
                raise BadInput("a folder of NATS-Bench has a file an architecture", "none", str(names[0]))
            yield str(text), _checked(read_plain(file), file, ())
        return
    if path.suffix == ".pth":
        import torch  # not needed for the other files, and slow to import where a process evaluates

        try:
            whole = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # torch has many words for what is wrong with a file
            law = "a benchmark file must be whole, and hold plain data"
            raise BadInput(law, first_line(error), str(path), "download it again") from error
    else:
        whole = read_plain(path)
    whole = _checked(whole, path, ("meta_archs", "arch2infos"))
    for number, text in enumerate(whole["meta_archs"]):
        infos = whole["arch2infos"].get(number, {})
        yield str(text), {{"less": "12", "full": "200"}.get(key, key): value for key, value in infos.items()}


def _checked(found: Any, path: Path, wanted: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(found, Mapping) or any(name not in found for name in wanted):
        raise BadInput(LAW, type(found).__name__, str(path), "check that it is the official file")
    return found


def _accuracy(results: Results, data_set: str, pictures: str, path: Path) -> float:
    """Per cent after the last epoch, the mean over seeds; NaN where it was not measured."""
    found = []
    for each in _trained(results, data_set, path):
        last = f"{pictures}@{int(each['epochs']) - 1}"
        if last in each["eval_acc1es"]:
            found.append(float(each["eval_acc1es"][last]))
    return float(np.mean(found)) if found else float("nan")


def _parameters(results: Results, data_set: str, path: Path) -> float:
    """The number of parameters: the files have millions."""
    found = [float(each["params"]) for each in _trained(results, data_set, path)]
    return 1e6 * found[-1] if found else float("nan")


def _trained(results: Results, data_set: str, path: Path) -> list[Results]:
    """The result of each seed."""
    try:
        seeds = results["dataset_seed"].get(data_set, [])
        return [results["all_results"][data_set, seed] for seed in seeds]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput("results are by data set and seed", f"no {error}", str(path), "check the version") from error


def _cell(architecture: Architecture) -> str:
    """As the files write a cell.

    >>> _cell(Architecture({name: "none" for name in NAMES}))
    '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|'
    """
    operators = iter(architecture[name] for name in NAMES)
    return "+".join("|" + "|".join(f"{next(operators)}~{start}" for start in range(end)) + "|" for end in (1, 2, 3))
