"""Search from nothing: data and a space go in, a network that ships comes out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stripes import SPACE, asked, call

from archsmith.errors import BadInput
from archsmith.evaluate.untrained import REFERENCES, share_beaten
from archsmith.jobs.baseline import baseline
from archsmith.jobs.ground import Scratch, grounded
from archsmith.jobs.scratch import inputs_of
from archsmith.report.result import read_result
from archsmith.study import Store
from archsmith.train.parallel import together

MIXED = {
    "choices": {"op": ["conv", "separable", "skip"]},
    "network": [
        {"conv": {"out": 8, "kernel": 3}},
        {"repeat": 2, "name": "layer", "of": [
            {"pick": "$op", "of": {"conv": {"conv": {"out": "in"}}, "separable": {"separable": {"out": "in"}},
                                   "skip": "skip"}},
            "batch_norm", "relu"]},
        "mean", {"linear": {"out": "$classes"}},
    ],
}  # fmt: skip


def test_the_winner_is_trained_measured_and_handed_over(stripes: Path, tmp_path: Path) -> None:
    code, said = call(*asked(stripes, tmp_path / "run"))
    assert code == 0 and ("The best came" in said or "none was better than the first" in said), said
    result = read_result(tmp_path / "run")
    assert result.holdout is not None and result.holdout.n > 40 and result.holdout.best > 90
    store = Store.read(tmp_path / "run" / "study.db")
    trials = store.history()
    store.close()
    assert len(trials) == 3 and all(trial.status == "complete" for trial in trials)
    least = min(trials, key=lambda trial: trial.values["loss_points"])
    winner = json.loads((tmp_path / "run" / "stages" / "winner.json").read_text())["result"]
    assert winner["architecture"] == dict(least.proposal.architecture)
    assert result.best.parameters == least.values["parameters"]
    assert result.seconds["trials"] == pytest.approx(sum(trial.seconds for trial in trials))
    program = torch.export.load(tmp_path / "run" / "model" / "model.pt2")
    assert program.module()(x=torch.zeros(2, 3, 8, 8)).shape == (2, 2)
    before = (tmp_path / "run" / "result.json").read_bytes()
    code, said = call("resume", tmp_path / "run")
    assert code == 0 and (tmp_path / "run" / "result.json").read_bytes() == before, said


ONE_SHOT = ("spos", "darts", "ofa")
MORE = ("enas", "sandwich", "darts:second_order=true", "gdas", "p-darts")  # evaluators have tests of their own for each


@pytest.mark.parametrize("strategy", [*ONE_SHOT, *(pytest.param(each, marks=pytest.mark.slow) for each in MORE)])
def test_weights_are_trained_once_for_all_networks(stripes: Path, tmp_path: Path, strategy: str) -> None:
    more = ["--strategy", strategy, "--trials", 6]
    if strategy not in ("spos", "sandwich", "enas", "ofa"):  # these mix operators, and no widths
        (tmp_path / "mixed.json").write_text(json.dumps(MIXED))
        more += ["--space", tmp_path / "mixed.json"]
    code, said = call(*asked(stripes, tmp_path / "run", *more))
    assert code == 0, said
    store = Store.read(tmp_path / "run" / "study.db")
    trials = store.history()
    store.close()
    assert len(trials) == 6 and max(trial.seconds for trial in trials) < 5
    assert (tmp_path / "run" / "shared" / "weights.pt").is_file() and not list((tmp_path / "run").glob("shared.*"))
    holdout = read_result(tmp_path / "run").holdout
    assert holdout is not None and holdout.best > 90


JUDGES = {
    "curve:share=0.5,checks=6,bound=40": {"loss_points", "loss_points_spread", "loss_points_seen", "trained_share"},
    "zero-cost:naswot+synflow": {"rank_points", "minus_naswot", "minus_synflow"},
}


@pytest.mark.parametrize("evaluator", JUDGES)
def test_networks_are_judged_by_an_evaluator_that_is_named(stripes: Path, tmp_path: Path, evaluator: str) -> None:
    code, said = call(*asked(stripes, tmp_path / "run", "--evaluator", evaluator))
    assert code == 0, said
    store = Store.read(tmp_path / "run" / "study.db")
    trials = store.history()
    store.close()
    assert len(trials) == 3 and all(trial.status == "complete" for trial in trials)
    assert all(set(trial.values) == JUDGES[evaluator] | {"parameters", "macs", "weight_bytes"} for trial in trials)
    least = min(trials, key=lambda trial: trial.values[store.objectives[0]])
    winner = json.loads((tmp_path / "run" / "stages" / "winner.json").read_text())["result"]
    pace = json.loads((tmp_path / "run" / "stages" / "pace.json").read_text())["result"]
    assert winner["architecture"] == dict(least.proposal.architecture) and winner["steps"] == pace["winner_steps"]
    assert read_result(tmp_path / "run").holdout.best > 90
    before = (tmp_path / "run" / "result.json").read_bytes()
    code, said = call("resume", tmp_path / "run")
    assert code == 0 and (tmp_path / "run" / "result.json").read_bytes() == before, said


@pytest.mark.slow
def test_untrained_networks_are_judged_against_the_same_others_after_a_stop(stripes: Path, tmp_path: Path) -> None:
    """One network scored by the command beats as much of the stored reference as it is said to."""
    words = asked(stripes, tmp_path / "run", "--evaluator", "zero-cost:parameters", "--trials", 6, "--workers", 2)
    command = [sys.executable, "-m", "archsmith", *(str(word) for word in words)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and not (tmp_path / "run" / "stages" / "reference.json").exists():
        time.sleep(0.02)
    first.kill()
    first.wait()
    kept = (tmp_path / "run" / "stages" / "reference.json").read_bytes()
    assert call("resume", tmp_path / "run")[0] == 0
    assert (tmp_path / "run" / "stages" / "reference.json").read_bytes() == kept
    reference = json.loads(kept)["result"]["parameters"]
    assert len(reference) == REFERENCES and len(set(reference)) > 3
    store = Store.read(tmp_path / "run" / "study.db")
    trials = store.history()
    store.close()
    assert len(trials) == 6 and store.objectives == ("rank_points",)
    for trial in trials:
        wanted = 100 * (1 - share_beaten(trial.values["parameters"], reference))
        assert trial.values["rank_points"] == pytest.approx(wanted)


@pytest.mark.slow
def test_the_winner_is_trained_by_as_many_processes_as_asked_for_after_a_stop_too(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_of: list[int] = []

    def noted(work: object, given: object, processes: int, **more: object) -> None:
        asked_of.append(processes)
        together(work, given, processes, **more)

    monkeypatch.setattr("archsmith.jobs.scratch.together", noted)
    words = asked(stripes, tmp_path / "run", "--evaluator", "zero-cost:naswot", "--trials", 1, "--processes", 2)
    code, said = call(*words)
    assert code == 0, said
    holdout = read_result(tmp_path / "run").holdout
    assert asked_of == [2] and holdout is not None and holdout.best > 90
    weights = (tmp_path / "run" / "winner" / "weights.pt").read_bytes()
    shutil.rmtree(tmp_path / "run" / "winner")
    (tmp_path / "run" / "stages" / "winner.json").unlink()
    code, said = call("resume", tmp_path / "run")
    assert code == 0, said
    assert asked_of == [2, 2] and (tmp_path / "run" / "winner" / "weights.pt").read_bytes() == weights
    winner = json.loads((tmp_path / "run" / "stages" / "winner.json").read_text())["result"]
    assert winner["steps"] > 10 and winner["loss"] < 0.5


def test_texts_bring_their_own_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good, bad, other = ["好看", "喜欢", "wonderful"], ["难看", "讨厌", "boring"], ["电影", "这部", "film", "了", "and"]
    rows = []
    for number in range(400):
        label = int(rng.integers(2))
        words = [*rng.choice(other, 6), *rng.choice(good if label else bad, 2), f"w{number}"]
        rows.append(f"{label}\t{' '.join(rng.permutation(words))}")
    (tmp_path / "data.tsv").write_text("label\ttext\n" + "\n".join(rows) + "\n", encoding="utf-8")
    words = ("--task", "text-classification", "--data", tmp_path / "data.tsv", "--space", "text", "--trials", 2)
    code, said = call("search", *words, "--strategy", "random", "--runtime", "pytorch", "--out", tmp_path / "run")
    assert code == 0, said
    holdout = read_result(tmp_path / "run").holdout
    assert holdout is not None and holdout.best > 75
    told = json.loads((tmp_path / "run" / "model" / "tokenizer_config.json").read_text())
    assert told["model_max_length"] == 32  # the longest text has nine words; networks read 32 at least


def test_how_networks_are_trained_is_chosen_beside_what_they_are(stripes: Path, tmp_path: Path) -> None:
    rates = [1e-7, 0.003]
    recipe = {"learning_rate": "$rate", "batch": "$batch", "weight_decay": 0.1}
    choices = {**SPACE["choices"], "rate": rates, "batch": [16, 32]}
    (tmp_path / "space.json").write_text(json.dumps({**SPACE, "choices": choices, "recipe": recipe}))
    code, said = call(*asked(stripes, tmp_path / "run", "--space", tmp_path / "space.json", "--trials", 8))
    assert code == 0, said
    store = Store.read(tmp_path / "run" / "study.db")
    lost = {
        rate: [t.values["loss_points"] for t in store.history() if t.proposal.architecture["rate"] == rate]
        for rate in rates
    }
    store.close()
    assert min(lost[rates[0]]) > max(lost[rates[1]])  # with hardly a step nothing is learnt
    winner = json.loads((tmp_path / "run" / "stages" / "winner.json").read_text())["result"]
    assert winner["architecture"]["rate"] == rates[1] and read_result(tmp_path / "run").holdout.best > 90
    code, said = call(*asked(stripes, tmp_path / "no", "--space", tmp_path / "space.json", "--strategy", "spos"))
    assert code == 2 and "by one recipe; found a choice of batch" in said, said
    words = ("--space", tmp_path / "space.json", "--evaluator", "zero-cost")
    code, said = call(*asked(stripes, tmp_path / "no", *words))
    assert code == 2 and "say nothing of how they are trained; found a choice of batch" in said, said
    for wrong, says in (
        ({"epochs": "$rate"}, "found 'epochs'"),
        ({"batch": "$rate"}, "found 1e-07"),
        ({"batch": -1}, "found -1"),
    ):
        more = {} if "$rate" in wrong.values() else {"weight_decay": "$rate"}
        told = {**SPACE, "choices": {**SPACE["choices"], "rate": rates}, "recipe": {**wrong, **more}}
        (tmp_path / "wrong.json").write_text(json.dumps(told))
        code, said = call(*asked(stripes, tmp_path / "no", "--space", tmp_path / "wrong.json"))
        assert code == 2 and says in said, said


BAD: list[tuple[tuple[str, ...], str]] = [
    (("--space", "nb301"), "a space is one that is known, or a file; found nb301"),
    (("--space", "text"), "found $vocabulary at image-classification"),
    (("--task", "speech"), "choose one of image-classification"),
    (("--benchmark", "nb201-cifar10=x.npz"), "give --benchmark, --space with --evaluator, or --space with --task"),
    (("--target", "latency<=fast"), "latency<=fast"),
    (("--strategy", "darts"), "$width says how large or how many"),
    (("--strategy", "darts", "--space", "nb101"), "this one declares none"),
    (("--strategy", "gdas:second_order=true"), "an option of gdas is one that it has"),
    (("--strategy", "spos:heaviest_of=0"), "from 1 to 100; found 0 at --strategy"),
    (("--strategy", "sandwich:paths=true"), "from 1 to 100; found True at --strategy"),
    (("--strategy", "ofa:distil=2"), "distil of ofa is a share from 0 to 1; found 2"),
    (("--strategy", "darts:second_order=1"), "second_order of darts is true or false; found 1"),
    (("--strategy", "p-dart"), "gdas, p-darts, enas"),
    (("--strategy", "enas", "--past", "runs/a"), "enas begins with what it has settled on itself"),
    (("--strategy", "asha:levels=[1,3],resource=epoch"), "found 'epoch' at --strategy. There are: epochs, share, reso"),
    (("--strategy", "asha:levels=3"), "found levels=3. It takes a list of numbers, [1,3,9]"),
    (("--strategy", 'asha:levels=["a"]'), "found levels=['a']. It takes a list of numbers, [1,3,9]"),
    (("--strategy", "asha:levels=[3,1]"), "levels of epochs above 0, ascending; found [3, 1] at --strategy. Write"),
    (("--strategy", "bohb"), "levels of epochs above 0, ascending; found none at --strategy. Write them like"),
    (("--strategy", "asha:levels=[1,3],eta=1"), "found 1 at --strategy. Take eta=3"),
    (("--strategy", 'nsga2:limits={"latency":5}'), "limits are on what a trial measures; found latency"),
    (("--segmented",), "segmented is of text-classification; found image-classification"),
    (("--text", "body"), "text is of text-classification and language-modelling; found image-classification"),
    (("--address", "host:1"), "an address is of a Ray cluster; found host:1"),
    (("--strategy", "asha", "--evaluator", "zero-cost"), "scores of untrained networks are the same after any epochs"),
    (("--runtime", "tensorrt"), "a runtime is one that archsmith knows; found 'tensorrt'"),
    (("--target", "perplexity<=10"), "perplexity is that of a language model"),
    (("--target", "memory<=10MB"), "memory is that of a process that serves a file"),
    (("--history", "24"), "history is of series-forecasting and language-modelling; found image-classification"),
    (("--minutes", "0"), "found 0.0 at --minutes"),
    (("--data", ""), "found no data. Give --data"),
    (("--space", ""), "found no space. Give --space"),
    (("--objective", "latency_ms"), "there are: loss_points, parameters"),
    (("--evaluator", "guessed"), "found 'guessed' at --evaluator. There are: trained, curve, zero-cost"),
    (("--evaluator", "my_module:judge"), "found 'my_module' at --evaluator. There are: trained, curve, zero-cost"),
    (("--evaluator", "curve:shares=1"), "found 'shares' at --evaluator. There are: share, checks, bound"),
    (("--evaluator", "curve:share=half"), "share is a number"),
    (("--evaluator", "curve:share=true"), "share is a number"),
    (("--evaluator", "curve:bound=NaN"), "bound is a number"),
    (("--evaluator", "curve:checks=2.7"), "checks is a whole number"),
    (("--evaluator", "curve:checks=1e400"), "checks is a whole number"),
    (("--evaluator", "curve:share=2"), "a curve is seen for a share of its steps"),
    (("--evaluator", "trained:share=1"), "an option of trained is one that it has"),
    (("--evaluator", "zero-cost:luck"), "found 'luck' at --evaluator. There are: fisher"),
    (("--evaluator", "curve", "--strategy", "spos"), "spos judges networks on weights of its own"),
    (("--evaluator", "zero-cost", "--objective", "loss_points"), "there are: rank_points, minus_jacobian_covariance"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(words[1::2]) for words, _ in BAD])
def test_what_cannot_be_searched_is_said_on_one_line(
    stripes: Path, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    code, said = call(*asked(stripes, tmp_path / "run"), *words)
    assert code == 2 and says.lower() in said.lower() and said.startswith("error:"), said
    assert not (tmp_path / "run").exists()


def test_where_every_network_fails_the_common_reason_is_said_and_the_trials_are_kept(
    stripes: Path, tmp_path: Path
) -> None:
    code, said = call(*asked(stripes, tmp_path / "run", "--target", "parameters<=10"))
    assert code == 3 and "parameters<=10 was met by none of 3 networks; the least was" in said, said
    assert call("resume", tmp_path / "run")[0] == 3
    store = Store.read(tmp_path / "run" / "study.db")
    assert [trial.status for trial in store.history()] == ["failed"] * 3
    store.close()


def test_trials_are_networks_that_targets_on_costs_allow(stripes: Path, tmp_path: Path) -> None:
    few = ("--target", "parameters<=250", "--trials", 6)  # of the eight the two smallest, of 186 and 246
    for strategy in ("grid", "regularized-evolution"):
        code, said = call(*asked(stripes, tmp_path / strategy, *few, "--strategy", strategy))
        assert code == 0, said
        store = Store.read(tmp_path / strategy / "study.db")
        assert sorted((t.status, t.values["parameters"]) for t in store.history()) == [
            ("complete", 186),
            ("complete", 246),
        ]
        store.close()


def test_pictures_of_several_sizes_are_brought_to_their_median(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        folder, side = tmp_path / "data" / "ab"[number % 2], (8, 12, 30)[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 120, (side, side + 2), np.uint8) + 100 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    words = ("--task", "image-classification", "--data", tmp_path / "data", "--space", tmp_path / "space.json")
    code, said = call("search", *words, "--trials", 1, "--runtime", "pytorch", "--out", tmp_path / "run")
    assert code == 0 and "Pictures of several sizes were brought to 12 x 14 pixels" in said, said


def test_a_folder_that_is_called_like_a_space_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "data.tsv").write_text("label\ttext\n")
    monkeypatch.chdir(tmp_path)
    assert set(inputs_of(Scratch("text-classification", "data.tsv", "text"))) == {"data.tsv"}


def test_a_search_that_was_killed_goes_on_and_others_may_join(stripes: Path, tmp_path: Path) -> None:
    words = [str(word) for word in asked(stripes, tmp_path / "run", "--trials", 6)]
    command = [sys.executable, "-m", "archsmith"]
    first = subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until, done = time.monotonic() + 120, 0
    while time.monotonic() < until and not done:
        time.sleep(0.05)
        with suppress(BadInput), closing(Store.read(tmp_path / "run" / "study.db")) as begun:
            done = sum(trial.status == "complete" for trial in begun.history())
    assert 0 < done < 6 and first.poll() is None  # in the midst of its trials
    first.kill()
    first.wait()
    both = [subprocess.Popen([*command, "resume", str(tmp_path / "run")], stdout=subprocess.PIPE) for _ in range(2)]
    assert [each.wait(200) for each in both] == [0, 0]
    for each in both:
        assert each.stdout is not None
        each.stdout.close()
    store = Store.read(tmp_path / "run" / "study.db")
    assert [trial.status for trial in store.history()] == ["complete"] * 6
    store.close()
    assert read_result(tmp_path / "run").holdout is not None


def test_a_winner_once_chosen_stays_whatever_is_tried_after_it(stripes: Path, tmp_path: Path) -> None:
    code, said = call(*asked(stripes, tmp_path / "run"))
    assert code == 0, said
    chosen = json.loads((tmp_path / "run" / "stages" / "chosen.json").read_text())["result"]
    shutil.rmtree(tmp_path / "run" / "final", ignore_errors=True)
    (tmp_path / "run" / "stages" / "final.json").unlink()
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    plan["search"]["trials"] = 9
    (tmp_path / "run" / "plan.json").write_text(json.dumps(plan))
    code, said = call("resume", tmp_path / "run")
    assert code == 0, said
    assert json.loads((tmp_path / "run" / "stages" / "winner.json").read_text())["result"]["architecture"] == chosen
    store = Store.read(tmp_path / "run" / "study.db")
    assert len(store.history()) == 3
    store.close()
    assert read_result(tmp_path / "run").holdout is not None


def test_a_run_that_was_stopped_before_its_pace_was_known_goes_on(stripes: Path, tmp_path: Path) -> None:
    code, said = call(*asked(stripes, tmp_path / "run"))
    assert code == 0, said
    shutil.copy(tmp_path / "run" / "plan.json", tmp_path / "plan.json")
    (tmp_path / "new").mkdir()
    shutil.move(tmp_path / "plan.json", tmp_path / "new" / "plan.json")
    code, said = call("resume", tmp_path / "new")
    assert code == 0 and read_result(tmp_path / "new").holdout is not None, said


def test_other_data_are_not_gone_on_with(stripes: Path, tmp_path: Path) -> None:
    for name in ("data.npz", "space.json"):
        shutil.copy(stripes / name, tmp_path / name)
    code, said = call(*asked(tmp_path, tmp_path / "run"))
    assert code == 0, said
    (tmp_path / "space.json").write_text(json.dumps({**SPACE, "choices": {**SPACE["choices"], "width": [4]}}))
    with pytest.raises(BadInput, match="the space that it began with"):
        baseline(tmp_path / "run", ["mean", {"linear": {"out": "$classes"}}])
    grounded.cache_clear()
    code, said = call("resume", tmp_path / "run")
    assert code == 2 and "the space it began with" in said.replace("that it began with", "it began with"), said


def test_a_bound_on_latency_is_kept_while_searching(stripes: Path, tmp_path: Path) -> None:
    code, said = call(*asked(stripes, tmp_path / "run", "--target", "latency<=0.000001ms"))
    assert code == 3 and "latency<=0.000001ms was met by none of 3 networks; the least was 0." in said, said
    code, said = call(*asked(stripes, tmp_path / "other", "--target", "latency<=1000ms"))
    assert code == 0, said
    store = Store.read(tmp_path / "other" / "study.db")
    assert all(0 < trial.values["latency_ms"] < 1000 for trial in store.history())
    store.close()


def test_what_is_shipped_says_what_it_means(stripes: Path, tmp_path: Path) -> None:
    code, said = call(*asked(stripes, tmp_path / "run"))
    assert code == 0, said
    prepared = json.loads((tmp_path / "run" / "model" / "preprocessor_config.json").read_text())
    assert prepared["size"] == {"height": 8, "width": 8} and 0.3 < prepared["image_mean"][0] < 0.5
    labels = json.loads((tmp_path / "run" / "model" / "labels.json").read_text())
    assert labels == {"id2label": {"0": "0", "1": "1"}}
    page = (tmp_path / "run" / "report.html").read_text()
    assert read_result(tmp_path / "run").found and "as trained" in page and 'id="front"' not in page
    assert "points of accuracy on the holdout" in said and "original" not in said.partition("Ladder")[2], said


def test_where_no_trial_ends_well_in_full_the_best_of_the_longest_is_handed_over(stripes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = asked(stripes, out, "--strategy", "hyperband:levels=[1,100000],eta=2", "--trial-minutes", 0.05)
    code, said = call(*words, "--trials", 4)
    assert code == 0, said
    told = json.loads((out / "front.json").read_text())
    assert told["trials"]["failed"] >= 1 and told["front"][0]["fidelity"] == {"epochs": 1.0}
