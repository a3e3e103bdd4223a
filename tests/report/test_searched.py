"""The page of a search: what it says is what the trials say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from archsmith.build import Signal, known_space, planned
from archsmith.report.drawn import drawn
from archsmith.report.searched import choice_of_best, importances, values_by_period, write_searched
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
    assert next(iter(found)) == "kind" and found["kind"] > 0.9 and set(found) == {"kind", "idle"}
    assert importances(trials(5), SPACE, "loss") == {}


def test_values_that_are_no_longer_tried_are_grey() -> None:
    page = values_by_period(trials(60), SPACE, ["kind"], "loss")
    row = next(row for row in page.split("<tr") if "<td>c</td>" in row)
    assert "class='soft'" in row and row.count("<td>0 %</td>") == 2
    assert "class='soft'" not in next(row for row in page.split("<tr") if "<td>b</td>" in row)


def test_the_best_stands_beside_the_runner_up() -> None:
    one, other = (Architecture({"kind": "<a>", "idle": idle, "only": 4}) for idle in (1, 2))
    done = [Trial(3, Proposal(other), "complete", {"loss": 1.5}), Trial(7, Proposal(one), "complete", {"loss": 1.25})]
    said = choice_of_best(done, done[1:], "loss")
    assert "Trial 7 is the best of 2 by loss: 1.25" in said and "trial 3, has 1.5, which is 0.25 more" in said
    assert said.count("class=other") == 1 and "<td>1</td><td class=other>2</td>" in said
    assert "&lt;a&gt;" in said and "<a>" not in said


@pytest.mark.parametrize("objectives", [["loss"], ["loss", "ms"]])
def test_the_page_is_whole_and_needs_no_network(tmp_path: Path, objectives: list[str]) -> None:
    failed = Trial(40, Proposal(SPACE.sample(np.random.default_rng(1))), "failed", error="no")
    page = write_searched([*trials(40), failed], SPACE, objectives, tmp_path, "a & b").read_text(encoding="utf-8")
    assert "<title>a &amp; b</title>" in page and "40 complete, 1 failed" in page
    assert "Which choices matter" in page and not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    empty = write_searched([failed], SPACE, objectives, tmp_path, "none").read_text(encoding="utf-8")
    assert "1 failed" in empty and "Why this one" not in empty


def test_cheap_trials_are_shown_but_none_of_them_is_the_best(tmp_path: Path) -> None:
    cheap = [
        Trial(50 + i, Proposal(t.proposal.architecture, {"epochs": 1.0}), "complete", {"loss": 0.0})
        for i, t in enumerate(trials(3))
    ]
    full = [
        Trial(t.number, Proposal(t.proposal.architecture, {"epochs": 9.0}), "complete", t.values) for t in trials(9)
    ]
    page = write_searched([*full, *cheap], SPACE, ["loss"], tmp_path, "rungs").read_text(encoding="utf-8")
    assert "is the best of 9 by loss" in page


def test_a_network_is_drawn_with_what_repeats_drawn_once() -> None:
    point = dict.fromkeys(("0->1", "0->2", "1->2", "0->3", "1->3", "2->3"), "nor_conv_3x3")
    picture = drawn(planned(known_space("nb201").static(point, {"classes": 10}), Signal((3, 32, 32))))
    assert picture.count("× 5") == 3 and picture.count("<b>3</b>") == 3
    assert picture.count("<div") == picture.count("</div>") and "10" in picture
