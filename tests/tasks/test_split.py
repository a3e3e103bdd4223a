"""The parts never mix: no text, no phrase, no quotation of one part stands in another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.tasks.read import read
from archsmith.tasks.spans import ANCHOR, Words, find_spans, words
from archsmith.tasks.split import Rows, group, overlap, split
from tests.conftest import shared_path

TEXT = st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map(" ".join)


def rows(texts: list[str]) -> Rows:
    return Rows(texts, np.zeros(len(texts), dtype=np.int64), "d.tsv")


def is_span(needle: str, text: str) -> bool:
    return f" {' '.join(words(needle))} " in f" {' '.join(words(text))} "


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, max_size=12), st.lists(TEXT, max_size=12))
def test_spans_agree_with_brute_force(needles: list[str], hay: list[str]) -> None:
    found = set(zip(*(side.tolist() for side in find_spans(Words.of(needles), Words.of(hay))), strict=True))
    assert found == {(i, j) for i, n in enumerate(needles) for j, text in enumerate(hay) if is_span(n, text)}


@pytest.mark.parametrize("length", [ANCHOR - 1, ANCHOR, ANCHOR + 1, 3 * ANCHOR])
def test_long_texts_are_found_whole_only(length: int) -> None:
    text = " ".join(f"w{i}" for i in range(4 * ANCHOR))
    part = " ".join(f"w{i}" for i in range(7, 7 + length))
    needles = Words.of([part, part + " other", text])
    assert [side.tolist() for side in find_spans(needles, Words.of(["x", text]))] == [[0, 2], [1, 1]]


def test_a_long_text_is_not_found_across_two_texts() -> None:
    text = [f"w{i}" for i in range(ANCHOR + 9)]
    hay = Words.of([" ".join(text[: ANCHOR + 2]), " ".join(text[ANCHOR + 2 :])])
    assert len(find_spans(Words.of([" ".join(text)]), hay)[0]) == 0


def test_texts_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archsmith.tasks.spans.BLOCK", 10)
    texts = [f"one two three number {i} four five" for i in range(9)]
    needles, hay = find_spans(Words.of(["number 7 four", "number 8"]), Words.of(texts))
    assert (needles.tolist(), hay.tolist()) == ([0, 1], [7, 8])


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("A good film!", "a  GOOD film", True),
        ("ｇｏｏｄ", "good", True),
        ("很好看。", "很 好 看", True),
        ("很好看", "很好", False),
        ("don't", "dont", False),
        (":)", ":(", False),
        ("Straße", "STRASSE", True),
    ],
)
def test_texts_are_equal_when_their_words_are(a: str, b: str, same: bool) -> None:
    keys = Words.of([a, b]).keys
    assert bool(keys[0] == keys[1]) is same


def test_each_row_goes_for_one_reason() -> None:
    quoted = "one two three four five six seven eight"
    loser = Words.of(["the plot", "A good film.", f"he said {quoted} so", "fresh words", quoted])
    winner = Words.of(["a good film", "all the plot here", quoted])
    masks = {reason: np.flatnonzero(mask).tolist() for reason, mask in overlap(loser, winner).items()}
    assert masks == {"duplicates": [1, 4], "phrases": [0], "quotations": [2]}


def test_copies_share_a_fate_without_being_matched_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 reviews that say just "good" on either side would make 400 million pairs."""
    pairs: list[int] = []

    def counting(needles: Words, hay: Words) -> tuple[np.ndarray, np.ndarray]:
        found = find_spans(needles, hay)
        pairs.append(len(found[0]))
        return found

    monkeypatch.setattr("archsmith.tasks.split.find_spans", counting)
    loser, winner = Words.of(["good", "the plot", "bad"] * 2000), Words.of(["good", "all the plot"] * 2000)
    masks = overlap(loser, winner)
    assert masks["duplicates"].tolist() == [True, False, False] * 2000
    assert masks["phrases"].tolist() == [False, True, False] * 2000
    assert sum(pairs) <= 4


def test_a_sentence_and_its_phrases_are_one_group() -> None:
    texts = ["the plot is far too slow", "far too slow", "is far too slow", "great fun", "The plot is far too slow!"]
    groups, leads = group(Words.of(texts))
    assert len(set(groups[[0, 1, 2, 4]])) == 1
    assert groups[3] != groups[0]
    assert leads.tolist() == [True, False, False, True, False]


def test_four_characters_are_a_short_phrase() -> None:
    """Each Chinese character is compared as a word of its own, but says as much as half of one."""
    texts = ["这个菜味道不错我很喜欢", "他家的汤味道不错就是贵", "味道不错"]
    groups, _ = group(Words.of(texts))
    assert groups[0] != groups[1]
    longer = ["服务员态度也非常好啊", "他说服务员态度也非常好", "服务员态度也非常好"]
    groups, _ = group(Words.of(longer))
    assert groups[0] == groups[1] == groups[2]


def test_vowel_signs_are_part_of_a_word() -> None:
    assert len(set(Words.of(["का", "की", "के"]).keys.tolist())) == 3


def test_a_group_that_is_larger_than_a_part_should_be_stays_in_train() -> None:
    text = " ".join(f"w{i}" for i in range(200))
    phrases = [" ".join(f"w{i}" for i in range(at, at + 5)) for at in range(100)]
    kept, _ = split(rows([text, *phrases, *(f"word{i} unlike{i}" for i in range(100))]), {}, np.random.default_rng(0))
    assert set(range(101)) <= set(kept["train"].tolist())


def test_a_short_phrase_of_many_texts_ties_nothing() -> None:
    groups, _ = group(Words.of(["good film about love", "one more good film", "good film"]))
    assert groups[0] != groups[1]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=7).map(" ".join), min_size=40, max_size=60))
def test_no_train_text_is_in_a_held_text(texts: list[str]) -> None:
    groups, leads = group(Words.of(texts))
    if len(np.unique(groups[leads])) < 8:
        return
    kept, report = split(rows(texts), {}, np.random.default_rng(0), {"validation": 0.2, "holdout": 0.2})
    held = [texts[i] for part in ("validation", "holdout") for i in kept[part]]
    assert not [(i, text) for i in kept["train"] for text in held if is_span(texts[i], text)]
    assert not set(kept["validation"]) & set(kept["holdout"])
    removed = sum(sum(c.values()) for c in (report.duplicates, report.phrases, report.quotations))
    assert sum(report.rows.values()) + report.set_aside + removed == len(texts)


def test_a_split_is_stratified_and_the_same_for_the_same_generator() -> None:
    texts = [f"word{i} unlike{i}" for i in range(1000)]
    strata = (np.arange(1000) % 10 == 0).astype(np.int64)
    data = Rows(texts, strata, "d.tsv")
    kept, report = split(data, {}, np.random.default_rng(3))
    again, _ = split(data, {}, np.random.default_rng(3))
    other, _ = split(data, {}, np.random.default_rng(4))
    assert report.rows == {"train": 800, "validation": 100, "holdout": 100}
    assert all(strata[kept[part]].mean() == pytest.approx(0.1, abs=0.011) for part in kept)
    assert all(np.array_equal(kept[part], again[part]) for part in kept)
    assert not np.array_equal(kept["validation"], other["validation"])


def test_given_parts_keep_their_rows_and_take_them_from_train() -> None:
    data = rows([f"word{i} unlike{i}" for i in range(40)])
    validation, holdout = rows(["word1 unlike1", "fresh one", "WORD2 unlike2"]), rows(["word2 unlike2", "fresh two"])
    kept, report = split(data, {"validation": validation, "holdout": holdout}, np.random.default_rng(0))
    assert kept["holdout"].tolist() == [0, 1]
    assert kept["validation"].tolist() == [0, 1]
    assert set(range(40)) - set(kept["train"]) == {1, 2}
    assert report.duplicates == {"validation in holdout": 1, "train in holdout": 1, "train in validation": 1}
    assert (report.split_off, report.set_aside) == ((), 0)


def test_sst2_keeps_a_sentence_and_its_phrases_together() -> None:
    train, dev = read(shared_path("data/sst2/train.tsv")), read(shared_path("data/sst2/dev.tsv"))
    texts, held = train.strings("sentence"), dev.strings("sentence")
    kept, report = split(rows(texts), {"holdout": rows(held)}, np.random.default_rng(0))
    assert report.rows["holdout"] == 872
    assert 650 < report.rows["validation"] < 720
    assert report.rows["train"] > 57_000
    validation = [f" {' '.join(words(texts[i]))} " for i in kept["validation"]]
    for i in kept["train"][::500]:
        assert not any(f" {' '.join(words(texts[i]))} " in text for text in validation)
