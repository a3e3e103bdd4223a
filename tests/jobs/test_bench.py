"""Strategies compared on a table: what is written, and what is refused before anything runs."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from archsmith.cli import app
from archsmith.errors import BadInput
from archsmith.evaluate.replay import Replay, hypervolume, replay
from archsmith.evaluate.tabular import read_csv
from archsmith.jobs.bench import bench, made
from archsmith.report.compared import Curves, mean_ranks
from archsmith.report.compared import table as table_of
from archsmith.search import asha, random_search
from archsmith.trial import Strategy


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three choices of five; the error is their sum."""
    rows = [f"{a},{b},{c},{a + b + c}" for a in range(5) for b in range(5) for c in range(5)]
    path = tmp_path / "sums.csv"
    path.write_text("\n".join(["a,b,c,error", *rows]) + "\n")
    return path


def test_it_leaves_curves_a_table_and_a_page(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["bench", "--benchmark", f"sums:error={table}", "--strategy", "random", "--strategy", "evolution"]
    result = CliRunner().invoke(app, [*arguments, "--budget", "30", "--seeds", "4", "--out", str(out)])
    assert result.exit_code == 0, result.output
    with (out / "curves.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4 * 30
    last = {(r["strategy"], r["seed"]): float(r["regret"]) for r in rows if r["evaluations"] == "30"}
    assert all(regret >= 0 for regret in last.values())
    lines = (out / "table.md").read_text(encoding="utf-8").splitlines()
    mean = np.mean([regret for (name, _), regret in last.items() if name == "evolution"])
    assert f"{mean:.3f}" in next(line for line in lines if line.startswith("| evolution"))
    page = (out / "bench.html").read_text(encoding="utf-8")
    assert "random" in page and "plotly" in page.lower() and "http" not in page.split("<script>")[0]
    assert result.output.count("| random |") == 1


def test_strategies_on_several_tables_are_ranked_together(table: Path, tmp_path: Path) -> None:
    done: list[str] = []
    words = [f"{name}:error={table}" for name in ("one", "two")]
    bench(words, ["random", "local"], out=tmp_path / "out", budget=20, seeds=2, on_done=done.append)
    assert len(done) == 4
    lines = (tmp_path / "out" / "table.md").read_text(encoding="utf-8").splitlines()
    assert "one:error: regret" in lines[0] and "two:error: regret" in lines[0]
    assert [line.split()[1] for line in lines[2:4]] != ["random", "random"] and "–" not in "".join(lines[2:4])
    four = [curve(strategy, name) for name in ("one", "two") for strategy in ("a", "b")]
    assert [row[0] for row in table_of(four[:3])[1:]] == ["a", "b"] and table_of(four[:3])[2][3] == "–"
    assert mean_ranks(four[:3]) == {"a": 1.0, "b": 2.0}  # by the first alone


def curve(strategy: str, benchmark: str) -> Curves:
    lost = np.full((2, 5), 1.0 if (strategy, benchmark) != ("b", "one") else 2.0)
    return Curves(benchmark, strategy, "error", lost, np.full((2, 5), np.nan), 0.1)


def test_several_objectives_are_compared_by_hypervolume(tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    rows = [f"{a},{b},{a + b},{(4 - a) ** 2 + b}" for a in range(5) for b in range(5)]
    path.write_text("\n".join(["a,b,error,ms", *rows]) + "\n")
    arguments = [
        "bench",
        "--benchmark",
        f"both:error,ms={path}",
        "--strategy",
        "random",
        "--budget",
        "25",
        "--seeds",
        "2",
    ]
    named = ["--objective", "error", "--objective", "ms", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, *named])
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "curves.csv").open(encoding="utf-8") as file:
        missed = [float(row["regret"]) for row in csv.DictReader(file) if row["seed"] == "0"]
    assert missed[0] > missed[-1] == 0.0 and missed == sorted(missed, reverse=True)
    assert "hypervolume missed" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    wrong = CliRunner().invoke(app, [*arguments, "--objective", "grams", "--out", str(tmp_path / "other")])
    assert wrong.exit_code == 2 and "error, ms" in wrong.output


def test_a_front_is_the_same_however_its_points_are_ordered() -> None:
    points = np.random.default_rng(0).random((60, 3))
    corners = np.stack(np.meshgrid(*[np.linspace(0, 1, 61)[:-1] + 1 / 120] * 3), axis=-1).reshape(-1, 3)
    counted = np.mean([np.any(np.all(points <= corner, axis=1)) for corner in corners[::7]])
    assert hypervolume(points, (1.0, 1.0, 1.0)) == pytest.approx(counted, abs=0.02)
    assert hypervolume(points[::-1], (1.0, 1.0, 1.0)) == pytest.approx(hypervolume(points, (1.0, 1.0, 1.0)))


@pytest.mark.parametrize(
    ("benchmark", "strategy", "said"),
    [
        ("sums:error=absent.csv", "random", "must exist"),
        ("sums=FILE", "random", "NAME=FILE"),
        ("sums:loss=FILE", "random", "a, b, c, error"),
        ("sums:error=FILE", "astrology", "There are: random"),
        ("sums:error=FILE", "asha", "cheap values"),
        ("sums:error=FILE", "optuna:magic", "There are: tpe"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(
    table: Path, tmp_path: Path, benchmark: str, strategy: str, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        bench([benchmark.replace("FILE", str(table))], [strategy], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_left_alone(table: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="empty folder"):
        bench([f"sums:error={table}"], ["random"], out=tmp_path)


@pytest.mark.parametrize("inside", ["taken", "taken/below"])
def test_a_folder_that_cannot_be_made_is_said(table: Path, tmp_path: Path, inside: str) -> None:
    (tmp_path / "taken").write_text("a file")
    arguments = ["bench", "--benchmark", f"sums:error={table}", "--strategy", "random", "--budget", "2", "--seeds", "1"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / inside)])
    assert result.exit_code == 2 and result.output.count("\n") == 1 and "name another" in result.output.lower()


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("asha:resource=x", "the resource of a table is epochs; found x"),
        ("bohb:levels=[1]", "the table's last"),
        ("hyperband:levels=[2,10]", "levels are epochs of the table; found 2"),
        ("asha:levels=10", "a list of epochs"),
        ("asha:levels=[]", "a list of epochs"),
    ],
)
def test_levels_are_epochs_of_the_table_up_to_its_last(table: Path, strategy: str, said: str) -> None:
    read = replace(read_csv(table, ("error",)), epochs=(1.0, 5.0, 10.0))
    with pytest.raises(BadInput, match=said):
        made(strategy, read, 20)
    for able in ("asha", "asha:levels=[1,10]", "bohb:levels=[10],resource=epochs"):
        made(able, read, 20)


def run(table: Path, strategy: Strategy, budget: float, epochs: tuple[float, ...] = ()) -> Replay:
    read = replace(read_csv(table, ("error",)), epochs=epochs)
    return replay(read, strategy, ["error"], budget=budget, seed=0, report=["error"])


def test_a_search_on_a_table_stops_at_its_budget(table: Path) -> None:
    found = run(table, random_search(), 20)
    assert found.cost.tolist() == list(range(1, 21)) and found.whole.all()
    np.testing.assert_array_equal(found.values, found.reported)
    best = found.best_at([0.5, 1, 20])
    assert best[:2] == [None, 0] and found.values[best[2], 0] == found.values.min()
    assert len(run(table, random_search(), 1000).values) == 125  # the whole space and no more


def test_a_value_that_is_no_number_is_never_the_best(table: Path) -> None:
    found = run(table, random_search(), 9)
    found.values[2] = np.nan
    assert found.best_at([9]) == [int(np.nanargmin(found.values[:, 0]))]
    found.values[:] = np.nan
    assert found.best_at([9]) == [None]


def test_cheap_evaluations_count_for_their_share(table: Path) -> None:
    found = run(table, asha(["error"], levels=(1, 10)), 5, epochs=(1, 10))
    assert found.cost[-1] <= 5 + 1e-9 and len(found.values) > 10
    assert found.cost[0] == pytest.approx(0.1) and not found.whole[0]
    best = found.best_at([5])[0]
    assert best is not None and found.whole[best]


def test_ranks_are_shared_by_ties() -> None:
    def curves(name: str, regret: float) -> Curves:
        return Curves("t", name, "error", np.full((2, 3), regret), np.full((2, 3), np.nan), 0.0)

    assert mean_ranks([curves("a", 1.0), curves("b", 0.0), curves("c", 1.0)]) == {"a": 2.5, "b": 1.0, "c": 2.5}
