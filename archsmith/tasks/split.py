"""Three parts that never mix: given, or split off; a text and its phrases stay together, repeats across parts go.

A text is *maximal* when it is not a span of another one. Texts are grouped: a phrase of four words or more belongs with
every maximal text that holds it, a shorter one only where a single text holds it (else "a good film" would tie all
reviews together; a Chinese character is half a word). Validation and holdout are drawn group by group, and of a drawn
group only the maximal texts are kept: rows of one sentence are not independent, and counting them all would make every
interval too narrow. What is left in train is then freed of whatever repeats, is a phrase of, or quotes a text of the
other parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from archsmith.errors import BadInput
from archsmith.tasks.spans import Words, find_spans
from archsmith.tasks.task import Part

LINKING_WORDS = 4  # on SST-2: 3 words tie 75 sentences into one group, 4 words at most 18
LARGEST = 20  # rows of a group that may always be drawn; a larger one only if it is within its part's share
QUOTING_WORDS = 8  # a train text is dropped for holding a held text only if that is this long
FRACTIONS: Mapping[Part, float] = {"validation": 0.1, "holdout": 0.1}
CAPS: Mapping[Part, int] = {"validation": 2000, "holdout": 5000}
# What a part shares with another goes from the first of the two.
LOSES: tuple[tuple[Part, Part], ...] = (("validation", "holdout"), ("train", "holdout"), ("train", "validation"))


@dataclass(frozen=True)
class SplitReport:
    """What the split did, in rows. Keys like "train in holdout" say which part lost rows because of which other.

    `rows` are kept; `split_off` names the parts drawn from the data; `set_aside` counts repeats and phrases of drawn
    texts, which are in no part; `duplicates`, `phrases` and `quotations` were removed from the first part of the key;
    `cut` counts texts that fill the limit of tokens, whose ends are not read.
    """

    rows: Mapping[str, int]
    split_off: tuple[str, ...] = ()
    set_aside: int = 0
    duplicates: Mapping[str, int] = field(default_factory=dict)
    phrases: Mapping[str, int] = field(default_factory=dict)
    quotations: Mapping[str, int] = field(default_factory=dict)
    cut: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data for the run's record."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a file: a text each (a pair's two joined), and `strata` (rows,) int64, the label if there is one."""

    texts: Sequence[str]
    strata: np.ndarray
    source: str


def split(
    data: Rows,
    given: Mapping[Part, Rows],
    rng: np.random.Generator,
    fractions: Mapping[Part, float] = FRACTIONS,
    caps: Mapping[Part, int] = CAPS,
) -> tuple[dict[Part, np.ndarray], SplitReport]:
    """Row numbers of each part, (rows,) int64 in rising order, and the report.

    A part in `given` (validation, holdout) refers to its own rows, the others to rows of `data`. `fractions` are of the
    groups of `data`, at most `caps` groups. Raises `BadInput` where too little is left.
    """
    words = Words.of(data.texts)
    kept: dict[Part, np.ndarray] = {"train": np.arange(len(words))}
    held: dict[Part, Words] = {}
    wanted = [part for part in FRACTIONS if part not in given]
    set_aside = 0
    if wanted:
        shares = {part: (fractions[part], caps[part]) for part in wanted}
        drawn, train = _draw(*group(words), data.strata, data.source, shares, rng)
        set_aside = len(words) - len(train) - sum(len(rows) for rows in drawn.values())
        kept |= {"train": train, **drawn}
        held |= {part: words.take(rows) for part, rows in drawn.items()}
    for part, rows in given.items():
        held[part] = Words.of(rows.texts)
        kept[part] = np.arange(len(rows.texts))
    held["train"] = words.take(kept["train"])
    counts: dict[str, dict[str, int]] = {"duplicates": {}, "phrases": {}, "quotations": {}}
    for loser, winner in LOSES:
        lost = overlap(held[loser], held[winner])
        for reason, mask in lost.items():
            counts[reason][f"{loser} in {winner}"] = int(mask.sum())
        stay = np.flatnonzero(~np.logical_or.reduce(list(lost.values())))
        kept[loser], held[loser] = kept[loser][stay], held[loser].take(stay)
        if not len(stay):
            law = f"{loser} must have texts that are not in {winner}"
            source = given[loser].source if loser in given else data.source
            raise BadInput(law, "none", source, "give different data for each part")
    sizes: dict[str, int] = {part: len(rows) for part, rows in kept.items()}
    return kept, SplitReport(rows=sizes, split_off=tuple(wanted), set_aside=set_aside, **counts)


def overlap(loser: Words, winner: Words) -> dict[str, np.ndarray]:
    """Why rows of `loser` (n texts) must go for the sake of `winner`: masks (n,) bool, each row under one reason.

    `duplicates` equal a text of the winner, `phrases` are a span of one, `quotations` hold one of eight words or more.
    """
    # Copies of a text have its fate, and would be matched with every copy of the other.
    _, first, copy_of = np.unique(loser.keys, return_index=True, return_inverse=True)
    mine, theirs = loser.take(first), winner.take(np.unique(winner.keys, return_index=True)[1])
    duplicates = np.isin(mine.keys, theirs.keys)
    needles, _ = find_spans(mine, theirs)
    phrases = np.zeros(len(mine), dtype=bool)
    phrases[needles] = True
    _, holders = find_spans(theirs.take(np.flatnonzero(theirs.content >= QUOTING_WORDS)), mine)
    quotations = np.zeros(len(mine), dtype=bool)
    quotations[holders] = True
    phrases &= ~duplicates
    quotations &= ~duplicates & ~phrases
    return {"duplicates": duplicates[copy_of], "phrases": phrases[copy_of], "quotations": quotations[copy_of]}


def group(words: Words) -> tuple[np.ndarray, np.ndarray]:
    """For each text its group, (texts,) int64, and whether it is the first copy of a maximal text, (texts,) bool."""
    _, first, unique_of = np.unique(words.keys, return_index=True, return_inverse=True)
    unique = words.take(first)
    phrase, holder = find_spans(unique, unique)
    proper = phrase != holder
    phrase, holder = phrase[proper], holder[proper]
    maximal = np.ones(len(unique), dtype=bool)
    maximal[phrase] = False
    top = maximal[holder]
    phrase, holder = phrase[top], holder[top]
    holders = np.bincount(phrase, minlength=len(unique))
    linked = (unique.content[phrase] >= LINKING_WORDS) | (holders[phrase] == 1)
    edges = (np.ones(int(linked.sum()), dtype=np.int8), (phrase[linked], holder[linked]))
    _, component = connected_components(coo_array(edges, shape=(len(unique), len(unique))), directed=False)
    leads = np.zeros(len(words), dtype=bool)
    leads[first[maximal]] = True
    return component[unique_of].astype(np.int64), leads


def split_alike(
    keys: Mapping[Part, np.ndarray],
    strata: Mapping[Part, np.ndarray],
    source: str,
    rng: np.random.Generator,
    fractions: Mapping[Part, float] | None = None,
) -> tuple[dict[Part, np.ndarray], SplitReport]:
    """As `split`, for examples that are the same where their keys (rows,) are equal, and unrelated elsewhere."""
    shares = checked(fractions)
    kept: dict[Part, np.ndarray] = {part: np.arange(len(own)) for part, own in keys.items()}
    wanted = [part for part in FRACTIONS if part not in keys]
    set_aside = 0
    if wanted:
        _, first, groups = np.unique(keys["train"], return_index=True, return_inverse=True)
        leads = np.zeros(len(groups), dtype=bool)
        leads[first] = True
        parts = {part: (shares[part], CAPS[part]) for part in wanted}
        drawn, kept["train"] = _draw(groups, leads, strata["train"], source, parts, rng)
        set_aside = len(groups) - len(kept["train"]) - sum(len(rows) for rows in drawn.values())
        kept |= drawn
    duplicates = {}
    for loser, winner in LOSES:
        mine, theirs = (keys.get(part, keys["train"])[kept[part]] for part in (loser, winner))
        repeated = np.isin(mine, theirs)
        duplicates[f"{loser} in {winner}"] = int(repeated.sum())
        kept[loser] = kept[loser][~repeated]
        if not len(kept[loser]):
            law = f"{loser} must have examples that are not in {winner}"
            raise BadInput(law, "none", source, "give different data for each part")
    sizes: dict[str, int] = {part: len(rows) for part, rows in kept.items()}
    return kept, SplitReport(sizes, tuple(wanted), set_aside, duplicates)


def checked(fractions: Mapping[Part, float] | None) -> dict[Part, float]:
    """The share of each part that is split off. Raises `BadInput`."""
    shares = dict(FRACTIONS) | dict(fractions or {})
    if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        found = ", ".join(f"{part} {share}" for part, share in shares.items())
        law = "fractions must lie between 0 and 1 and leave something to train"
        raise BadInput(law, found, "", "make them smaller")
    return shares


def _draw(
    groups: np.ndarray,
    leads: np.ndarray,
    all_strata: np.ndarray,
    source: str,
    wanted: Mapping[Part, tuple[float, int]],
    rng: np.random.Generator,
) -> tuple[dict[Part, np.ndarray], np.ndarray]:
    """Rows of each wanted part (fraction of groups, cap), stratified, and the rows of all groups not drawn."""
    lead_rows = np.flatnonzero(leads)
    largest = max(LARGEST, min(share for share, _ in wanted.values()) * len(groups))
    small = lead_rows[np.bincount(groups)[groups[lead_rows]] <= largest]  # a larger group stays in train
    lead_rows = small if len(np.unique(groups[small])) >= 2 * (len(wanted) + 1) else lead_rows
    drawable, at = np.unique(groups[lead_rows], return_index=True)
    strata = all_strata[lead_rows[at]]
    if len(drawable) < 2 * (len(wanted) + 1):
        law = f"data to be split in {len(wanted) + 1} must have at least {2 * (len(wanted) + 1)} unrelated examples"
        raise BadInput(law, str(len(drawable)), source, "give more rows, or files for --validation and --holdout")
    order = rng.permutation(len(drawable))
    order = order[np.argsort(strata[order], kind="stable")]
    # Places within a stratum, spread over [0, 1): taking everything below a share takes that share of every stratum.
    _, start, size = np.unique(strata[order], return_index=True, return_counts=True)
    within = np.arange(len(order)) - np.repeat(start, size) + rng.random(len(start)).repeat(size)
    ranked = drawable[order[np.argsort(within / np.repeat(size, size), kind="stable")]]
    parts: dict[Part, np.ndarray] = {}
    begin = 0
    taken = np.zeros(len(groups), dtype=bool)
    for part, (fraction, cap) in wanted.items():
        count = max(1, min(round(fraction * len(drawable)), cap))
        chosen = np.isin(groups, ranked[begin : begin + count])
        parts[part] = np.flatnonzero(chosen & leads)
        taken |= chosen
        begin += count
    return parts, np.flatnonzero(~taken)
