"""Official benchmark files: what other people's writers wrote is read as other people's readers read it."""

import base64
import bz2
import itertools
import json
import os
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from archsmith.errors import BadInput
from archsmith.evaluate.benchmark import Benchmark
from archsmith.evaluate.nasbench101 import OPERATORS, PAIRS, SPACE, graph, hash_of, read_tfrecord
from archsmith.evaluate.nats_bench import SIZES, read_size, read_topology
from archsmith.evaluate.plain_pickle import read_plain
from archsmith.evaluate.replay import replay
from archsmith.search import random_search
from archsmith.space import Architecture

CHAIN = {f"{a}->{b}": b == a + 1 for a, b in PAIRS} | {f"node {n}": OPERATORS[n % 3] for n in range(1, 6)}
SHORT = {**CHAIN, "0->6": True}
# Two orders of the same two branches: 0 -> 1 -> 6 and 0 -> 2 -> 6.
FORK = {f"{a}->{b}": (a, b) in {(0, 1), (0, 2), (1, 6), (2, 6)} for a, b in PAIRS} | {
    f"node {n}": OPERATORS[2] for n in range(1, 6)
}
ONE, OTHER = {**FORK, "node 1": OPERATORS[0]}, {**FORK, "node 2": OPERATORS[0]}


def wire(accuracies: tuple[float, float], seconds: float, parameters: int) -> bytes:
    """Metrics as a protocol buffer, byte by byte: two evaluations before the last, as the real ones have."""

    def evaluation(epoch: float, scale: float) -> bytes:
        numbers = (epoch, seconds * scale, 0.99 * scale, accuracies[0] * scale, accuracies[1] * scale)
        body = b"".join(bytes([number << 3 | 1]) + struct.pack("<d", value) for number, value in enumerate(numbers, 1))
        return b"\x0a" + bytes([len(body)]) + body

    def varint(value: int) -> bytes:
        low, rest = value & 127, value >> 7
        return bytes([low | 128]) + varint(rest) if rest else bytes([low])

    return evaluation(0, 0.1) + evaluation(54, 0.5) + evaluation(108, 1.0) + b"\x10" + varint(parameters)


def record(values: dict[str, Any], epochs: int, metrics: bytes) -> bytes:
    pruned = graph(Architecture(values))
    assert pruned is not None
    matrix, operators = pruned
    flat = "".join(str(entry) for entry in matrix.reshape(-1))
    told = [hash_of(matrix, operators), epochs, flat, ",".join(["input", *operators, "output"])]
    return json.dumps([*told, base64.b64encode(metrics).decode()]).encode()


@pytest.fixture
def tfrecord(tmp_path: Path) -> Path:
    """Three cells, by the writer of TensorBoard."""
    writing = pytest.importorskip("tensorboard.summary.writer.record_writer")
    pytest.importorskip("google_crc32c")
    path = tmp_path / "nasbench.tfrecord"
    with path.open("wb") as file:
        writer = writing.RecordWriter(file)
        for number, values in enumerate((CHAIN, SHORT, ONE)):
            for epochs in (4, 108):
                for repeat in range(3):
                    quality = (0.9 + 0.01 * number + 0.001 * repeat, 0.8 + 0.01 * number - 0.1 * (epochs == 4))
                    writer.write(record(values, epochs, wire(quality, 100.0 * (repeat + 1), 1000 + number)))
        writer.flush()
    return path


def test_nas_bench_101_is_read_without_tensorflow(tfrecord: Path) -> None:
    table = read_tfrecord(tfrecord, cells=3)
    names = ("val_error", "test_error", "test_error@4", "parameters", "training_seconds")
    assert table.values(Architecture(CHAIN), names) == pytest.approx(
        {"val_error": 9.9, "test_error": 20.0, "test_error@4": 30.0, "parameters": 1000, "training_seconds": 200.0}
    )
    assert table.values(Architecture(SHORT), ("test_error",)) == pytest.approx({"test_error": 19.0})
    assert table.epochs == (4.0, 108.0) and table.report == ("test_error",)


def test_cells_of_one_graph_are_one_and_what_leads_nowhere_is_pruned(tfrecord: Path) -> None:
    table = read_tfrecord(tfrecord, cells=3)
    assert table.row_of(Architecture(ONE)) == table.row_of(Architecture(OTHER))
    dangling = {**ONE, "0->3": True, "4->5": True, "node 4": OPERATORS[1]}
    assert table.row_of(Architecture(dangling)) == table.row_of(Architecture(ONE))
    assert table.row_of(Architecture(CHAIN)) != table.row_of(Architecture(SHORT))
    with pytest.raises(BadInput, match="must lead from its input"):
        table.row_of(Architecture({**CHAIN, "0->1": False}))
    with pytest.raises(BadInput, match="must be in the file"):
        table.row_of(Architecture({**CHAIN, "node 1": OPERATORS[0]}))


def test_hashes_are_those_of_the_file() -> None:
    # Of a cell of three nodes, by the definition of Ying et al. 2019 step by step.
    from hashlib import md5

    told = [md5(text.encode()).hexdigest() for text in ("(1, 0, -1)", "(1, 1, 2)", "(0, 1, -2)")]
    for _ in range(3):
        joined = (f"|{told[1]}|{told[0]}", f"{told[0]}|{told[2]}|{told[1]}", f"{told[1]}||{told[2]}")
        told = [md5(text.encode()).hexdigest() for text in joined]
    expected = md5(str(sorted(told)).encode()).hexdigest()
    assert hash_of(np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]]), [OPERATORS[2]]) == expected


def test_a_search_goes_on_behind_cells_that_are_none(tfrecord: Path) -> None:
    found = replay(read_tfrecord(tfrecord, cells=3), random_search(), ["val_error"], budget=3, seed=0)
    assert len(found.values) == 0 and found.seconds > 0  # three cells of half a billion are not met by chance


@pytest.mark.parametrize("how", ["truncated", "flipped", "a short head", "no record", "no metrics"])
def test_a_damaged_file_says_so(tfrecord: Path, how: str) -> None:
    content = bytearray(tfrecord.read_bytes())
    if how == "truncated":
        content = content[:-7]
    elif how == "flipped":
        content[200] ^= 1
    elif how == "a short head":
        content += b"\x01\x02"
    elif how == "no record":
        content = bytearray()
    else:
        writing = pytest.importorskip("tensorboard.summary.writer.record_writer")
        with tfrecord.open("wb") as file:
            writing.RecordWriter(file).write(b'["a", 108, "01", "input,output"]')
        content = bytearray(tfrecord.read_bytes())
    tfrecord.write_bytes(bytes(content))
    with pytest.raises(BadInput) as caught:
        read_tfrecord(tfrecord)
    assert "\n" not in str(caught.value) and str(tfrecord) in str(caught.value)


def frames(content: bytes) -> list[bytes]:
    """The records of a file with their lengths and checksums."""
    found, at = [], 0
    while at < len(content):
        end = at + 16 + struct.unpack("<Q", content[at : at + 8])[0]
        found.append(content[at:end])
        at = end
    return found


def test_a_file_that_ends_between_two_records_is_not_whole(tfrecord: Path) -> None:
    whole = frames(tfrecord.read_bytes())
    for left, said in ((17, "8 trainings of 9 for 108 epochs"), (12, "2 cells"), (6, "1 cells")):
        tfrecord.write_bytes(b"".join(whole[:left]))
        with pytest.raises(BadInput, match=said):
            read_tfrecord(tfrecord, cells=3)
        assert read_tfrecord(tfrecord, cells=None).epochs == (4.0, 108.0)
    tfrecord.write_bytes(b"".join(whole[:15]))
    with pytest.raises(BadInput, match="6 trainings of 9 for 108 epochs"):
        read_tfrecord(tfrecord, cells=3)
    with pytest.raises(BadInput, match="423,624 cells"):
        Benchmark(f"nb101={tfrecord}").table()


def test_an_error_that_is_no_number_is_refused(tfrecord: Path) -> None:
    writing = pytest.importorskip("tensorboard.summary.writer.record_writer")
    with tfrecord.open("ab") as file:
        writing.RecordWriter(file).write(record(CHAIN, 108, wire((float("nan"), 0.8), 1.0, 1000)))
    with pytest.raises(BadInput, match="1 of 3 cells without"):
        read_tfrecord(tfrecord, cells=None)


def test_nas_bench_101_has_its_space() -> None:
    rng = np.random.default_rng(0)
    assert SPACE.size == 2**21 * 3**5
    for _ in range(20):
        point = SPACE.sample(rng)
        assert sum(bool(point[f"{a}->{b}"]) for a, b in PAIRS) <= 9


def results(api: Any, texts: list[str], epochs: tuple[int, ...]) -> dict[str, Any]:
    """Every architecture with results, by the classes of the official package."""
    draw = random.Random(0)
    infos = {}
    for number, text in enumerate(texts):
        by_epochs = {}
        for count in epochs:
            arch = api.ArchResults(number, text)
            for data_set, sets in (
                ("cifar10-valid", ["x-valid"]),
                ("cifar10", ["ori-test"]),
                ("cifar100", ["x-valid", "x-test"]),
            ):
                seeds = [777, 888] if number % 2 else [777]
                arch.dataset_seed[data_set] = seeds
                for seed in seeds:
                    one = api.ResultsCount(data_set, None, {}, {}, 0.5 + number / 1e6, 10.0, {}, seed, count, None)
                    one.eval_names = sets
                    one.eval_acc1es = {f"{each}@{count - 1}": draw.uniform(10, 90) for each in sets}
                    one.eval_losses = {f"{each}@{count - 1}": 0.0 for each in sets}
                    arch.all_results[data_set, seed] = one
            by_epochs[f"{count:02d}"] = arch.state_dict()
        infos[number] = by_epochs
    return {"meta_archs": texts, "arch2infos": infos, "evaluated_indexes": list(range(len(texts)))}


def official(folder: Path, kind: str) -> tuple[Any, dict[str, Any], Path]:
    """The official reader, what it was given, and the file that its package wrote."""
    api = pytest.importorskip("nats_bench.api_utils")
    if kind == "size":
        texts = [":".join(str(point[name]) for name in SIZES.choices) for point in SIZES.points()]
    else:
        operators = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
        cells = itertools.product(operators, repeat=6)
        texts = [f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|" for a, b, c, d, e, f in cells]
    random.Random(1).shuffle(texts)
    made = results(api, texts, (12, 90) if kind == "size" else (12, 200))
    api.pickle_save(made, str(folder / "bench.pickle"), ".pbz2")
    module = pytest.importorskip(f"nats_bench.api_{kind}")
    reader = (module.NATSsize if kind == "size" else module.NATStopology)(made, verbose=False)
    return reader, made, folder / "bench.pickle.pbz2"


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any], Path]:
    return official(tmp_path_factory.mktemp("topology"), "topology")


def test_nats_bench_topology_is_read_as_its_own_reader_reads_it(topology: tuple[Any, dict[str, Any], Path]) -> None:
    reader, made, path = topology
    for data, valid in (("cifar10", "cifar10-valid"), ("cifar100", "cifar100")):
        table = read_topology(path, data)
        assert table.epochs == (12.0, 200.0)
        for number in range(0, len(made["meta_archs"]), 997):
            text = made["meta_archs"][number]
            operators = [part.split("~")[0] for group in text.split("+") for part in group.strip("|").split("|")]
            point = Architecture(dict(zip(table.space.choices, operators, strict=True)))
            found = table.values(point, ("val_error", "test_error", "val_error@12", "parameters"))
            test = "ori-test" if data == "cifar10" else "x-test"
            metrics = {
                "val_error": reader.arch2infos_dict[number]["200"].get_metrics(valid, "x-valid")["accuracy"],
                "test_error": reader.arch2infos_dict[number]["200"].get_metrics(data, test)["accuracy"],
                "val_error@12": reader.arch2infos_dict[number]["12"].get_metrics(valid, "x-valid")["accuracy"],
            }
            assert {name: 100 - found[name] for name in metrics} == pytest.approx(metrics)
            assert found["parameters"] == pytest.approx(1e6 * reader.get_cost_info(number, data)["params"])
    with pytest.raises(BadInput, match=r"15,625 architectures; found 15,625 without"):
        read_topology(path, "imagenet16-120")


def test_nas_bench_201_and_the_folder_of_files_say_the_same(
    topology: tuple[Any, dict[str, Any], Path], tmp_path: Path
) -> None:
    _, made, path = topology
    names = {"12": "less", "200": "full"}
    infos = {n: {names[key]: value for key, value in each.items()} for n, each in made["arch2infos"].items()}
    torch.save({**made, "arch2infos": infos}, tmp_path / "bench.pth")
    folder = tmp_path / "NATS-tss-simple"
    folder.mkdir()
    (folder / "meta.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps({"meta_archs": made["meta_archs"][:3]}), 1))
    for number in range(3):
        content = bz2.compress(pickle.dumps(made["arch2infos"][number], protocol=4), 1)
        (folder / f"{number:06d}.pickle.pbz2").write_bytes(content)
    whole, other = read_topology(path), read_topology(tmp_path / "bench.pth")
    assert all(np.array_equal(whole.columns[name], other.columns[name]) for name in whole.columns)
    with pytest.raises(BadInput, match="found 15,622 without"):
        read_topology(folder)
    (folder / "000002.pickle.pbz2").unlink()
    with pytest.raises(BadInput, match="a file an architecture"):
        read_topology(folder)


@pytest.mark.slow
def test_nats_bench_size_is_read_as_its_own_reader_reads_it(tmp_path: Path) -> None:
    reader, made, path = official(tmp_path, "size")
    table = read_size(path, "cifar100")
    assert table.epochs == (12.0, 90.0) and table.space.size == 32768
    for number in range(0, 32768, 2999):
        point = Architecture(dict(zip(SIZES.choices, map(int, made["meta_archs"][number].split(":")), strict=True)))
        expected = reader.arch2infos_dict[number]["90"].get_metrics("cifar100", "x-test")["accuracy"]
        assert 100 - table.values(point, ("test_error",))["test_error"] == pytest.approx(expected)
    with pytest.raises(BadInput, match="must be one of the space"):
        read_topology(path)


class Deadly:
    """Runs a command when it is unpickled, as anything in a pickle can."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps({"a": 1.5, "evil": Deadly(f"touch {mark}"), "n": np.float64(2.5)})))
    found = read_plain(path)
    assert found["a"] == 1.5 and found["n"] == 2.5 and not mark.exists()
    assert type(found["evil"]).__name__ == "Nothing"
    pickle.loads(bz2.decompress(path.read_bytes()))  # noqa: S301, the mark would be there
    assert mark.exists()


@pytest.mark.parametrize("content", [b"", b"no bz2", bz2.compress(b"no pickle"), bz2.compress(pickle.dumps([1, 2]))])
def test_what_is_no_benchmark_says_so_on_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bench.pickle.pbz2"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_topology(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    (tmp_path / "bench.pth").write_bytes(content)
    with pytest.raises(BadInput):
        read_topology(tmp_path / "bench.pth")
