"""Pictures: every form of data gives the same ones; what is made of them; what bad data gets."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from archsmith.errors import ArchsmithError, BadInput
from archsmith.tasks import ImageClassification
from archsmith.tasks.picture_files import read_pictures
from archsmith.tasks.pictures import Pictures, Preparation

PREPARED = Preparation(8, 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def some_pictures(count: int = 60, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 120, (count, side, side, 3)) + 60 * labels[:, None, None, None]
    return pixels.astype(np.uint8), labels


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(kind: str, folder: Path, pixels: np.ndarray, labels: np.ndarray) -> Path:
    if kind == "folder":
        for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
            home = folder / "pictures" / f"class{label}"
            home.mkdir(parents=True, exist_ok=True)
            (home / f"{number:03}.png").write_bytes(encoded(picture))
        return folder / "pictures"
    if kind == "npz":
        np.savez(folder / "d.npz", images=pixels, labels=labels)
        return folder / "d.npz"
    rows: list[Any] = [encoded(picture) for picture in pixels]
    if kind == "structs":
        rows = [{"bytes": row, "path": None} for row in rows]
    pyarrow.parquet.write_table(pyarrow.table({"image": rows, "label": labels}), folder / "d.parquet")
    return folder / "d.parquet"


def build(path: Path, **options: Any) -> ImageClassification:
    return ImageClassification.from_files(path, prepared=PREPARED, rng=np.random.default_rng(0), **options)


@pytest.mark.parametrize("kind", ["folder", "npz", "parquet", "structs"])
def test_every_form_of_data_gives_the_pictures(kind, tmp_path):
    pixels, labels = some_pictures()
    task = build(write(kind, tmp_path, pixels, labels))
    assert task.classes == 3 and sum(task.split.rows.values()) == 60
    assert {part: task.size(part) for part in ("validation", "holdout")} == {"validation": 6, "holdout": 6}
    inputs = task.inputs("train", [0, 5])["pixel_values"]
    assert inputs.shape == (2, 3, 8, 8) and inputs.dtype == torch.float32
    back = ((inputs * 0.25 + 0.5) * 255).round().permute(0, 2, 3, 1).numpy().astype(np.uint8)
    originals = {picture.tobytes(): int(label) for picture, label in zip(pixels, labels, strict=True)}
    assert [originals[picture.tobytes()] for picture in back] == task.targets("train", [0, 5]).tolist()


def test_the_parts_share_no_picture_and_the_holdout_is_sealed(tmp_path):
    pixels, labels = some_pictures(40)
    twice = np.concatenate([pixels, pixels]), np.concatenate([labels, labels])
    task = build(write("npz", tmp_path, *twice))
    with pytest.raises(ArchsmithError, match="sealed"):
        task.inputs("holdout", [0])
    task.open_holdout()
    seen = {part: {p.tobytes() for p in task.parts[part].pixels} for part in ("train", "validation", "holdout")}
    assert not seen["train"] & seen["validation"] and not seen["train"] & seen["holdout"]
    assert not seen["validation"] & seen["holdout"] and task.size("holdout") == 4
    assert task.split.set_aside == 8


def test_a_picture_that_is_in_two_files_leaves_the_one_that_teaches(tmp_path):
    pixels, labels = some_pictures()
    for name, rows in (("a", slice(0, 60)), ("b", slice(40, 60))):
        (tmp_path / name).mkdir()
        write("npz", tmp_path / name, pixels[rows], labels[rows])
    task = build(tmp_path / "a" / "d.npz", holdout=tmp_path / "b" / "d.npz")
    assert task.size("holdout") == 20 and task.split.duplicates["train in holdout"] > 10
    assert sum(task.split.rows.values()) == 60


def test_made_pictures_are_their_recipes():
    pixels, _ = some_pictures(5)
    plain = Pictures.of(pixels)
    more = plain.extended(200, np.random.default_rng(1))
    assert len(more) == 205 and np.array_equal(more.take([0, 4]), pixels[[0, 4]])
    again = plain.extended(200, np.random.default_rng(1))
    rows = list(range(3, 205))
    assert np.array_equal(more.take(rows), again.take(rows))
    still = (more.share == 1) & ~more.turned & ~more.shift.any(1)
    turned = (more.share == 1) & more.turned & ~more.shift.any(1)
    assert still.any() and turned.any()
    for kind, expected in ((still, pixels), (turned, pixels[:, :, ::-1])):
        row = int(np.flatnonzero(kind)[0])
        assert np.array_equal(more.take([5 + row])[0], expected[more.sources[row, 0]])
    mixed = int(np.flatnonzero(more.share < 1)[0])
    assert 0.5 <= more.share[mixed] < 1 and more.take(rows).min() >= 0 and more.take(rows).max() <= 255
    down = (more.share == 1) & ~more.turned & (more.shift == [1, 0]).all(1)
    row = int(np.flatnonzero(down)[0])
    assert np.array_equal(more.take([5 + row])[0][:-1], pixels[more.sources[row, 0]][1:])


def test_a_task_with_made_rows_has_no_labels_for_them(tmp_path):
    task = build(write("npz", tmp_path, *some_pictures()))
    longer = task.extended(7, np.random.default_rng(0))
    real = task.size("train")
    assert longer.size("train") == real + 7 and longer.targets("train", [0, real]).tolist()[1] == -100
    outputs = np.zeros((real + 7, 3))
    assert len(longer.judge(outputs, "train")) == real
    assert sorted(row for rows in longer.batches("train", 8, np.random.default_rng(0)) for row in rows) == list(
        range(real + 7)
    )


def test_a_preparation_follows_the_processor():
    said = {"size": {"shortest_edge": 10}, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
    prepared = Preparation.of(said, torch.zeros(1, 3, 8, 8))
    wide = np.zeros((20, 40, 3), dtype=np.uint8)
    wide[:, 15:25] = 255  # the middle, which is what the cut keeps
    assert prepared.decode(encoded(wide), "here").mean() > 125
    assert Preparation.of({}, torch.zeros(1, 3, 8, 8)).decode(encoded(wide), "here").mean() < 70
    grey = Preparation.of({}, torch.zeros(1, 1, 28, 28))
    assert grey.decode(np.eye(28, dtype=np.float32), "here").shape == (28, 28, 1) and len(grey.mean) == 1
    values = prepared.scaled(np.full((1, 8, 8, 3), 255, dtype=np.uint8))
    assert values[0, :, 0, 0].tolist() == pytest.approx([0.9, 0.8, 0.7])


BAD = {
    "no such folder": (lambda folder: folder / "none", "data must be a file that exists"),
    "an empty folder": (lambda folder: folder, "a folder for each class"),
    "not a picture": (lambda folder: broken(folder), "003.png"),
    "an archive without labels": (lambda folder: archive(folder, images=some_pictures()[0]), "labels"),
    "an archive that does not fit": (
        lambda folder: archive(folder, images=some_pictures()[0], labels=np.arange(3)),
        "n labels",
    ),
    "objects in an archive": (lambda folder: archive(folder, images=np.array([{}]), labels=[0]), "plain arrays"),
    "an empty archive": (lambda folder: raw(folder, b""), "plain arrays"),
    "half an archive": (lambda folder: raw(folder, half(folder)), "plain arrays"),
    "one array by the name of an archive": (lambda folder: one_array(folder), "plain arrays"),
    "pictures that are scaled": (lambda folder: archive(folder, images=scaled(-1.0), labels=CLASSES), "-1 to 1"),
    "pictures with a hole": (lambda folder: archive(folder, images=scaled(np.nan), labels=CLASSES), "nan"),
    "a label that is none": (
        lambda folder: archive(folder, images=some_pictures()[0], labels=np.where(CLASSES, np.nan, 1.0)),
        "row 2",
    ),
    "a table without pictures": (lambda folder: lines(folder, {"a": "x", "label": 0}), "bytes"),
    "one class": (lambda folder: write("npz", folder, some_pictures()[0], np.zeros(60, int)), "two classes"),
}


def broken(folder: Path) -> Path:
    path = write("folder", folder, *some_pictures())
    (path / "class0" / "003.png").write_bytes(b"no picture")
    return path


CLASSES = np.arange(60) % 2


def raw(folder: Path, content: bytes) -> Path:
    (folder / "d.npz").write_bytes(content)
    return folder / "d.npz"


def half(folder: Path) -> bytes:
    whole = write("npz", folder, *some_pictures()).read_bytes()
    return whole[: len(whole) // 2]


def one_array(folder: Path) -> Path:
    with (folder / "d.npz").open("wb") as file:
        np.save(file, some_pictures()[0])
    return folder / "d.npz"


def scaled(least: float) -> np.ndarray:
    pictures = some_pictures()[0] / 255
    pictures.flat[:2] = least, 1.0
    return pictures


def archive(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "d.npz", **arrays)
    return folder / "d.npz"


def lines(folder: Path, row: dict[str, Any]) -> Path:
    (folder / "d.jsonl").write_text("\n".join(json.dumps(row) for _ in range(9)))
    return folder / "d.jsonl"


@pytest.mark.parametrize("kind", [np.float32, np.int64, bool])
def test_fractions_of_one_are_pixels_of_a_whole_archive(kind, tmp_path):
    steps = 3 if kind is np.float32 else 2  # the first also has halves
    pixels = (np.random.default_rng(0).integers(0, steps, (60, 4, 4, 3)) / (steps - 1)).astype(kind)
    values = {int(value) for value in np.unique(read_pictures(archive(tmp_path, images=pixels, labels=CLASSES)).data)}
    assert values == ({0, 128, 255} if kind is np.float32 else {0, 255})


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_refused_with_its_place(case, tmp_path):
    make, said = BAD[case]
    with pytest.raises(BadInput, match=said):
        build(make(tmp_path))


def test_a_models_own_name_for_its_input_is_kept(tmp_path):
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    task = build(write("npz", tmp_path, *some_pictures()), argument="x")
    wrapped, inputs = task.wrap(Mean()).eval(), task.example(3, 1)
    assert list(inputs) == list(task.dynamic()) == ["x"]
    outputs = wrapped(**inputs)
    assert outputs.shape == (3, 3) and torch.equal(outputs, wrapped(inputs["x"]))
    program = torch.export.export(wrapped, (), inputs, dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    more = task.example(5, 1)
    assert torch.equal(program.module()(**more), wrapped(**more))
