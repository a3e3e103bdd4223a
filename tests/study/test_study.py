"""A study survives everything: failures, NaN, dying processes, kill -9, and being opened wrongly."""

import os
import signal
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from kill_study import OBJECTIVES, SPACE, Evaluate, search

from archsmith.errors import BadInput
from archsmith.search import random_search, regularised_evolution
from archsmith.space import Architecture, Choice, Space
from archsmith.study import Inline, LocalProcesses, Store, run
from archsmith.trial import Proposal, Trial

SMALL = Space({"a": Choice([1, 2, 3, 4, 5, 6]), "b": Choice([True, False])})
STORES = ["study.db", "study.journal"]


def outline(history: list[Trial]) -> list[object]:
    """All of a trial but how long it took."""
    return [(t.number, t.proposal, t.status, t.values, t.seed, t.error) for t in history]


@pytest.mark.parametrize("store", STORES)
def test_failed_and_nan_trials_are_kept_with_their_reason(tmp_path: Path, store: str) -> None:
    history = search(str(tmp_path / store), 40)
    assert [trial.number for trial in history] == list(range(40))
    for trial in history:
        architecture = trial.proposal.architecture
        if architecture["kind"] == "silu" and architecture["rate"] == 0.4:
            assert (trial.status, trial.error) == ("failed", "ValueError: silu at 0.4 breaks")
        elif architecture.get("heads") == 5:
            assert (trial.status, trial.error) == ("failed", "loss is nan")
            assert trial.values == {"latency_ms": 5.0, "extra": 1.0}
        else:
            assert trial.status == "complete" and set(trial.values) == {"loss", "latency_ms", "extra"}
    assert {trial.status for trial in history} == {"complete", "failed"}
    assert outline(Store.read(tmp_path / store).history()) == outline(history)


@pytest.mark.parametrize("store", STORES)
def test_a_study_stopped_and_resumed_is_the_study_run_at_once(tmp_path: Path, store: str) -> None:
    for trials in (3, 4, 17):
        resumed = search(str(tmp_path / store), trials)
    assert outline(resumed) == outline(search(str(tmp_path / f"other.{store}"), 17))


@pytest.mark.parametrize("store", STORES)
def test_a_killed_study_goes_on_with_the_proposals_it_would_have_made(tmp_path: Path, store: str) -> None:
    location, did = str(tmp_path / store), tmp_path / "did"
    did.touch()
    rng = np.random.default_rng(len(store))
    for _ in range(3):
        before = did.stat().st_size
        child = os.fork()  # forked after the imports, so that the kill falls into the study
        if child == 0:
            search(location, 20, 0.03, did)
            os._exit(0)
        while did.stat().st_size < before + 2:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0.0, 0.1)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    cut = Store.read(location).history()
    assert 6 <= len(cut) < 20 and [trial.status for trial in cut].count("running") <= 1
    assert outline(search(location, 20)) == outline(search(str(tmp_path / f"whole.{store}"), 20))


@pytest.mark.parametrize("less", [1, 10, 200])
def test_half_a_line_at_the_end_of_a_journal_is_dropped(tmp_path: Path, less: int) -> None:
    journal = tmp_path / "s.journal"
    search(str(journal), 5)
    os.truncate(journal, journal.stat().st_size - less)
    assert outline(search(str(journal), 9)) == outline(search(str(tmp_path / "other.journal"), 9))
    assert outline(Store.read(journal).history()) == outline(search(str(journal), 9))


def test_a_trial_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    mine = Store.open(tmp_path / "s.db", SMALL, ["loss"], 0)
    number = mine.begin(Proposal(Architecture({"a": 1, "b": True})))
    other = Store.open(tmp_path / "s.db", SMALL, ["loss"], 0)
    assert other.adopt_orphans(other.history()) == []
    third = Store.open(tmp_path / "s.db", SMALL, ["loss"], 0)
    assert [trial.number for trial in third.adopt_orphans(third.history(), alone=True)] == [0]
    assert mine.finish(number, {"loss": 1.0}, 0.1).status == "complete"
    assert other.history()[0].status == "complete"
    again = other.finish(number, {"loss": 2.0}, 0.1)  # as a worker would that was believed dead
    assert again.values == {"loss": 1.0}


def test_a_search_ends_where_the_space_ends(tmp_path: Path) -> None:
    seen: list[Trial] = []
    history = run(
        SMALL,
        random_search(),
        lambda proposal, rng: {"loss": float(proposal.architecture["a"])},
        trials=100,
        store=tmp_path / "s.journal",
        seed=0,
        objectives=["loss"],
        on_trial=seen.append,
    )
    assert len(history) == 12 == len({trial.proposal.architecture for trial in history})
    assert seen == history


class Deadly:
    """Kills the process it runs in for some architectures."""

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> Mapping[str, float]:
        if proposal.architecture["a"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": float(proposal.architecture["a"])}


def test_a_process_that_dies_is_one_failed_trial(tmp_path: Path) -> None:
    history = run(
        SMALL,
        random_search(),
        Deadly(),
        trials=12,
        store=tmp_path / "s.journal",
        seed=0,
        objectives=["loss"],
        executor=LocalProcesses(2),
    )
    assert len(history) == 12
    for trial in history:
        dead = trial.proposal.architecture["a"] == 3
        assert trial.status == ("failed" if dead else "complete")
        assert trial.error == ("its process died: killed, out of memory, or crashed, twice" if dead else "")


def threads_of(_: int) -> tuple[int, str | None]:
    return torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")


def test_processes_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for told, wanted in (("4", 2), ("1", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        executor = LocalProcesses(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "6")  # what a process would have of its own
        found = [executor.submit(threads_of, each).result() for each in range(2)]
        executor.close()
        assert found == [(wanted, str(wanted))] * 2


def test_processes_give_the_values_that_this_process_gives(tmp_path: Path) -> None:
    def values(executor: Inline | LocalProcesses, name: str) -> dict[int, object]:
        history = run(
            SPACE,
            random_search(),
            Evaluate(),
            trials=6,
            store=tmp_path / name,
            seed=1,
            objectives=OBJECTIVES,
            executor=executor,
        )
        return {trial.number: (trial.proposal.architecture, trial.values) for trial in history}

    assert values(Inline(), "a.journal") == values(LocalProcesses(1), "b.journal")


def test_ctrl_c_stops_a_study_that_then_goes_on(tmp_path: Path) -> None:
    def interrupted(proposal: Proposal, rng: np.random.Generator) -> Mapping[str, float]:
        if rng.bit_generator.state == np.random.default_rng([0, 5, 1]).bit_generator.state:
            raise KeyboardInterrupt
        return {"loss": float(proposal.architecture["a"])}

    evolution = regularised_evolution(["loss"], population=2)
    with pytest.raises(KeyboardInterrupt):
        run(SMALL, evolution, interrupted, trials=9, store=tmp_path / "s.db", seed=0, objectives=["loss"])
    record = Store.read(tmp_path / "s.db")
    assert [trial.status for trial in record.history()] == ["complete"] * 5 + ["running"]
    record.close()

    def plain(proposal: Proposal, rng: np.random.Generator) -> Mapping[str, float]:
        return {"loss": float(proposal.architecture["a"])}

    # The same process goes on, as in a notebook: nobody runs the sixth any more.
    went_on = run(SMALL, evolution, plain, trials=9, store=tmp_path / "s.db", seed=0, objectives=["loss"])
    whole = run(SMALL, evolution, plain, trials=9, store=tmp_path / "t.db", seed=0, objectives=["loss"])
    assert outline(went_on) == outline(whole)


def bad_file(path: Path) -> Path:
    path.write_text("this is no database")
    return path


def newer_schema(path: Path) -> Path:
    Store.open(path, SMALL, ["loss"], 0).close()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE study_user_attributes SET value_json = replace(value_json, '\"schema\": 1', '\"schema\": 9')"
        )
        assert connection.total_changes
    return path


def newer_tables(path: Path) -> Path:
    Store.open(path, SMALL, ["loss"], 0).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    return path


def existing(path: Path) -> Path:
    Store.open(path, SMALL, ["loss"], 0).close()
    return path


def evaluated(path: Path) -> Path:
    Store.open(path, SMALL, ["loss"], 0, "a").close()
    return path


def foreign(path: Path) -> Path:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="search")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    return path


def damaged(path: Path) -> Path:
    search(str(path), 4)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:5], lines[5][: len(lines[5]) // 2] + "\n", *lines[6:]]))
    return path


@pytest.mark.parametrize("content", ["notes without a newline at the end", "line one\nline two\n", "[1]\n"])
def test_a_journal_that_is_none_is_left_as_it_was(tmp_path: Path, content: str) -> None:
    (tmp_path / "diary.journal").write_text(content)
    with pytest.raises(BadInput, match="is what Optuna writes"):
        Store.open(tmp_path / "diary.journal", SMALL, ["loss"], 0)
    assert (tmp_path / "diary.journal").read_text() == content


def test_a_damaged_journal_is_said_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="readable and writable") as caught:
        Store.read(damaged(tmp_path / "s.journal"))
    assert "\n" not in str(caught.value)


def test_a_sqlite_url_is_the_file_that_it_names(tmp_path: Path) -> None:
    search(str(tmp_path / "s.db"), 4)
    with closing(Store.read(f"sqlite:///{tmp_path / 's.db'}")) as store:
        assert len(store.history()) == 4 and store.location == str(tmp_path / "s.db")


def test_a_trial_of_another_tool_has_its_objectives(tmp_path: Path) -> None:
    import optuna

    search(str(tmp_path / "s.db"), 4)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 's.db'}")
    params = study.trials[0].params
    study.add_trial(optuna.create_trial(params=params, distributions=study.trials[0].distributions, values=[0.1, 0.2]))
    with closing(Store.read(tmp_path / "s.db")) as store:
        assert store.history()[4].values == dict(zip(OBJECTIVES, [0.1, 0.2], strict=True))


BAD = {
    "another space": (existing, {"space": SPACE}, "the space it began with"),
    "other objectives": (existing, {"objectives": ["ms"]}, "the objectives it began with"),
    "another evaluator": (evaluated, {"evaluates": "b"}, "the evaluator it began with"),
    "another seed": (existing, {"seed": 3}, "the seed it began with"),
    "no objective": (existing, {"objectives": []}, "at least one objective"),
    "no database": (bad_file, {}, "file is not a database"),
    "a newer schema": (newer_schema, {}, "schema 1 or older"),
    "newer tables": (newer_tables, {}, "no longer compatible"),
    "another tool's study": (foreign, {}, "made by archsmith"),
    "a folder": (lambda path: path.mkdir() or path, {}, "readable and writable"),
    "inside a file": (lambda path: bad_file(path) / "s.db", {}, "readable and writable"),
    "no driver": (lambda path: "nosuch://host/db", {}, "readable and writable"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_store_that_cannot_be_used_says_why_on_one_line(tmp_path: Path, name: str) -> None:
    make, change, reason = BAD[name]
    location = make(tmp_path / "s.db")
    wanted = {"space": SMALL, "objectives": ["loss"], "seed": 0, **change}
    with pytest.raises(BadInput) as caught:
        Store.open(location, **wanted)
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert str(location) in str(caught.value) or "objective" in name


def test_there_must_be_a_study_to_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="must exist to be read"):
        Store.read(tmp_path / "nothing.db")
    with pytest.raises(BadInput, match="must exist to be read"):
        Store.read(f"sqlite:///{tmp_path / 'nothing.db'}")
    assert not list(tmp_path.iterdir())


def test_who_looks_makes_no_tables_that_another_process_is_making(tmp_path: Path) -> None:
    (tmp_path / "begun.db").touch()
    with pytest.raises(BadInput, match="must exist to be read"):
        Store.read(tmp_path / "begun.db")
    assert (tmp_path / "begun.db").stat().st_size == 0


def test_a_strategy_that_gives_too_much_is_refused(tmp_path: Path) -> None:
    many = [Proposal(point) for point in SMALL.points()]
    with pytest.raises(BadInput, match="as many proposals as asked for"):
        run(
            SMALL,
            lambda space, history, n, rng: many,
            lambda proposal, rng: {"loss": 0.0},
            trials=3,
            store=tmp_path / "s.journal",
            seed=0,
            objectives=["loss"],
        )


def test_optuna_reads_what_was_searched(tmp_path: Path) -> None:
    import optuna

    history = search(str(tmp_path / "s.db"), 12)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 's.db'}")
    assert [dict(trial.params) for trial in study.trials] == [dict(t.proposal.architecture) for t in history]
    assert study.metric_names == OBJECTIVES and len(study.best_trials) >= 1
