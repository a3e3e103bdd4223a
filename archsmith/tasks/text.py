"""What text tasks share: tokenised parts, a sealed holdout, padded inputs, real examples of an exact length."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.tasks.augment import augmented
from archsmith.tasks.encodings import Encodings, batches, pad
from archsmith.tasks.files import Parted
from archsmith.tasks.sealed import Sealed
from archsmith.tasks.task import Part


class TextTask(Sealed, ABC):
    """Tokenised texts in three parts. The holdout can be counted, but not read before `open_holdout`."""

    def __init__(self, parted: Parted) -> None:
        self.parts = dict(parted.encodings)
        self.frame = parted.frame
        self.split = parted.report
        self.tokenizer = parted.tokenizer
        self.extra_rows = 0

    @property
    def typed(self) -> bool:
        """Whether rows are pairs whose segments the tokenizer numbers."""
        return self.parts["train"].types is not None

    def size(self, part: Part) -> int:
        """Rows in a part."""
        return len(self.parts[part])

    def lengths(self, part: Part) -> np.ndarray:
        """Tokens of each row, special ones included, (rows,) int64."""
        return self.parts[part].lengths

    @abstractmethod
    def judge(self, outputs: np.ndarray, part: Part) -> np.ndarray:
        """Wrapped outputs of all rows of a part -> one record an example."""

    def inputs(self, part: Part, rows: Sequence[int]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` (and `token_type_ids` for pairs), each (rows, longest) int64."""
        self._check_seal(part)
        return pad(self.parts[part], rows, self.frame)

    def batches(self, part: Part, size: int, rng: np.random.Generator | None = None) -> Iterator[list[int]]:
        """Rows of one pass in batches of like length; shuffled when `rng` is given, in order of length otherwise."""
        return batches(self.parts[part].lengths, size, rng)

    def example(self, batch: int, length: int) -> dict[str, Tensor]:
        """Training texts joined until each of `batch` rows has exactly `length` tokens: no padding, (batch, length)."""
        frame, train = self.frame, self.parts["train"]
        framing = len(frame.prefix) + len(frame.middle) + len(frame.suffix)
        room = length - framing
        if batch < 1 or room < 1:
            law = f"an example needs a batch of at least 1 and a length of at least {framing + 1}"
            raise BadInput(law, f"batch {batch}, length {length}", "", "ask for more")
        special = np.array([*frame.prefix, *frame.middle, *frame.suffix, frame.pad], dtype=np.int32)
        stream = train.ids[: 4 * batch * length + 4 * length]
        stream = stream[~np.isin(stream, special)]
        if not len(stream):
            raise BadInput("training texts must have tokens", "special tokens only", "", "check the tokenizer")
        bodies = np.resize(stream, (batch, room))
        first = room // 2 if frame.pair else room
        columns = (frame.prefix, bodies[:, :first], frame.middle, bodies[:, first:], frame.suffix)
        ids = np.concatenate(
            [np.broadcast_to(np.asarray(c, dtype=np.int64), (batch, np.shape(c)[-1])) for c in columns], 1
        )
        made = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.ones(batch, length, dtype=torch.int64)}
        if self.typed:
            types = torch.zeros(batch, length, dtype=torch.int64)
            types[:, len(frame.prefix) + first + len(frame.middle) :] = 1
            made["token_type_ids"] = types
        return made

    def dynamic(self) -> Mapping[str, Mapping[int, str]]:
        """Every input varies in both dimensions."""
        names = ["input_ids", "attention_mask"] + (["token_type_ids"] if self.typed else [])
        return {name: {0: "batch", 1: "length"} for name in names}

    @abstractmethod
    def quality(self, judged: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Points from judged records."""

    def drop(self, judged: np.ndarray, original: np.ndarray) -> float:
        """Points that a network is below the original, from the records of both on validation."""
        return self.quality(original) - self.quality(judged)

    def extended(self, count: int, rng: np.random.Generator) -> Self:
        """The same task with `count` more train rows, made from its train texts, for the original to label.

        They follow the real rows; the other parts and the seal are those of this task.
        """
        train = self.parts["train"]
        made = augmented(self._real_train(), self.frame, count, rng)
        longer = copy.copy(self)
        longer.parts = {**self.parts, "train": train.followed_by(made)}
        longer.extra_rows = self.extra_rows + count
        return longer

    def _real_train(self) -> Encodings:
        """Train rows without those that `extended` added."""
        train = self.parts["train"]
        return train.take(np.arange(len(train) - self.extra_rows))


class Wrapped(nn.Module):
    """A model called with `input_ids`, `attention_mask` and, for pairs, `token_type_ids`, in that order."""

    def __init__(self, model: nn.Module, typed: bool) -> None:
        super().__init__()
        self.model = model
        self.typed = typed

    def call(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Any:
        """What the model itself returns."""
        if self.typed:
            return self.model(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, return_dict=True
            )
        return self.model(input_ids=input_ids, attention_mask=attention_mask)
