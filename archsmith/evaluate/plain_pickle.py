"""Pickles of other people's tables, read as data: containers, numbers and texts come out, and no code of theirs runs.

A pickle names functions that the reader is to call. Here every name but that of a few containers stands for a thing
that does nothing and keeps nothing.
"""

from __future__ import annotations

import bz2
import collections
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from archsmith.errors import BadInput

NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class Code:
    """The type of a number, as numpy's pickles name it; of anything else it is nothing."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code if code in NUMBERS else ""

    def __setstate__(self, _: Any) -> None: ...


def number(code: Any = None, data: Any = b"", *_: Any) -> Any:
    """A number out of its bytes; None where it is none."""
    if not isinstance(code, Code) or not code.code or not isinstance(data, bytes):
        return None
    found = np.frombuffer(data, dtype=f"<{code.code}")
    return found[0].item() if len(found) == 1 else None


ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy.core.multiarray", "scalar"): number,
    ("numpy._core.multiarray", "scalar"): number,
    ("numpy", "dtype"): Code,
}


class Nothing:
    """What a name stands for that is not allowed."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def append(self, _: Any) -> None:
        """Keep nothing."""

    def extend(self, _: Any) -> None:
        """Keep nothing."""


class Reader(pickle.Unpickler):
    """An unpickler that finds containers and numbers only."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for."""
        return ALLOWED.get((module, name), Nothing)

    def persistent_load(self, _: Any) -> NoReturn:
        """Things kept elsewhere are not for us."""
        raise pickle.UnpicklingError("it refers to what is kept elsewhere")


def read_plain(path: Path) -> Any:
    """The content of a file written by pickle and compressed by bz2. Raises `BadInput` where it is not that."""
    try:
        with bz2.BZ2File(path, "rb") as file:
            return Reader(file).load()
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        KeyError,
        pickle.PickleError,
    ) as error:
        law = "a benchmark file must be whole, and hold containers, numbers and texts"
        raise BadInput(law, f"{type(error).__name__}: {error}", str(path), "download it again") from error
