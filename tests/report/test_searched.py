"""The page of a search: what it says is what the trials say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from archsmith.build import known_space
from archsmith.report.importance import ABSENT, importances, lives, varied
from archsmith.report.page import _search_figures, write_page
from archsmith.report.result import Result
from archsmith.report.searched import Aim, Chosen, told, write_searched
from archsmith.report.story import Story, read_searched
from archsmith.space import Architecture, Choice, Condition, Space
from archsmith.trial import Proposal, Trial

SPACE = Space({
    "kind": Choice(["<a>", "b", "c"]), "idle": Choice([1, 2, 3]), "only": Choice([4]),
    "some": Choice([5, 6], when=Condition("kind", ["b"])),
})  # fmt: skip


def trials(count: int) -> list[Trial]:
    """The kind decides, the others hardly do; "c" is tried in the beginning alone."""
    rng, found = np.random.default_rng(0), list[Trial]()
    while len(found) < count:
        point = SPACE.sample(rng)
        if point["kind"] == "c" and len(found) > count // 3:
            continue
        loss = {"<a>": 1.0, "b": 2.0, "c": 5.0}[str(point["kind"])] + 0.01 * rng.random()
        found.append(Trial(len(found), Proposal(point), "complete", {"loss": loss, "ms": rng.random()}))
    return found


def test_what_decides_is_most_important() -> None:
    found = importances(trials(40), SPACE, "loss")
    assert next(iter(found)) == "kind" and found["kind"] > 0.7 and set(found) == {"kind", "idle", "some"}
    assert importances(trials(5), SPACE, "loss") == {}


def test_values_that_are_no_longer_tried_have_no_share_at_the_end() -> None:
    rows = {life.value: life for life in lives(trials(60), SPACE, ["kind"], "loss")["kind"]}
    assert rows["c"].shares[0] > 0 and rows["c"].shares[1:] == (0.0, 0.0) and (rows["c"].best or 0) >= 5.0
    assert min(rows["b"].shares) > 0


def conditional(count: int) -> list[Trial]:
    """What decides is a choice that half of the trials do not have."""
    space, rng, found = LAYERED, np.random.default_rng(0), list[Trial]()
    for number in range(count):
        point = space.sample(rng)
        loss = {None: 3.0, "slow": 6.0, "quick": 1.0}[point.get("second")] + 0.01 * rng.random()
        found.append(Trial(number, Proposal(point), "complete", {"loss": loss}))
    return found


LAYERED = Space({
    "depth": Choice([1, 2]), "idle": Choice([1, 2, 3]),
    "second": Choice(["slow", "quick"], when=Condition("depth", [2])),
})  # fmt: skip


def test_a_choice_that_is_not_always_there_takes_part() -> None:
    done = conditional(60)
    assert next(iter(importances(done, LAYERED, "loss"))) == "second"
    rows = {life.value: life for life in lives(done, LAYERED, ["second"], "loss")["second"]}
    assert set(rows) == {"slow", "quick", ABSENT} and rows["quick"].best == pytest.approx(1.0, abs=0.01)
    for slow, quick, absent in zip(*(rows[value].shares for value in ("slow", "quick", ABSENT)), strict=True):
        assert (slow or 0) + (quick or 0) == pytest.approx(1.0) and 0 < (absent or 0) < 1
    without = [trial for trial in done if trial.proposal.architecture["depth"] == 1 or trial.number < 20]
    assert lives(without, LAYERED, ["second"], "loss")["second"][0].shares[-1] is None


@pytest.mark.parametrize("name", ["text", "chain", "vit"])
def test_all_choices_of_a_space_whose_layers_may_be_absent_are_told_of(name: str) -> None:
    space, rng = known_space(name).space, np.random.default_rng(0)
    done = [Trial(n, Proposal(space.sample(rng)), "complete", {"loss": rng.random()}) for n in range(60)]
    told_of = {choice for choice, of in space.choices.items() if len(of.values) > 1}
    assert set(importances(done, space, "loss")) == set(varied(done, space)) == told_of


def test_few_trials_show_what_lived_and_how_little_it_says(tmp_path: Path) -> None:
    for count, table, bars in ((5, False, False), (8, True, False), (12, True, True), (90, True, True)):
        page = write_searched(trials(count), SPACE, tmp_path, Aim("", ("loss",))).read_text(encoding="utf-8")
        assert ("Which values live and die" in page, "(fANOVA)" in page) == (table, bars)
        assert ("too few to tell which choices matter" in page) == (count < 12)
        assert ("by chance" in page) == (5 < count < 30)


def test_the_best_stands_beside_the_runner_up(tmp_path: Path) -> None:
    one, other = (Architecture({"kind": "<a>", "idle": idle, "only": 4}) for idle in (1, 2))
    done = [Trial(3, Proposal(other), "complete", {"loss": 1.5}), Trial(7, Proposal(one), "complete", {"loss": 1.25})]
    said = told(done, SPACE, Aim("", ("loss",)))
    assert "Trial 7 is the best of 2 by loss: 1.25" in said.why and "trial 3, has 1.5, which is 0.25 more" in said.why
    assert [(d.choice, d.best, d.other) for d in said.differences if d.best != d.other] == [("idle", "1", "2")]
    page = write_searched(done, SPACE, tmp_path, Aim("", ("loss",))).read_text(encoding="utf-8")
    assert page.count('class="other"') == 1 and "&lt;a&gt;" in page and "<a>" not in page.replace(get_plotlyjs(), "")


def test_what_is_explained_is_what_was_chosen() -> None:
    """Whatever the first objective is: a network is handed over for what it lost."""
    small, good, late = (Architecture({"kind": "b", "idle": idle, "only": 4, "some": 5}) for idle in (1, 2, 3))
    values = [(small, 1.0, 30.0), (small, 1.0, 9.0), (good, 7.0, 5.0), (late, 9.0, 4.0)]
    done = [
        Trial(n, Proposal(a), "complete", {"macs": m, "loss_points": loss}) for n, (a, m, loss) in enumerate(values)
    ]
    aim = Aim("", ("macs", "loss_points"))
    assert told(done, SPACE, aim).best == 0
    said = told(done[:3], SPACE, aim, Chosen(good, "loss_points", ""))
    assert (said.objective, said.best, said.other, said.front) == ("loss_points", 2, 1, (1, 2))
    assert "best of 3 by loss_points (points lost on validation): 5;" in said.why and "9, which is 4 more" in said.why
    said = told(done, SPACE, Aim("", ("macs",)), Chosen(good, "loss_points", ""))
    assert (said.best, said.other) == (2, 3) and "trial 3, with 4, ended after it was chosen" in said.why
    assert _search_figures(said)["reached"] == [30.0, 9.0, 5.0, 4.0]


def lost(*losses: float) -> list[Trial]:
    points = [Architecture({"kind": "b", "idle": 1 + n % 3, "only": 4, "some": 5}) for n in range(len(losses))]
    return [Trial(n, Proposal(points[n]), "complete", {"loss": loss, "ms": 1.0}) for n, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "limits", "said"),
    [
        (
            [3, 1, 2, 1, 2],
            (5, None),
            "The best came with trial 1, after 1 improvement; none of the 3 after it was better.",
        ),
        ([3, 2, 1, 2], (4, 9), "The best came with trial 2, after 2 improvements; the one after it was no better."),
        (
            [1, 2, 3],
            (3, None),
            "No improvement within the budget: of 3 trials none was better than the first, trial 0.",
        ),
        ([3, 2], (2, None), "The best came last, with trial 1, after 1 improvement: more trials might bring more."),
        ([3], (1, None), "One trial ended well, trial 0: there was nothing to choose from."),
    ],
)
def test_when_the_best_came_is_said(
    tmp_path: Path, losses: list[float], limits: tuple[int, int | None], said: str
) -> None:
    page = write_searched(lost(*losses), SPACE, tmp_path, Aim("", ("loss",), *limits)).read_text(encoding="utf-8")
    assert f"<p>{said}</p>" in page
    both = told(lost(*losses), SPACE, Aim("", ("loss", "ms"), *limits)).course
    assert both.lower() == f"by loss: {said.lower()}"


def test_why_a_search_ended_early_is_said() -> None:
    stuck = told(lost(3, 1, 2, 2), SPACE, Aim("", ("loss",), 40, 2)).course
    assert stuck.endswith(
        "4 of 40 trials were tried: the search stopped when 2 in a row had brought nothing better (--patience)."
    )
    late = told(lost(3, 1, 2, 2), SPACE, Aim("", ("loss",), 40, 3)).course
    assert late.endswith("4 of 40 trials were tried before the time was over or nothing new was left to try.")


def test_the_report_of_a_run_shows_its_search_with_one_chart_library(tmp_path: Path, bare: Result) -> None:
    chosen = Chosen(trials(1)[0].proposal.architecture, "loss", "<b>drawn</b>")
    before = write_page(bare, Story(), tmp_path).read_text(encoding="utf-8")
    write_searched(trials(40), SPACE, tmp_path, Aim("random on cells", ("loss",)), chosen)
    page = write_page(bare, Story(), tmp_path).read_text(encoding="utf-8")
    shown = ("random on cells", "plot-tried", "Why this one", "<b>drawn</b>", "Which choices matter", "live and die")
    assert all(each in page for each in shown) and not any(f">{each}" in before for each in shown)
    assert len(page) - len(before) < 30_000


@pytest.mark.parametrize("objectives", [["loss"], ["loss", "ms"]])
def test_the_page_is_whole_and_needs_no_network(tmp_path: Path, objectives: list[str]) -> None:
    failed = Trial(40, Proposal(SPACE.sample(np.random.default_rng(1))), "failed", error="no")
    page = write_searched([*trials(40), failed], SPACE, tmp_path, Aim("a & b", tuple(objectives))).read_text(
        encoding="utf-8"
    )
    assert "<title>a &amp; b · archsmith</title>" in page and "40 complete, 1 failed" in page
    assert ("plot-tried-front" in page.partition("</main>")[0]) == (len(objectives) == 2)
    assert "Which choices matter" in page and not re.search(r"<(script|link|img)[^>]+(src|href)=(?!\"data:)", page)
    empty = write_searched([failed], SPACE, tmp_path, Aim("none", tuple(objectives))).read_text(encoding="utf-8")
    assert "1 failed" in empty and "Why this one" not in empty


def test_cheap_trials_are_shown_but_none_of_them_is_the_best(tmp_path: Path) -> None:
    cheap = [
        Trial(50 + i, Proposal(t.proposal.architecture, {"epochs": 1.0}), "complete", {"loss": 0.0})
        for i, t in enumerate(trials(3))
    ]
    full = [
        Trial(t.number, Proposal(t.proposal.architecture, {"epochs": 9.0}), "complete", t.values) for t in trials(9)
    ]
    write_searched([*full, *cheap], SPACE, tmp_path, Aim("rungs", ("loss",)))
    said = read_searched(tmp_path)
    assert said is not None and len(said.trials) == 12 and "is the best of 9 by loss" in said.why
    assert _search_figures(said)["reached"][-1] == min(trial.values["loss"] for trial in full)


def test_a_drawing_out_of_a_foreign_file_has_no_script(tmp_path: Path) -> None:
    for drawing in ("<script>alert(1)</script>", '<b onclick="alert(1)">in</b>', "<b>in</b><!-- > -->", "<b>in</b>"):
        write_searched(trials(3), SPACE, tmp_path, Aim("", ("loss",)))
        told = json.loads((tmp_path / "search.json").read_text(encoding="utf-8"))
        (tmp_path / "search.json").write_text(json.dumps({**told, "drawing": drawing}), encoding="utf-8")
        found = read_searched(tmp_path)
        assert found is not None and found.drawing == (drawing if drawing == "<b>in</b>" else "")
