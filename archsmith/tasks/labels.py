"""Label names of the data <-> class numbers of the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from archsmith.errors import BadInput

UNNAMED = re.compile(r"LABEL_\d+")  # what transformers calls classes that nobody named


def number_labels(names: Sequence[str], model_labels: Mapping[str, int] | None, source: str) -> dict[str, int]:
    """Class number of each distinct training label, by the model's `label2id` if it has real names.

    A label is looked up by name, whatever its case, then as a number within the model's range. A model without real
    names, or none at all: labels that are whole numbers from 0 keep them, others are numbered in sorted order.
    Raises `BadInput` for one class only, for what looks like a regression, and for labels that the model has not.

    >>> number_labels(["neg", "pos", "neg"], {"NEG": 1, "POS": 0}, "train.tsv")
    {'neg': 1, 'pos': 0}
    """
    distinct = sorted(set(names))
    if len(distinct) < 2:
        raise BadInput(
            "training data must have two classes or more", repr(distinct[0]), source, "add the other classes"
        )
    if len(names) >= 20 and 2 * len(distinct) > len(names):
        found = f"{len(distinct)} different labels in {len(names)} rows"
        raise BadInput("labels must repeat", found, source, "name the right column with --label")
    numbers = {name: int(name) for name in distinct if re.fullmatch(r"\d{1,6}", name)}
    named = {key.casefold(): number for key, number in (model_labels or {}).items()}
    if len({name.casefold() for name in distinct} & named.keys()):
        wanted = {name: named.get(name.casefold(), -1) for name in distinct}
    elif len(numbers) == len(distinct) and (model_labels or _from_zero(numbers.values())):
        wanted = numbers
    elif model_labels is None or all(UNNAMED.fullmatch(key) for key in model_labels):
        wanted = {name: number for number, name in enumerate(distinct)}
    else:
        wanted = dict.fromkeys(distinct, -1)
    known = set((model_labels or {}).values()) or set(wanted.values())
    unknown = [name for name in distinct if wanted[name] not in known]
    if unknown:
        has = ", ".join(f"{key} ({number})" for key, number in (model_labels or {}).items())
        raise BadInput("a label must be one of the model's", repr(unknown[0]), source, f"the model has {has}"[:300])
    if len(set(wanted.values())) < len(wanted):
        raise BadInput(
            "labels must stay different classes", ", ".join(distinct)[:120], source, "spell each label one way"
        )
    return wanted


def _from_zero(numbers: Collection[int]) -> bool:
    """Whether numbers count classes, of which a few may be missing in the data."""
    return min(numbers) == 0 and max(numbers) < 2 * len(numbers)


def label_ids(names: Sequence[str], known: Mapping[str, int], place: Callable[[int], str]) -> np.ndarray:
    """(rows,) int64 class numbers. Raises `BadInput` at the first label that training does not have."""
    for row, name in enumerate(names):
        if name not in known:
            remedy = f"training has {', '.join(known)}"[:200]
            raise BadInput("a label must occur in the training data", repr(name), place(row), remedy)
    return np.fromiter((known[name] for name in names), np.int64, len(names))
