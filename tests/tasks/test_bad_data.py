"""Every fault of the user's data is one line that names the law, the value, the place and the way out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from archsmith.errors import BadInput
from archsmith.tasks import SentenceEmbedding, TextClassification

WORDS = ("good", "bad", "great", "dull", "slow", "fast", "fun", "film", "plot", "actor", "music", "very", "not", "is")


def sentence(i: int) -> str:
    rng = np.random.default_rng(i)
    return " ".join(rng.choice(WORDS, 9))


def table(separator: str = "\t", rows: int = 40, header: str = "label\ttext") -> str:
    lines = [header.replace("\t", separator)]
    return "\n".join(lines + [f"{i % 2}{separator}{sentence(i)}" for i in range(rows)]) + "\n"


GOOD = table()
# name of the case: (file name, its bytes, options, what the message must say in this order)
Case = tuple[str, str | bytes, dict[str, Any], list[str]]
CASES: dict[str, Case] = {
    "missing file": ("-absent.tsv", "", {}, ["must exist", "absent.tsv", "Check the path"]),
    "unknown ending": ("d.xlsx", "x", {}, ["must end in .csv", "d.xlsx"]),
    "empty file": ("d.tsv", "", {}, ["first line must name the columns", "d.tsv:1"]),
    "header only": ("d.tsv", "label\ttext\n", {}, ["at least one row", "d.tsv"]),
    "blank lines only": ("d.csv", "\n\n \n", {}, ["first line must name the columns", "d.csv"]),
    "undecodable byte": ("d.tsv", GOOD.encode() + b"1\tcaf\xe9 is good\n", {}, ["UTF-8", "0xe9", "offset", "d.tsv:42"]),
    "UTF-16": ("d.csv", table(",").encode("utf-16"), {}, ["UTF-8", "0xff at offset 0", "d.csv:1"]),
    "ragged TSV row": ("d.tsv", GOOD + "1\tgood\textra\n", {}, ["2 fields", "found 3", "d.tsv:42"]),
    "short TSV row": ("d.tsv", GOOD + "1\n", {}, ["2 fields", "found 1", "d.tsv:42"]),
    "ragged CSV row": ("d.csv", table(",") + "1,good,bad\n", {}, ["2 fields", "found 3", "d.csv:42"]),
    "CSV line after a long record": ("d.csv", 'label,text\n1,"a\nb"\n0\n', {}, ["2 fields", "d.csv:4"]),
    "open quote in CSV": ("d.csv", table(",") + '1,"good film\n', {}, ["well formed", "d.csv:42"]),
    "column named twice": ("d.tsv", "text\ttext\na\tb\n", {}, ["names must differ", "'text' twice", "d.tsv:1"]),
    "wrong label column": ("d.tsv", GOOD, {"label": "stars"}, ["must exist", "'stars'", "d.tsv", "label, text"]),
    "wrong text column": ("d.tsv", GOOD, {"text": "body"}, ["must exist", "'body'", "d.tsv", "label, text"]),
    "wrong second text": ("d.tsv", GOOD, {"text": "text,body"}, ["must exist", "'body'", "label, text"]),
    "three texts": ("d.tsv", GOOD, {"text": "a,b,c"}, ["one column or two", "'a,b,c'"]),
    "text is the label": ("d.tsv", GOOD, {"text": "label"}, ["different columns", "'label'"]),
    "no label to find": ("d.tsv", table(header="p\tq"), {}, ["label column must be known", "p, q", "--label"]),
    "no text to find": ("d.tsv", "label\tp\tq\n0\ta\tb\n", {}, ["text column must be known", "p, q", "--text"]),
    "empty text": ("d.tsv", GOOD + "1\t \n", {}, ["'text' must hold", "nothing", "d.tsv:42"]),
    "empty label": ("d.tsv", GOOD + "\tgood film\n", {}, ["'label' must hold", "nothing", "d.tsv:42"]),
    "one class": ("d.tsv", GOOD.replace("\n0\t", "\n1\t"), {}, ["two classes", "'1'", "d.tsv"]),
    "labels that never repeat": (
        "d.tsv",
        "label\ttext\n" + "".join(f"{i}.5\t{sentence(i)}\n" for i in range(30)),
        {},
        ["labels must repeat", "30 different labels in 30 rows", "--label"],
    ),
    "label the model has not": (
        "d.tsv",
        GOOD.replace("\n0\t", "\nugly\t").replace("\n1\t", "\nPos\t"),
        {"labels": {"NEG": 0, "POS": 1}},
        ["one of the model's", "'ugly'", "d.tsv", "NEG (0), POS (1)"],
    ),
    "number the model has not": (
        "d.tsv",
        GOOD.replace("\n0\t", "\n2\t"),
        {"labels": {"LABEL_0": 0, "LABEL_1": 1}},
        ["one of the model's", "'2'", "LABEL_1 (1)"],
    ),
    "two spellings of one label": (
        "d.tsv",
        GOOD.replace("\n0\t", "\npos\t").replace("\n1\t", "\nPOS\t"),
        {"labels": {"neg": 0, "pos": 1}},
        ["stay different", "POS, pos"],
    ),
    "too little to split": ("d.tsv", table(rows=4), {}, ["at least 6 unrelated examples", "found 4", "--validation"]),
    "one text over and over": (
        "d.tsv",
        "label\ttext\n" + "0\tgood\n1\tgood\n" * 20,
        {},
        ["unrelated examples", "found 1"],
    ),
    "unknown metric": ("d.tsv", GOOD, {"metric": "bleu"}, ["metric must be known", "'bleu'", "accuracy"]),
    "tiny max_length": ("d.tsv", GOOD, {"max_length": 2}, ["at least 4 tokens", "found 2"]),
    "greedy fractions": ("d.tsv", GOOD, {"fractions": {"validation": 0.95}}, ["leave something to train", "0.95"]),
    "negative fraction": ("d.tsv", GOOD, {"fractions": {"holdout": -0.1}}, ["between 0 and 1", "-0.1"]),
    "broken JSON line": ("d.jsonl", '{"label": 0, "text": "a"}\n{"label"\n', {}, ["one JSON object", "d.jsonl:2"]),
    "JSON list": ("d.json", '[{"label": 0}]\n', {}, ["one JSON object", "a list", "d.json:1", "one object a line"]),
    "JSON keys differ": (
        "d.jsonl",
        '{"label": 0, "text": "a"}\n{"label": 1, "txt": "b"}\n',
        {},
        ["keys of the first", "text, txt", "d.jsonl:2"],
    ),
    "JSON null text": ("d.jsonl", '{"label": 0, "text": null}\n', {}, ["'text' must hold", "nothing", "d.jsonl:1"]),
    "JSON nested text": ("d.jsonl", '{"label": 0, "text": ["a"]}\n', {}, ["'text' must hold", "['a']", "d.jsonl:1"]),
    "JSON deep nesting": ("d.jsonl", "[" * 100_000 + "\n", {}, ["one JSON object", "d.jsonl:1"]),
    "half an emoji": (
        "d.jsonl",
        '{"label": 0, "text": "a \\ud83d"}\n',
        {},
        ["'text' must hold text", "surrogate", "d.jsonl:1"],
    ),
    "parquet that is none": ("d.parquet", "PAR1 but not really", {}, ["parquet file must be intact", "d.parquet"]),
    "not a data set either": ("no-such/data-set", "", {}, ["file that exists", "no-such/data-set"]),
}


def message(error: pytest.ExceptionInfo[BadInput]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert error.value.exit_code == 2
    return text


def in_order(text: str, pieces: list[str]) -> None:
    at = 0
    for piece in pieces:
        found = text.find(piece, at)
        assert found >= 0, f"{piece!r} is not in its place in {text!r}"
        at = found + len(piece)


@pytest.mark.parametrize("case", CASES)
def test_bad_training_data_is_named(case: str, tmp_path: Path, tokenizer: Any) -> None:
    name, data, options, pieces = CASES[case]
    path: str | Path = tmp_path / name.removeprefix("-")
    if "/" in name:
        path = name
    elif not name.startswith("-"):
        Path(path).write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(BadInput) as error:
        TextClassification.from_files(path, tokenizer=tokenizer, rng=np.random.default_rng(0), **options)
    in_order(message(error), pieces)


HELD: dict[str, tuple[str, list[str]]] = {
    "unseen label": (
        "label\ttext\n0\tfun plot\n7\tfun actor\n",
        ["occur in the training data", "'7'", "h.tsv:3", "0, 1"],
    ),
    "other columns": ("y\ttext\n0\tfun plot\n", ["named column must exist", "'label'", "h.tsv", "y, text"]),
    "the training rows again": (GOOD, ["must have texts that are not in", "none"]),
    "empty": ("label\ttext\n", ["at least one row", "h.tsv"]),
    "empty text": ("label\ttext\n0\t\n", ["must hold", "h.tsv:2"]),
}


@pytest.mark.parametrize("part", ["validation", "holdout"])
@pytest.mark.parametrize("case", HELD)
def test_bad_held_out_data_is_named(case: str, part: str, tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "d.tsv").write_text(GOOD)
    (tmp_path / "h.tsv").write_text(HELD[case][0])
    files: dict[str, Any] = {part: tmp_path / "h.tsv"}
    with pytest.raises(BadInput) as error:
        TextClassification.from_files(tmp_path / "d.tsv", tokenizer=tokenizer, rng=np.random.default_rng(0), **files)
    in_order(message(error), HELD[case][1])


def test_one_file_cannot_be_two_parts(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "d.tsv"
    path.write_text(GOOD)
    with pytest.raises(BadInput, match="train and holdout must be different files"):
        TextClassification.from_files(path, None, path, tokenizer=tokenizer, rng=np.random.default_rng(0))


def test_a_folder_with_a_file_ending_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "d.tsv").mkdir()
    with pytest.raises(BadInput, match="must be a file"):
        TextClassification.from_files(tmp_path / "d.tsv", tokenizer=tokenizer, rng=np.random.default_rng(0))


def test_a_text_without_tokens_is_named(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "d.tsv").write_text(GOOD + "1\t\u200b\u200b\n")

    def bare(*texts: Any, **options: Any) -> Any:
        return tokenizer(*texts, **{**options, "add_special_tokens": False})

    for name in ("pad_token_id", "eos_token_id", "mask_token_id", "padding_side", "model_max_length"):
        setattr(bare, name, getattr(tokenizer, name))
    (tmp_path / "h.tsv").write_text("label\ttext\n0\tfun fun fun\n")
    with pytest.raises(BadInput, match=r"at least one token.*d\.tsv:42"):
        TextClassification.from_files(
            tmp_path / "d.tsv",
            tmp_path / "h.tsv",
            tokenizer=bare,
            rng=np.random.default_rng(0),
            fractions={"holdout": 0.02},
        )


EMBEDDING: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "one text column": ("text\n" + "good\n" * 9, {}, ["two text columns", "text", "d.tsv", "--text"]),
    "not recall": ("a\tb\nx\ty\n", {"metric": "accuracy"}, ["recall@k", "'accuracy'", "recall@10"]),
    "recall at nothing": ("a\tb\nx\ty\n", {"metric": "recall@0"}, ["recall@k", "'recall@0'"]),
    "empty half": ("a\tb\nx\t\n", {}, ["'b' must hold", "nothing", "d.tsv:2"]),
}


@pytest.mark.parametrize("case", EMBEDDING)
def test_bad_pairs_are_named(case: str, tmp_path: Path, tokenizer: Any) -> None:
    data, options, pieces = EMBEDDING[case]
    (tmp_path / "d.tsv").write_text(data)
    with pytest.raises(BadInput) as error:
        SentenceEmbedding.from_files(tmp_path / "d.tsv", tokenizer=tokenizer, rng=np.random.default_rng(0), **options)
    in_order(message(error), pieces)


def test_a_missing_datasets_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match=r"archsmith\[datasets\]"):
        TextClassification.from_files("some/name", tokenizer=tokenizer, rng=np.random.default_rng(0))


Writer = Callable[[Path, list[dict[str, Any]]], Path]


def _parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path / "d.parquet")
    return path / "d.parquet"


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    (path / "d.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return path / "d.jsonl"


@pytest.mark.parametrize(("writer", "place"), [(_parquet, "row 3"), (_jsonl, "d.jsonl:3")])
def test_a_null_is_placed_by_row_where_there_are_no_lines(
    writer: Writer, place: str, tmp_path: Path, tokenizer: Any
) -> None:
    path = writer(
        tmp_path, [{"label": 0, "text": "good"}, {"label": 1, "text": "bad"}, {"label": None, "text": "dull"}]
    )
    with pytest.raises(BadInput, match=place):
        TextClassification.from_files(path, tokenizer=tokenizer, rng=np.random.default_rng(0))
