"""From the user's files to tokenised parts: the way that every text task takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from archsmith.errors import BadInput
from archsmith.tasks.encodings import Encodings, Frame, Tokenizer, encode, find_frame
from archsmith.tasks.read import Table, read
from archsmith.tasks.split import LOSES, Rows, SplitReport, checked, split
from archsmith.tasks.task import Part

LONGEST = 512  # tokens, where neither the caller nor the tokenizer says
JOINT = " \u241e "  # between the two texts of a pair when pairs are compared


@dataclass(frozen=True, eq=False)
class Texts:
    """What a task uses of one file: one or two `columns` of texts, each (rows,), and the table they stand in."""

    table: Table
    columns: tuple[list[str], ...]

    def joined(self) -> list[str]:
        """One text a row: a pair's two in one."""
        return [JOINT.join(row) for row in zip(*self.columns, strict=True)]


@dataclass(frozen=True, eq=False)
class Parted:
    """Tokenised parts, and for each part the `rows` of its file, (rows,) int64, in the same order."""

    encodings: Mapping[Part, Encodings]
    rows: Mapping[Part, np.ndarray]
    frame: Frame
    report: SplitReport
    tokenizer: Tokenizer


def read_tables(data: str | Path, validation: str | Path | None, holdout: str | Path | None) -> dict[Part, Table]:
    """The tables in the files given."""
    return {part: read(source) for part, source in different_files(data, validation, holdout).items()}


def different_files(
    data: str | Path, validation: str | Path | None, holdout: str | Path | None
) -> dict[Part, str | Path]:
    """The files given: "train" for `data`, and the others if they are there. No file may serve two parts."""
    sources: dict[Part, str | Path] = {"train": data}
    if validation is not None:
        sources["validation"] = validation
    if holdout is not None:
        sources["holdout"] = holdout
    seen: dict[Path, Part] = {}
    for part, source in sources.items():
        path = Path(source).resolve()
        if path in seen:
            law = f"{seen[path]} and {part} must be different files"
            raise BadInput(law, repr(str(source)), "", f"leave {part} out to have it split off the data")
        seen[path] = part
    return sources


def divide(
    texts: Mapping[Part, Texts],
    strata: Mapping[Part, np.ndarray],
    tokenizer: Tokenizer,
    max_length: int | None,
    rng: np.random.Generator,
    fractions: Mapping[Part, float] | None = None,
    stacked: bool = False,
) -> Parted:
    """Split what is not given off the training texts, remove what the parts share, tokenise each part once.

    `strata` (rows,) int64 by file: the label where there is one. Two columns become pairs, or, `stacked`, texts of
    their own: all of the first column, then all of the second. Raises `BadInput`.
    """
    limit = _longest(tokenizer, max_length)
    shares = checked(fractions)
    rows = {part: Rows(own.joined(), strata[part], own.table.source) for part, own in texts.items()}
    given: dict[Part, Rows] = {part: own for part, own in rows.items() if part != "train"}
    kept, report = split(rows["train"], given, rng, shares)
    if stacked:
        kept, report = without_shared_halves(texts, kept, report)
    encodings: dict[Part, Encodings] = {}
    for part, numbers in kept.items():
        own = texts.get(part, texts["train"])
        columns = [[column[i] for i in numbers] for column in own.columns]
        encodings[part] = encode(tokenizer, [[t for c in columns for t in c]] if stacked else columns, limit)
        empty = np.flatnonzero(encodings[part].lengths == 0)
        if len(empty):
            row = int(numbers[empty[0] % len(numbers)])
            law = "a text must have at least one token of the model's tokenizer"
            raise BadInput(law, repr(own.columns[0][row])[:60], own.table.place(row), "change or remove the row")
    sample = [column[int(kept["train"][0])] for column in texts["train"].columns]
    full = {f"{part} at {limit} tokens": int((own.lengths >= limit).sum()) for part, own in encodings.items()}
    frame = find_frame(tokenizer, sample[:1] if stacked else sample)
    return Parted(encodings, kept, frame, replace(report, cut=full), tokenizer)


def without_shared_halves(
    texts: Mapping[Part, Texts], kept: Mapping[Part, np.ndarray], report: SplitReport
) -> tuple[dict[Part, np.ndarray], SplitReport]:
    """Without pairs of which one half is in a part that goes before: a text that is found there has been learnt."""
    left = dict(kept)
    removed: dict[str, int] = dict(report.duplicates)

    def halves(part: Part, column: int) -> list[str]:
        own = texts.get(part, texts["train"]).columns[column]
        return [" ".join(own[row].lower().split()) for row in left[part]]

    for loser, winner in LOSES:
        known = {*halves(winner, 0), *halves(winner, 1)}
        shared = [a in known or b in known for a, b in zip(halves(loser, 0), halves(loser, 1), strict=True)]
        stay = np.flatnonzero(~np.array(shared, dtype=bool))
        if not len(stay):
            source = texts.get(loser, texts["train"]).table.source
            law = f"{loser} must have pairs of which no half is in {winner}"
            raise BadInput(law, "none", source, "give different data for each part")
        removed[f"{loser} in {winner}"] = removed.get(f"{loser} in {winner}", 0) + int(sum(shared))
        left[loser] = left[loser][stay]
    return left, replace(report, rows={part: len(rows) for part, rows in left.items()}, duplicates=removed)


def _longest(tokenizer: Tokenizer, asked: int | None) -> int:
    """Tokens that a text is cut to: as asked, else the tokenizer's own limit, at most 512."""
    if asked is not None and asked < 4:
        raise BadInput("max_length must be at least 4 tokens", str(asked), "", "ask for more")
    return asked or min(int(getattr(tokenizer, "model_max_length", LONGEST)), LONGEST)


def take_columns(table: Table, names: Sequence[str]) -> Texts:
    """The named columns of a table as texts."""
    return Texts(table, tuple(table.strings(name) for name in names))
