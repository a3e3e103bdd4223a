"""Image classification: pictures with a label each."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.tasks.classified import Classified, first_of
from archsmith.tasks.files import different_files
from archsmith.tasks.labels import label_ids, number_labels
from archsmith.tasks.metrics import find_metric
from archsmith.tasks.picture_files import read_pictures
from archsmith.tasks.pictures import Pictures, Preparation, decoded
from archsmith.tasks.split import SplitReport, split_alike
from archsmith.tasks.task import Part

INPUT = "pixel_values"


class ImageClassification(Classified):
    """Pictures with a label each, all of one size. Length means nothing here: a call is so many pictures."""

    name = "image-classification"

    def __init__(
        self,
        pictures: Mapping[Part, Pictures],
        targets: Mapping[Part, np.ndarray],
        label_names: Mapping[str, int],
        metric: str,
        prepared: Preparation,
        split: SplitReport,
        argument: str = INPUT,
    ) -> None:
        super().__init__(targets, label_names, metric)
        self.parts = dict(pictures)
        self.prepared = prepared
        self.split = split
        self.argument = argument
        self.resized = False  # whether pictures had other sizes than this one

    @classmethod
    def from_files(
        cls,
        data: str | Path,
        validation: str | Path | None = None,
        holdout: str | Path | None = None,
        *,
        prepared: Preparation,
        rng: np.random.Generator,
        label: str | None = None,
        metric: str = "accuracy",
        labels: Mapping[str, int] | None = None,
        fractions: Mapping[Part, float] | None = None,
        argument: str = INPUT,
    ) -> ImageClassification:
        """Read, number the labels, split, decode once.

        `data`: a folder with a folder for each class, an .npz file of arrays, parquet with pictures' bytes, or a
        `datasets` name; parts without a file of their own are split off it. `argument`: the forward argument of the
        model that takes pictures (batch, channels, height, width). Raises `BadInput` with file and row.
        """
        find_metric(metric, 2 if metric.endswith("_binary") else 3)  # a wrong name is said before any work is done
        files = different_files(data, validation, holdout)
        read = {part: read_pictures(source, label) for part, source in files.items()}
        known = number_labels(read["train"].labels, labels, read["train"].source)
        ids = {part: label_ids(own.labels, known, own.places.__getitem__) for part, own in read.items()}
        pixels = {part: decoded(own.data, own.places, prepared) for part, own in read.items()}
        keys = {part: np.array([_digest(picture) for picture in own]) for part, own in pixels.items()}
        kept, report = split_alike(keys, ids, read["train"].source, rng, fractions)
        parts = {part: Pictures.of(pixels.get(part, pixels["train"])[rows]) for part, rows in kept.items()}
        targets = {part: ids.get(part, ids["train"])[rows] for part, rows in kept.items()}
        if len(np.unique(targets["train"])) < 2:
            law = "training data must keep two classes or more once the other parts are taken out"
            raise BadInput(law, "one", read["train"].source, "give more rows, or files for each part")
        return cls(parts, targets, known, metric, prepared, report, argument)

    def size(self, part: Part) -> int:
        """Rows in a part."""
        return len(self.parts[part])

    def lengths(self, part: Part) -> np.ndarray:
        """(rows,) int64, all 1."""
        return np.ones(self.size(part), dtype=np.int64)

    def inputs(self, part: Part, rows: Sequence[int]) -> dict[str, Tensor]:
        """Under the model's own name for them: (rows, channels, height, width) float32."""
        self._check_seal(part)
        return {self.argument: self.prepared.scaled(self.parts[part].take(rows))}

    def wrap(self, model: nn.Module) -> nn.Module:
        """`(pictures, by the model's own name) -> logits (batch, classes)` around the model."""
        return logits_of(model, self.argument)

    def example(self, batch: int, length: int) -> dict[str, Tensor]:
        """So many training pictures; `length` means nothing."""
        if batch < 1:
            raise BadInput("an example needs a batch of at least 1", str(batch), "", "ask for more")
        return self.inputs("train", [row % len(self.parts["train"].pixels) for row in range(batch)])

    def dynamic(self) -> Mapping[str, Mapping[int, str]]:
        """The number of pictures varies."""
        return {self.argument: {0: "batch"}}

    def batches(self, part: Part, size: int, rng: np.random.Generator | None = None) -> Iterator[list[int]]:
        """Rows of one pass, shuffled when `rng` is given."""
        order = np.arange(self.size(part)) if rng is None else rng.permutation(self.size(part))
        for start in range(0, len(order), size):
            yield order[start : start + size].tolist()

    def extended(self, count: int, rng: np.random.Generator) -> Self:
        """The same task with `count` more train rows: pictures moved, turned and mixed, for the original to label."""
        longer = copy.copy(self)
        longer.parts = {**self.parts, "train": self.parts["train"].extended(count, rng)}
        return longer


class Logits(nn.Module):
    """A classifier that takes pictures and gives its logits and nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """(batch, channels, height, width) float32 -> logits (batch, classes)."""
        return first_of(self.model(*args, **kwargs))


def logits_of(model: nn.Module, argument: str) -> nn.Module:
    """`Logits` whose one argument has this name, for all who ask a module what it takes (torch.export does)."""

    def forward(self: Logits, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return Logits.forward(self, *args, **kwargs)

    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kinds) for name in ("self", argument)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    named: type[Logits] = type(Logits.__name__, (Logits,), {"forward": forward, "__doc__": Logits.__doc__})
    return named(model)


def _digest(picture: np.ndarray) -> str:
    return hashlib.blake2b(picture.tobytes(), digest_size=12).hexdigest()
