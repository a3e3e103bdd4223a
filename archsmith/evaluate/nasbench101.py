"""NAS-Bench-101 (Ying et al. 2019): cells of up to seven nodes and nine edges, three operators, CIFAR-10.

Its file is a TFRecord: records of a length (8 bytes), its checksum (4), the data and their checksum (4). Each holds
JSON [hash, epochs, adjacency, operators, metrics], the metrics a protocol buffer in base 64. Neither needs TensorFlow.

A cell here has all 21 edges as choices, True or False, and five operators; nodes that lie on no way from input to
output are pruned, as there, and two cells of one graph are one row: each is found by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from archsmith.errors import BadInput
from archsmith.evaluate.tabular import Table
from archsmith.space import Architecture, Choice, Linear, Space

NODES, EDGES = 7, 9
CELLS, REPEATS = 423_624, 3  # cells of the whole file, and trainings of each for as many epochs
OPERATORS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")  # in the order that hashes are made with
PAIRS = tuple((a, b) for b in range(1, NODES) for a in range(b))
SPACE = Space(
    {f"{a}->{b}": Choice([False, True]) for a, b in PAIRS}
    | {f"node {n}": Choice(OPERATORS) for n in range(1, NODES - 1)},
    [Linear({f"{a}->{b}": 1.0 for a, b in PAIRS}, EDGES)],
)
DOUBLES = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
Graph = tuple[np.ndarray, list[str]]


def read_tfrecord(path: str | Path, cells: int | None = CELLS) -> Table:
    """The table of nasbench_full.tfrecord or nasbench_only108.tfrecord.

    Columns, minimised: `val_error` and `test_error` in per cent, the mean of three trainings, also "@EPOCHS";
    `parameters`; `training_seconds`. `cells`: how many a whole file has; None reads a part of one as well.

    Raises `BadInput` for a file that is truncated (between two records, too), damaged or something else, and for errors
    that are no numbers.
    """
    path = Path(path)
    rows: dict[str, int] = {}
    parameters: list[float] = []
    told: dict[int, dict[int, list[tuple[float, float, float]]]] = {}
    for record in _records(path):
        name, epochs, found = _read(record, path)
        row = rows.setdefault(name, len(rows))
        if row == len(parameters):
            parameters.append(float(found.trainable_parameters))
        last = found.evaluation_data[-1]
        told.setdefault(int(epochs), {}).setdefault(row, []).append(
            (last.validation_accuracy, last.test_accuracy, last.training_time)
        )
    if not rows:
        raise BadInput("a TFRecord of NAS-Bench-101 has cells", "none", str(path))
    if cells is not None:
        _check_whole(told, len(rows), cells, path)
    whole = max(told)
    columns = {"parameters": np.array(parameters)}
    for epochs in sorted(told):
        means = np.full((len(rows), 3), np.nan)
        for row, values in told[epochs].items():
            means[row] = np.mean(values, axis=0)
        at = "" if epochs == whole else f"@{epochs}"
        columns[f"val_error{at}"], columns[f"test_error{at}"] = 100 * (1 - means[:, 0]), 100 * (1 - means[:, 1])
        columns[f"training_seconds{at}"] = means[:, 2]
    errors = [column for name, column in columns.items() if name.startswith("val_error")]
    if bad := int((~np.isfinite(errors).all(axis=0)).sum()):
        law = "every cell has validation errors that are numbers"
        raise BadInput(law, f"{bad} of {len(rows)} cells without", str(path), "download it again")

    def row_of(architecture: Architecture) -> int:
        pruned = graph(architecture)
        if pruned is None:
            raise BadInput("a cell must lead from its input to its output", "none that does", "NAS-Bench-101")
        name = hash_of(*pruned)
        if name not in rows:
            raise BadInput("a cell must be in the file", name, str(path), "check that the file is whole")
        return rows[name]

    levels = tuple(float(epochs) for epochs in sorted(told))
    return Table("nb101", SPACE, columns, row_of, None, "val_error", ("test_error",), levels)


def _check_whole(told: Mapping[int, Mapping[int, Sequence[object]]], count: int, cells: int, path: Path) -> None:
    """Raise `BadInput` where a cell, or one of its trainings, is missing: a file cut between two records has no other
    mark."""
    law = f"a file of NAS-Bench-101 has {cells:,} cells, each trained {REPEATS} times for each number of epochs"
    if count != cells:
        raise BadInput(law, f"{count:,} cells", str(path), "download it again")
    for epochs, rows in sorted(told.items()):
        trainings = sum(len(each) for each in rows.values())
        if len(rows) != cells or any(len(each) != REPEATS for each in rows.values()):
            found = f"{trainings:,} trainings of {REPEATS * cells:,} for {epochs} epochs"
            raise BadInput(law, found, str(path), "download it again")


def graph(architecture: Architecture) -> Graph | None:
    """Adjacency (V, V) and operators of the nodes on a way from input to output; None where there is no way."""
    matrix = np.zeros((NODES, NODES), dtype=int)
    for a, b in PAIRS:
        matrix[a, b] = bool(architecture[f"{a}->{b}"])
    ahead, back = {0}, {NODES - 1}
    for node in range(1, NODES):
        if any(matrix[before, node] for before in ahead):
            ahead.add(node)
    for node in reversed(range(NODES - 1)):
        if any(matrix[node, after] for after in back):
            back.add(node)
    kept = sorted(ahead & back)
    if not {0, NODES - 1} <= set(kept):
        return None
    return matrix[np.ix_(kept, kept)], [str(architecture[f"node {node}"]) for node in kept[1:-1]]


def hash_of(matrix: np.ndarray, operators: Sequence[str]) -> str:
    """The hash that the file names a cell by: that of every graph which is the same but for the order of its nodes.

    Each node begins with its degrees and operator and takes in its neighbours V times (Ying et al. 2019, section 2.2).
    """
    labels = [-1, *(OPERATORS.index(name) for name in operators), -2]
    count = len(labels)
    told = [_md5(str((int(matrix[v].sum()), int(matrix[:, v].sum()), labels[v]))) for v in range(count)]
    for _ in range(count):
        told = [
            _md5("|".join(("".join(sorted(_at(told, matrix[:, v]))), "".join(sorted(_at(told, matrix[v]))), told[v])))
            for v in range(count)
        ]
    return _md5(str(sorted(told)))


def _at(told: Sequence[str], there: np.ndarray) -> list[str]:
    return [each for each, is_there in zip(told, there, strict=True) if is_there]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _records(path: Path) -> Iterator[bytes]:
    """The data of each record, whose checksums are those written beside them."""
    checksum = _checksum()
    with path.open("rb") as file:
        while head := file.read(12):
            if len(head) < 12:
                raise _damaged(path, "it ends within a record")
            length = struct.unpack("<Q", head[:8])[0]
            if checksum(head[:8]) != head[8:]:
                raise _damaged(path, "a length that its checksum contradicts")
            data, tail = file.read(length), file.read(4)
            if len(data) < length or len(tail) < 4:
                raise _damaged(path, "it ends within a record")
            if checksum(data) != tail:
                raise _damaged(path, "a record that its checksum contradicts")
            yield data


def _damaged(path: Path, how: str) -> BadInput:
    return BadInput("a TFRecord must be whole", how, str(path), "download it again")


def _checksum() -> Any:
    """Bytes -> the four bytes of their CRC-32C, turned and shifted as TFRecords have it."""
    try:
        import google_crc32c
    except ImportError as error:
        law = "NAS-Bench-101's file needs the package google-crc32c"
        raise BadInput(law, "none", "", "pip install 'archsmith[nas-bench]'") from error

    def masked(data: bytes) -> bytes:
        plain = google_crc32c.value(data)
        return struct.pack("<I", ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    return masked


def _read(record: bytes, path: Path) -> tuple[str, int, Any]:
    """Hash, epochs and metrics of one training."""
    try:
        name, epochs, _, _, metrics = json.loads(record)
        found = _metrics()()
        found.ParseFromString(base64.b64decode(metrics))
    except (ValueError, TypeError, DecodeError) as error:
        law = "a record of NAS-Bench-101 is JSON of five with metrics"
        raise BadInput(law, f"{type(error).__name__}: {str(error)[:100]}", str(path), "check the file") from error
    if not found.evaluation_data:
        raise BadInput("a training has evaluations", "none", str(path), "check the file")
    return str(name), int(epochs), found


@cache
def _metrics() -> Any:
    """The message class: evaluations (numbers by name, in the order of `DOUBLES`), parameters, time."""
    file = descriptor_pb2.FileDescriptorProto(name="archsmith_nasbench101.proto", package="archsmith.nasbench101")
    kind = descriptor_pb2.FieldDescriptorProto
    evaluation, metrics = file.message_type.add(name="Evaluation"), file.message_type.add(name="Metrics")
    for number, name in enumerate(DOUBLES, 1):
        evaluation.field.add(name=name, number=number, type=kind.TYPE_DOUBLE, label=kind.LABEL_OPTIONAL)
    evaluation.field.add(name="checkpoint_path", number=6, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    repeated = {"type": kind.TYPE_MESSAGE, "type_name": ".archsmith.nasbench101.Evaluation"}
    metrics.field.add(name="evaluation_data", number=1, label=kind.LABEL_REPEATED, **repeated)
    metrics.field.add(name="trainable_parameters", number=2, type=kind.TYPE_INT32, label=kind.LABEL_OPTIONAL)
    metrics.field.add(name="total_time", number=3, type=kind.TYPE_DOUBLE, label=kind.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("archsmith.nasbench101.Metrics"))
