"""Tables of architectures that were all measured once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from archsmith.errors import BadInput
from archsmith.evaluate.nasbench201 import EDGES, NAMES, OPERATORS, PATHS, SPACE, canonical, paths, read_npz, unique
from archsmith.evaluate.replay import replay
from archsmith.evaluate.tabular import Lookup, read_csv
from archsmith.search import random_search
from archsmith.space import Architecture
from archsmith.trial import Proposal

OTHERS = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]


def cell(*operators: str) -> Architecture:
    return Architecture(dict(zip(NAMES, operators, strict=True)))


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """A file of the same form, with made-up numbers: row r has an error of r / 1000."""
    rows = np.stack(np.meshgrid(*[np.arange(5, dtype=np.uint8)] * 6, indexing="ij"), -1).reshape(-1, 6)
    accuracy = 100 - np.arange(15625, dtype=np.float32) / 1000
    parts = {f"cifar10_{part}{epochs}": accuracy - (epochs == 12) for part in ("val", "test") for epochs in (12, 200)}
    path = tmp_path / "nb201.npz"
    np.savez(path, ops=rows, op_names=np.array(OTHERS), lat_phone=np.arange(15625, dtype=np.float32), **parts)
    return path


def test_a_cell_is_found_in_its_row(npz: Path) -> None:
    table = read_npz(npz)
    best, last = cell(*["none"] * 6), cell(*["avg_pool_3x3"] * 6)
    assert table.values(best, ("val_error",)) == {"val_error": pytest.approx(0.0, abs=1e-4)}
    evaluate = Lookup(table, ("val_error", "latency_ms_phone"))
    found = evaluate(Proposal(last), np.random.default_rng(0))
    assert found == {"val_error": pytest.approx(15.624, abs=1e-4), "latency_ms_phone": 15624.0}
    short = evaluate(Proposal(last, {"epochs": 12}), np.random.default_rng(0))
    assert short["val_error"] == pytest.approx(16.624, abs=1e-4) and short["latency_ms_phone"] == 15624.0


def test_cells_that_compute_the_same_share_their_string() -> None:
    assert len({canonical(point) for point in SPACE.points()}) == 6466


def test_paths_are_counted_by_what_lies_on_them() -> None:
    counts = dict(
        zip(
            PATHS,
            paths(cell("nor_conv_3x3", "none", "skip_connect", "skip_connect", "none", "nor_conv_1x1")),
            strict=True,
        )
    )
    assert counts.pop(()) == 1  # 0->3 by a skip
    assert counts.pop(("nor_conv_3x3", "nor_conv_1x1")) == 1  # 0->1->2->3
    assert not any(counts.values())
    assert sum(paths(cell(*["skip_connect"] * 6))) == 4 and not paths(cell(*["none"] * 6)).any()
    assert len(EDGES) == 6 and len(OPERATORS) == 5


@pytest.mark.parametrize("missing", ["ops", "cifar10_val200"])
def test_a_file_of_another_kind_is_refused(npz: Path, tmp_path: Path, missing: str) -> None:
    with np.load(npz) as file:
        kept = {name: file[name] for name in file.files if name != missing}
    np.savez(tmp_path / "other.npz", **kept)
    with pytest.raises(BadInput, match=f"no {missing}"):
        read_npz(tmp_path / "other.npz")


def test_a_file_cut_off_is_refused(npz: Path, tmp_path: Path) -> None:
    (tmp_path / "short.npz").write_bytes(npz.read_bytes()[:20_000])
    with pytest.raises(BadInput, match="whole"):
        read_npz(tmp_path / "short.npz")
    with pytest.raises(BadInput, match="whole"):
        read_npz(tmp_path / "absent.npz")


def test_any_csv_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("width,kind,error\n8,a,1.0\n4,a,2.0\n8,b,3.0\n4,b,4.5\n")
    table = read_csv(path, ("error",))
    assert table.space.choices["width"].values == (4, 8) and table.space.size == 4
    assert table.values(Architecture({"width": 4, "kind": "b"}), ("error",)) == {"error": 4.5}


def test_what_a_csv_has_no_row_for_is_a_trial_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("width,kind,error,ms\n8,a,1,5\n4,b,2,6\n")
    table = read_csv(path, ("error", "ms"))
    assert sorted(table.columns) == ["error", "ms"] and table.objective == "error"
    found = replay(table, random_search(), ["error"], budget=2, seed=0)
    assert sorted(found.values[:, 0]) == [1.0, 2.0]
    with pytest.raises(BadInput, match="must be in the table"):
        table.values(Architecture({"width": 4, "kind": "a"}), ("ms",))


def test_unique_cells_share_their_values_and_are_paid_for_once(npz: Path) -> None:
    table = unique(read_npz(npz))
    assert {len(column) for column in table.columns.values()} == {6466}
    a = cell("skip_connect", "none", "none", "nor_conv_3x3", "none", "none")
    b = cell("skip_connect", "none", "none", "none", "nor_conv_3x3", "none")
    assert table.values(a, ("val_error",)) == table.values(b, ("val_error",)) != read_npz(npz).values(b, ("val_error",))
    twice = iter([a, b, cell(*["none"] * 6)])
    found = replay(table, lambda *_: [Proposal(next(twice))], ["val_error"], budget=2, seed=0)
    assert found.cost.tolist() == [1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("width,error\n8,1\n8,2\n", "row 2"),
        ("a,b,error\n" + "".join(f"{i},{i},1\n" for i in range(11)), "11 of 121"),
        ("width,loss\n8,1\n", "width, loss"),
        ("width,error\n8,\n4,1\n", "finite"),
    ],
)
def test_a_csv_that_is_no_table_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        read_csv(path, ("error",))
