"""Intervals, augmentation, frames of other tokenizers, docstrings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from archsmith.errors import BadInput
from archsmith.tasks import mcnemar, paired_interval
from archsmith.tasks.augment import augmented
from archsmith.tasks.docstrings import clean_pair, docstring_pairs, package_pairs, source_pairs
from archsmith.tasks.encodings import Encodings, Frame, pad
from archsmith.tasks.read import read
from archsmith.tasks.vocabulary import in_words, learnt_tokenizer

FRAME = Frame((1,), (), (2,), pad=0, pad_left=False, mask=3)


def test_texts_are_cut_into_words_by_any_segmenter(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text,id,label\n这部电影好看,1,pos\n难看 的电影,2,neg\n", encoding="utf-8")
    file = in_words(str(tmp_path / "reviews.csv"), tmp_path / "words.tsv", lambda text: re.findall("..?", text))
    assert file.read_text(encoding="utf-8") == "label\ttext\npos\t这部 电影 好看\nneg\t难看 的 电影\n"
    with pytest.raises(BadInput, match=r"finds; found none at .*reviews[.]csv:2"):
        in_words(str(tmp_path / "reviews.csv"), tmp_path / "none.tsv", lambda text: [])
    (tmp_path / "odd.csv").write_text('says,kind of\n好看,"a\tb"\n难看,c\n', encoding="utf-8")
    in_words(str(tmp_path / "odd.csv"), tmp_path / "odd.tsv", list, label="kind of", text="says")
    assert read(tmp_path / "odd.tsv").strings("label") == ["a b", "c"]
    texts = read(file).strings("text")
    assert learnt_tokenizer(texts, least=1, characters=False).tokenize("电影 难看") == ["电影", "难看"]
    assert learnt_tokenizer(texts, least=1).tokenize("电影") == ["电", "影"]


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        first, second = rng.random(400) < 0.9, rng.random(400) < 0.85
        found = paired_interval(first, second, rng, resamples=400)
        covered += found.low <= -5.0 <= found.high
    assert 0.91 <= covered / 300 <= 0.98


def test_the_short_way_and_the_long_way_agree() -> None:
    rng = np.random.default_rng(1)
    first, second = (rng.random((2, 500)) < 0.8).astype(float)

    def quality(judged: np.ndarray, rows: np.ndarray | None) -> float:
        return 100.0 * float(np.mean(judged if rows is None else judged[rows]))

    short = paired_interval(first, second, np.random.default_rng(2), resamples=4000)
    long = paired_interval(first, second, np.random.default_rng(3), quality, resamples=4000)
    normal = norm.ppf(0.975) * 100 * np.std(second - first) / np.sqrt(500)
    assert short.difference == pytest.approx(long.difference)
    for found in (short, long):
        assert (found.high - found.low) / 2 == pytest.approx(normal, rel=0.06)


def test_of_examples_that_overlap_blocks_cover_the_truth_and_single_ones_do_not() -> None:
    """Each example is the mean of 20 steps, as windows of a series are."""
    rng, covered = np.random.default_rng(2), {1: 0, 40: 0}
    for _ in range(60):
        better = np.convolve(rng.normal(0.1, 1.0, 819), np.ones(20) / 20, mode="valid")
        for block in covered:
            found = paired_interval(np.zeros(800), better, rng, resamples=200, block=block)
            covered[block] += found.low <= 10.0 <= found.high
    assert covered[1] < 36 and covered[40] >= 50
    short = paired_interval(np.zeros(10), better[:10], rng, resamples=300, block=1000)
    assert short.low < short.difference < short.high  # blocks are never so long that every draw is the same


def test_a_comparison_of_different_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="same examples"):
        paired_interval(np.zeros(3), np.zeros(4), np.random.default_rng(0))


def test_mcnemar_of_equal_classifiers_is_one() -> None:
    assert mcnemar(np.ones(5, bool), np.ones(5, bool)) == 1.0


@pytest.mark.parametrize("mask", [3, None])
def test_augmented_texts_are_made_of_the_given_tokens(mask: int | None) -> None:
    rows = [[1, *range(10 * i, 10 * i + 3 + i % 5), 2] for i in range(1, 40)]
    made = augmented(Encodings.of(rows), Frame((1,), (), (2,), 0, False, mask), 3000, np.random.default_rng(0))
    assert len(made) == 3000
    assert (made.ids[made.offsets[:-1]] == 1).all()
    assert (made.ids[made.offsets[1:] - 1] == 2).all()
    assert made.lengths.min() >= 3
    assert made.lengths.max() <= max(map(len, rows))
    assert set(made.ids.tolist()) <= {token for row in rows for token in row} | {3}
    assert bool((made.ids == 3).any()) is (mask is not None)
    whole = {tuple(row) for row in rows}
    fresh = sum(tuple(made.row(i).tolist()) not in whole for i in range(3000))
    assert fresh > 1500
    splices = sum(len({token // 10 for token in made.row(i)[1:-1].tolist() if token != 3}) > 1 for i in range(3000))
    assert 700 < splices < 1200


def test_nothing_is_made_of_texts_without_tokens() -> None:
    assert len(augmented(Encodings.of([[1, 2], [1, 2]]), FRAME, 5, np.random.default_rng(0))) == 0


def test_padding_follows_the_tokenizer_s_side() -> None:
    rows = Encodings.of([[1, 7, 2], [1, 2]])
    left = pad(rows, [0, 1], Frame((1,), (), (2,), 0, True, None))
    assert left["input_ids"].tolist() == [[1, 7, 2], [0, 1, 2]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]
    assert pad(rows, [1, 0], FRAME)["input_ids"].tolist() == [[1, 2, 0], [1, 7, 2]]


def test_joined_encodings_keep_their_rows() -> None:
    a, b = Encodings.of([[1], [2, 3]]), Encodings.of([[], [4, 5, 6]])
    both = a.followed_by(b)
    assert [both.row(i).tolist() for i in range(4)] == [[1], [2, 3], [], [4, 5, 6]]
    assert [both.take(np.array([3, 1])).row(i).tolist() for i in range(2)] == [[4, 5, 6], [2, 3]]


DOCSTRINGS: list[tuple[str, tuple[str, str] | None]] = [
    ("Too short.\n\n" + "word " * 40, None),
    ("A summary without anything that follows it.", None),
    ("A summary with a poor rest.\n\nToo short.", None),
    (
        "Sort the `rows` of a\ntable.\n\nSee :func:`~lib.order` for how.\n\nParameters\n----------\n"
        + "x : array\n    >>> not_this()\n"
        + "What is sorted, one row after the other. " * 3,
        (
            "Sort the rows of a table.",
            "See lib.order for how. Parameters x : array " + "What is sorted, one row after the other. " * 2
            + "What is sorted, one row after the other.",
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("docstring", "wanted"), DOCSTRINGS)
def test_a_pair_is_plain_words(docstring: str, wanted: tuple[str, str] | None) -> None:
    assert clean_pair(docstring) == wanted


def test_sources_are_read_and_never_run(tmp_path: Path) -> None:
    rest = "This would end the world if it were ever run, so it is only read by those who are careful."
    source = f'raise SystemExit\ndef end():\n    """End the world at once.\n\n    {rest}"""\n'
    assert list(source_pairs(source.encode())) == [("End the world at once.", rest)]
    assert list(source_pairs(b'"""broken"""\ndef (')) == []
    assert list(package_pairs("no_such_package_anywhere")) == []


def test_packages_share_no_pair_and_come_in_the_same_order() -> None:
    packages: dict[Any, Any] = {
        "train": ("optuna",),
        "validation": ("jinja2", "rich"),
        "holdout": ("networkx", "absent"),
    }
    pairs = docstring_pairs(packages)
    assert pairs == docstring_pairs(packages)
    assert len(pairs["holdout"]) > 800
    texts = [text.casefold() for rows in pairs.values() for pair in rows for text in pair]
    assert len(texts) == len(set(texts))


def test_a_part_without_a_package_is_refused() -> None:
    with pytest.raises(BadInput, match="no_such_package"):
        docstring_pairs({"train": ("no_such_package",), "validation": ("jinja2",), "holdout": ("rich",)})
