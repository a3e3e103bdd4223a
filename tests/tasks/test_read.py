"""The same rows come out of every format."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from archsmith.tasks.columns import find_label, find_texts
from archsmith.tasks.read import Table, read

ROWS = [("0", 'the "film" is, well, bad'), ("1", "很好看的电影"), ("1", "café ☕ naïve")]


def written(folder: Path, kind: str) -> Path:
    path = folder / f"d.{kind}"
    if kind == "tsv":
        path.write_text("label\ttext\n" + "".join(f"{a}\t{b}\n" for a, b in ROWS))
    elif kind == "csv":
        quoted = "".join('{},"{}"\r\n'.format(a, b.replace('"', '""')) for a, b in ROWS)
        path.write_bytes(("\ufefflabel,text\r\n" + quoted).encode())
    elif kind == "parquet":
        pyarrow.parquet.write_table(
            pyarrow.table({"label": [int(a) for a, _ in ROWS], "text": [b for _, b in ROWS]}), path
        )
    else:
        lines = [json.dumps({"label": int(a), "text": b}, ensure_ascii=kind == "json") for a, b in ROWS]
        path.write_text("\n\n".join(lines))
    return path


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "ndjson", "json", "parquet"])
def test_every_format_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    table = read(written(tmp_path, kind))
    assert list(zip(table.strings("label"), table.strings("text"), strict=True)) == ROWS


@pytest.mark.parametrize(
    ("kind", "place"), [("tsv", "d.tsv:4"), ("jsonl", "d.jsonl:5"), ("parquet", "d.parquet, row 3")]
)
def test_a_row_knows_its_place(kind: str, place: str, tmp_path: Path) -> None:
    assert read(written(tmp_path, kind)).place(2).endswith(place)


def test_a_record_of_several_lines_is_placed_where_it_begins(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text('label,text\n1,"a\nb"\n0,c\n')
    table = read(tmp_path / "d.csv")
    assert (table.strings("text"), table.lines) == (["a\nb", "c"], [2, 4])


def test_a_quote_in_tsv_is_text(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text('label\ttext\n1\t"half a quote\n0\tthe next row\n')
    assert read(tmp_path / "d.tsv").strings("text") == ['"half a quote', "the next row"]


def test_a_datasets_folder_is_read_by_split(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "train.csv").write_text("label,text\n0,bad film\n1,good film\n")
    (tmp_path / "test.csv").write_text("label,text\n1,great fun\n")
    assert read(tmp_path).strings("text") == ["bad film", "good film"]
    assert read(f"{tmp_path}:test").strings("label") == ["1"]


TABLES: list[tuple[str, str, tuple[str, ...]]] = [
    ("label sentence", "label", ("sentence",)),
    ("Sentiment id Review", "Sentiment", ("Review",)),
    ("idx premise hypothesis label", "label", ("premise", "hypothesis")),
    ("stars text", "stars", ("text",)),
    ("label words", "label", ("words",)),
    ("target question answer", "target", ("question", "answer")),
]


@pytest.mark.parametrize(("names", "label", "texts"), TABLES)
def test_columns_are_found_by_usual_names(names: str, label: str, texts: tuple[str, ...]) -> None:
    table = Table("d", {name: ["x"] for name in names.split()})
    assert find_label(table) == label
    assert find_texts(table, label=label) == texts
