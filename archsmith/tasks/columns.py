"""Which columns of a table are the text, the second text, and the label, when the user does not say."""

from __future__ import annotations

from collections.abc import Sequence

from archsmith.errors import BadInput
from archsmith.tasks.read import Table

LABELS = ("label", "labels", "target", "class", "sentiment", "category", "y")
TEXTS = (
    "text",
    "sentence",
    "review",
    "content",
    "document",
    "comment",
    "title",
    "tweet",
    "utterance",
    "question",
    "query",
)
PAIRS = (
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "answer"),
    ("question", "passage"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("query", "passage"),
    ("query", "document"),
    ("query", "positive"),
    ("anchor", "positive"),
    ("summary", "body"),
    ("a", "b"),
)
NUMBERS_OF_ROWS = ("id", "idx", "index", "guid", "uid", "unnamed: 0", "")


def find_label(table: Table, named: str | None = None) -> str:
    """The label column: the named one, one with a usual name, or the one left of two when the other is a usual text.

    >>> find_label(Table("t", {"Label": ["a"], "sentence": ["b"]}))
    'Label'
    """
    if named is not None:
        return _existing(table, named)
    lower = {name.lower(): name for name in table.columns}
    for usual in LABELS:
        if usual in lower:
            return lower[usual]
    rest = [name for name in _candidates(table) if name.lower() not in TEXTS]
    if len(rest) == 1 and len(_candidates(table)) == 2:
        return rest[0]
    raise BadInput("the label column must be known", _names(table), table.source, "name it with --label")


def find_texts(table: Table, named: str | Sequence[str] | None = None, label: str | None = None) -> tuple[str, ...]:
    """The text column, or the two of a pair: as named ("a,b" or a sequence), by usual names, or what is left.

    >>> find_texts(Table("t", {"idx": ["1"], "premise": ["a"], "hypothesis": ["b"], "label": ["0"]}), label="label")
    ('premise', 'hypothesis')
    """
    if named is not None:
        given = [named] if isinstance(named, str) else named
        names = [
            part for name in given for part in ([name] if name in table.columns else map(str.strip, name.split(",")))
        ]
        if not 1 <= len(names) <= 2 or len(set(names)) < len(names):
            raise BadInput("text is one column or two different ones", repr(named), table.source, _names(table))
        if label in names:
            raise BadInput("text and label must be different columns", repr(label), table.source, _names(table))
        return tuple(_existing(table, name) for name in names)
    candidates = [name for name in _candidates(table) if name != label]
    lower = {name.lower(): name for name in candidates}
    for first, second in PAIRS:
        if first in lower and second in lower:
            return lower[first], lower[second]
    usual = [lower[name] for name in TEXTS if name in lower]
    if usual:
        return (usual[0],)
    if len(candidates) == 1:
        return (candidates[0],)
    raise BadInput("the text column must be known", _names(table), table.source, "name it with --text")


def _candidates(table: Table) -> list[str]:
    return [name for name in table.columns if name.lower() not in NUMBERS_OF_ROWS]


def _existing(table: Table, name: str) -> str:
    if name not in table.columns:
        raise BadInput("a named column must exist", repr(name), table.source, f"the {_names(table)}")
    return name


def _names(table: Table) -> str:
    return f"columns are {', '.join(table.columns)}"
