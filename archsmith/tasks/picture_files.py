"""Labelled pictures from a folder of folders, from parquet or a `datasets` name, or from arrays in an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.errors import BadInput, first_line
from archsmith.tasks.columns import find_label
from archsmith.tasks.read import Table, read

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
PICTURES = ("image", "img", "picture", "photo", "images", "x", "pixels", "data")
LABELS = ("label", "labels", "y", "target", "targets")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures as they are in the source, encoded or as arrays, with the name of a label and of the place of each."""

    source: str
    data: Sequence[bytes | np.ndarray]
    labels: Sequence[str]
    places: Sequence[str]


def read_pictures(source: str | Path, label: str | None = None) -> Labelled:
    """Read a folder with a folder for each class, an .npz file, or a table with a column of pictures.

    Raises `BadInput` with the file or the row for what cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() == ".npz":
        return _arrays(path)
    return _table(read(source), label)


def _folder(path: Path) -> Labelled:
    found = sorted(file for file in path.glob("*/**/*") if file.suffix.lower() in ENDINGS and file.is_file())
    if not found:
        law = "a folder of pictures holds a folder for each class, with pictures in it"
        raise BadInput(law, "none", str(path), "check the path")
    labels = [file.relative_to(path).parts[0] for file in found]
    try:
        data = [file.read_bytes() for file in found]
    except OSError as error:
        raise BadInput("a data file must be readable", str(error.strerror), str(error.filename)) from None
    return Labelled(str(path), data, labels, [str(file) for file in found])


def _arrays(path: Path) -> Labelled:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        law, remedy = "an .npz file holds plain arrays", "check the path, or write it again with numpy.savez"
        raise BadInput(law, first_line(error)[:120], str(path), remedy) from None
    pictures = _first(arrays, PICTURES, str(path), "pictures, (n, height, width[, channels])")
    labels = _first(arrays, LABELS, str(path), "labels, (n,)")
    if pictures.ndim not in (3, 4) or labels.shape != pictures.shape[:1] or not len(labels):
        law = "an .npz file holds n pictures (n, height, width[, channels]) and n labels"
        raise BadInput(law, f"{pictures.shape} and {labels.shape}", str(path), "check the arrays")
    places = [f"{path}, row {row + 1}" for row in range(len(labels))]
    names = [str(each).strip() for each in labels.tolist()]
    for name, place in zip(names, places, strict=True):
        if not name or (name == "nan" and labels.dtype.kind == "f"):
            raise BadInput("every picture has a label", repr(name), place, "fill it in, or take the picture out")
    return Labelled(str(path), list(_pixels(pictures, str(path))), names, places)


def _pixels(pictures: np.ndarray, place: str) -> np.ndarray:
    """Numbers of 0 to 255; fractions of 1, where none of all is above it, are taken for what they are."""
    if pictures.dtype == np.uint8:
        return pictures
    if pictures.dtype.kind not in "biuf":
        raise BadInput("pictures are numbers", str(pictures.dtype), place, "write them as uint8")
    least, most = float(pictures.min()), float(pictures.max())  # NaN where there is one
    if not 0 <= least <= most <= 255:
        law = "pixels are from 0 to 255, or from 0 to 1"
        raise BadInput(law, f"{least:g} to {most:g}", place, "write them before they are scaled or standardised")
    whole: np.ndarray = np.round(pictures * (255 if most <= 1 else 1)).astype(np.uint8)
    return whole


def _first(arrays: Mapping[str, np.ndarray], names: Sequence[str], place: str, what: str) -> np.ndarray:
    lower = {name.lower(): array for name, array in arrays.items()}
    found = next((lower[name] for name in names if name in lower), None)
    if found is None:
        raise BadInput(f"an .npz file has an array of {what}", ", ".join(arrays), place, f"name it {names[0]}")
    return found


def _table(table: Table, label: str | None) -> Labelled:
    usual = {name.lower(): name for name in table.columns}
    column = next((usual[name] for name in PICTURES if name in usual and _is_picture(table, usual[name])), None)
    column = column or next((name for name in table.columns if _is_picture(table, name)), None)
    if column is None:
        law = "a table of pictures has a column with their bytes"
        raise BadInput(law, f"columns {', '.join(table.columns)}", table.source, "write encoded pictures into one")
    rest = Table(table.source, {name: rows for name, rows in table.columns.items() if name != column}, table.lines)
    names = [name.strip() for name in rest.strings(find_label(rest, label))]
    places = [table.place(row) for row in range(len(names))]
    return Labelled(
        table.source, [_bytes(v, p) for v, p in zip(table.columns[column], places, strict=True)], names, places
    )


def _is_picture(table: Table, name: str) -> bool:
    first = next((value for value in table.columns[name] if value is not None), None)
    return isinstance(first, bytes) or hasattr(first, "tobytes") or (isinstance(first, dict) and "bytes" in first)


def _bytes(value: Any, place: str) -> bytes | np.ndarray:
    if isinstance(value, dict) and value.get("bytes") is None and value.get("path"):
        try:
            return Path(value["path"]).read_bytes()
        except OSError as error:
            raise BadInput("a picture's file must be readable", str(error.strerror), place) from None
    value = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(value, bytes):
        return value
    if hasattr(value, "tobytes"):  # a picture that `datasets` has decoded
        return np.asarray(value)
    raise BadInput("every row has a picture", repr(value)[:60], place, "fill the row in or remove it")
