"""Frozen dataclasses to plain JSON and back, checked field by field. The same reader serves every file of a run."""

from __future__ import annotations

import json
import math
import os
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from archsmith.errors import BadInput

T = TypeVar("T")


def to_plain(thing: Any) -> Any:
    """Dataclasses, mappings, tuples and scalars as JSON values. A number that is not finite has no JSON: ValueError."""
    if is_dataclass(thing) and not isinstance(thing, type):
        return {field.name: to_plain(getattr(thing, field.name)) for field in fields(thing) if _written(field)}
    if isinstance(thing, Mapping):
        return {str(key): to_plain(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [to_plain(value) for value in thing]
    if isinstance(thing, float) and not math.isfinite(thing):
        raise ValueError(f"a result holds finite numbers only; found {thing}")
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if hasattr(thing, "item"):  # a NumPy scalar
        return to_plain(thing.item())
    if isinstance(thing, Path):
        return thing.as_posix()
    raise TypeError(f"no plain JSON form for {type(thing).__name__}")


def from_plain(kind: type[T], value: Any, place: str) -> T:
    """JSON values as `kind`, a dataclass. Raises `BadInput` naming the field (`place.field`) that breaks the schema."""
    result = _read(kind, value, place)
    assert isinstance(result, kind)
    return result


def write_json(path: Path, thing: Any) -> Path:
    """Write whole or not at all: a reader never sees half a file. Raises `BadInput` where the disk refuses."""
    text = json.dumps(to_plain(thing), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return write_text(path, text)


def write_text(path: Path, text: str) -> Path:
    """Write text beside `path`, flush it to the disk, then rename it into place."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        law, found = "the run's folder must be writable", error.strerror or str(error)
        raise BadInput(law, found, str(path), "free space there, or name another folder") from error
    return path


def read_json(path: Path, kind: type[T]) -> T:
    """Read one file of a run. Raises `BadInput` where it is absent, no JSON, or breaks the schema of `kind`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = "name a run's folder; `archsmith resume RUN` ends one that was stopped"
        raise BadInput(f"a finished run holds {path.name}", "no such file", str(path), remedy) from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path.name} must be readable JSON", f"{error}", str(path), "run archsmith again") from None
    return from_plain(kind, value, path.name)


def _read(kind: Any, value: Any, place: str) -> Any:
    if kind is Any:
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, place)
    if origin is tuple:
        return _read_tuple(arguments, value, place)
    if origin is not None and issubclass(origin, Mapping):
        _expect(isinstance(value, dict), "an object", value, place)
        return {key: _read(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
    if is_dataclass(kind):
        return _read_dataclass(kind, value, place)
    if kind is float:
        _expect(isinstance(value, int | float) and not isinstance(value, bool), "a number", value, place)
        return float(value)
    _expect(type(value) is kind, {int: "an integer", str: "a text", bool: "true or false"}[kind], value, place)
    return value


def _read_union(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    choices = [kind for kind in kinds if kind is not types.NoneType]
    for kind in choices[:-1]:
        if type(value) is kind:
            return value
    return _read(choices[-1], value, place)


def _read_tuple(kinds: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    _expect(isinstance(value, list), "a list", value, place)
    if kinds[-1] is Ellipsis:
        return tuple(_read(kinds[0], item, f"{place}[{i}]") for i, item in enumerate(value))
    _expect(len(value) == len(kinds), f"{len(kinds)} values", value, place)
    return tuple(_read(kind, item, f"{place}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _read_dataclass(kind: Any, value: Any, place: str) -> Any:
    _expect(isinstance(value, dict), "an object", value, place)
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind) if _written(field)}
    for name in value:
        _expect(name in known, f"no field {name!r}", value[name], place)
    arguments = {}
    for name, field in known.items():
        if name in value:
            arguments[name] = _read(hints[name], value[name], f"{place}.{name}")
        else:
            optional = field.default is not MISSING or field.default_factory is not MISSING
            _expect(optional, f"a field {name!r}", sorted(value), place)
    return kind(**arguments)


def _written(field: Field[Any]) -> bool:
    return bool(field.metadata.get("written", True))


def _expect(true: bool, wanted: str, value: Any, place: str) -> None:
    if not true:
        shown = json.dumps(value, ensure_ascii=False)
        found = shown if len(shown) <= 60 else shown[:57] + "..."
        raise BadInput(f"the schema wants {wanted}", found, place, "see docs/result.md")
