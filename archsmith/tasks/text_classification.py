"""Text classification: texts or pairs of texts with a label each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.tasks.classified import Classified, first_of
from archsmith.tasks.columns import find_label, find_texts
from archsmith.tasks.encodings import Tokenizer
from archsmith.tasks.files import Parted, divide, read_tables, take_columns
from archsmith.tasks.labels import label_ids, number_labels
from archsmith.tasks.metrics import find_metric
from archsmith.tasks.task import Part
from archsmith.tasks.text import TextTask, Wrapped


class TextClassification(Classified, TextTask):
    """Texts, or pairs of texts, with a label each."""

    name = "text-classification"
    real_share = 0.2  # sentences made of several texts teach more than more texts of SST-2's short kind

    def __init__(
        self, parted: Parted, targets: Mapping[Part, np.ndarray], label_names: Mapping[str, int], metric: str
    ) -> None:
        TextTask.__init__(self, parted)
        Classified.__init__(self, targets, label_names, metric)

    @classmethod
    def from_files(
        cls,
        data: str | Path,
        validation: str | Path | None = None,
        holdout: str | Path | None = None,
        *,
        tokenizer: Tokenizer,
        rng: np.random.Generator,
        label: str | None = None,
        text: str | Sequence[str] | None = None,
        metric: str = "accuracy",
        max_length: int | None = None,
        labels: Mapping[str, int] | None = None,
        fractions: Mapping[Part, float] | None = None,
    ) -> TextClassification:
        """Read, number the labels, split, tokenise once.

        `data` is the training file (or `datasets` name); parts without a file of their own are split off it, in
        `fractions` (a tenth each unless given). `label` and `text` name columns, two texts as "a,b"; without them
        usual names are looked for. `labels` is the model config's `label2id`. Texts are cut to `max_length` tokens
        (the tokenizer's limit, at most 512, unless given). Raises `BadInput` with file and line.
        """
        find_metric(metric, 2 if metric.endswith("_binary") else 3)  # a wrong name is said before any work is done
        tables = read_tables(data, validation, holdout)
        label_column = find_label(tables["train"], label)
        text_columns = find_texts(tables["train"], text, label_column)
        texts = {part: take_columns(table, text_columns) for part, table in tables.items()}
        names = {part: [name.strip() for name in table.strings(label_column)] for part, table in tables.items()}
        known = number_labels(names["train"], labels, tables["train"].source)
        ids = {part: label_ids(names[part], known, table.place) for part, table in tables.items()}
        parted = divide(texts, ids, tokenizer, max_length, rng, fractions)
        targets = {part: ids.get(part, ids["train"])[rows] for part, rows in parted.rows.items()}
        if len(np.unique(targets["train"])) < 2:
            law = "training data must keep two classes or more once the other parts are taken out"
            raise BadInput(law, "one", tables["train"].source, "give more rows, or files for each part")
        return cls(parted, targets, known, metric)

    def wrap(self, model: nn.Module) -> nn.Module:
        """`(input_ids, attention_mask[, token_type_ids]) -> logits (batch, classes)` around the model."""
        return Logits(model, typed=self.typed)


class Logits(Wrapped):
    """A classifier that gives its logits and nothing else."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(batch, length) int64 each -> logits (batch, classes)."""
        result = self.call(input_ids, attention_mask, token_type_ids)
        return first_of(result)
