"""Language modelling: running text, of which every token is to be foretold from those before it.

B: batch, L: length in tokens.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.tasks.classified import first_of
from archsmith.tasks.columns import find_texts
from archsmith.tasks.encodings import Tokenizer
from archsmith.tasks.files import different_files
from archsmith.tasks.read import read, read_text
from archsmith.tasks.sealed import Sealed
from archsmith.tasks.split import SplitReport, split_alike
from archsmith.tasks.task import Part
from archsmith.tasks.vocabulary import learnt_alphabet

PASSAGE = 8000  # characters of a plain text that stay in one part
MOST: Mapping[Part, int] = {"validation": 64, "holdout": 256}  # windows that are judged
PLAIN = (".txt", ".md", ".text")
LEAST = -1e4  # log probability of a token for which a model gives no number


class LanguageModelling(Sealed):
    """Windows of `length` tokens, cut from the text of each part. Quality is 100 / perplexity, in points: the
    (geometric) mean probability of the right token, in percent."""

    name = "language-modelling"
    metric = "perplexity"
    self_taught = True  # its divergence moves with the probability of the right tokens alone

    def __init__(
        self,
        streams: Mapping[Part, np.ndarray],
        starts: Mapping[Part, np.ndarray],
        length: int,
        tokenizer: Tokenizer,
        split: SplitReport,
    ) -> None:
        self.streams, self.starts = dict(streams), dict(starts)
        self.length = length
        self.tokenizer = tokenizer
        self.split = split

    @classmethod
    def from_files(
        cls,
        data: str | Path,
        validation: str | Path | None = None,
        holdout: str | Path | None = None,
        *,
        tokenizer: Tokenizer | None,
        rng: np.random.Generator,
        text: str | Sequence[str] | None = None,
        length: int = 128,
        fractions: Mapping[Part, float] | None = None,
    ) -> LanguageModelling:
        """Read, split, tokenise once.

        `data`: a plain text (.txt, .md), or a table or `datasets` name with a column of texts (`text`). Parts without
        a file of their own are split off it: whole rows, or passages of a plain text. `tokenizer`: None for one that is
        learnt from the train part: characters, or pieces of words where there is much of it. Raises `BadInput`.
        """
        if length < 8:
            raise BadInput("a window must have at least 8 tokens", str(length), "--length", "ask for more")
        files = different_files(data, validation, holdout)
        texts = {part: documents(source, text) for part, source in files.items()}
        keys = {part: np.array([_digest(one) for one in own]) for part, own in texts.items()}
        alike = {part: np.zeros(len(own), dtype=np.int64) for part, own in texts.items()}
        kept, report = split_alike(keys, alike, str(data), rng, fractions)
        if tokenizer is None:
            tokenizer = learnt_alphabet([texts["train"][row] for row in kept["train"]])
        streams: dict[Part, np.ndarray] = {}
        starts: dict[Part, np.ndarray] = {}
        for part, rows in kept.items():
            own = texts.get(part, texts["train"])
            streams[part] = stream_of(tokenizer, [own[row] for row in rows])
            starts[part] = np.arange(0, len(streams[part]) - length + 1, length)
            if not len(starts[part]):
                law = f"{part} must have at least one window of {length} tokens"
                raise BadInput(law, f"{len(streams[part])} tokens", str(files.get(part, data)), "give more text")
            most = MOST.get(part, len(starts[part]))
            starts[part] = np.sort(rng.permutation(starts[part])[:most])
        counted: dict[str, int] = {part: len(own) for part, own in starts.items()}
        return cls(streams, starts, length, tokenizer, replace(report, rows=counted))

    def size(self, part: Part) -> int:
        """Windows in a part."""
        return len(self.starts[part])

    def lengths(self, part: Part) -> np.ndarray:
        """(windows,) int64, all the same."""
        return np.full(self.size(part), self.length, dtype=np.int64)

    def inputs(self, part: Part, rows: Sequence[int]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, (rows, length) int64; nothing is padded."""
        self._check_seal(part)
        return self._windows(self.streams[part], self.starts[part][np.asarray(rows, dtype=np.int64)], self.length)

    def targets(self, part: Part, rows: Sequence[int]) -> None:
        """None: the text is its own."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """`(input_ids, attention_mask) -> log probabilities of the tokens that follow (batch, length - 1)`."""
        return NextTokens(model)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log probability of the right tokens, in nats."""
        return -outputs.mean()

    def divergence(self, outputs: Tensor, original: Tensor) -> Tensor:
        """How much less probable than the original's the right tokens are, in nats; below 0 where more."""
        return (original - outputs).mean()

    def apart(self, outputs: Tensor, original: Tensor) -> Tensor:
        """Half the mean square of how far the right tokens' log probabilities have moved: for small moves the
        Kullback-Leibler divergence, told from few tokens (Schulman 2020, "Approximating KL divergence", k2)."""
        return 0.5 * (original - outputs).square().mean()

    def judge(self, outputs: np.ndarray, part: Part) -> np.ndarray:
        """Log probabilities (windows, length - 1) -> (windows,) their means. Rows that `extended` added count too."""
        self._check_seal(part)
        if outputs.shape != (self.size(part), self.length - 1):
            law = f"the model must give {self.size(part)} rows of {self.length - 1} log probabilities"
            raise BadInput(law, f"shape {outputs.shape}", part, "check the model")
        means: np.ndarray = np.nan_to_num(outputs, nan=LEAST, neginf=LEAST).mean(axis=1)
        return means

    def quality(self, judged: np.ndarray, rows: np.ndarray | None = None) -> float:
        """100 / perplexity, of all or of some windows."""
        return 100.0 * float(np.exp((judged if rows is None else judged[rows]).mean()))

    def drop(self, judged: np.ndarray, original: np.ndarray) -> float:
        """Points below the original."""
        return self.quality(original) - self.quality(judged)

    def example(self, batch: int, length: int) -> dict[str, Tensor]:
        """Training text of exactly this length."""
        train = self.streams["train"]
        if batch < 1 or length < 2:
            raise BadInput("an example needs a batch of 1 and a length of 2", f"{batch}, {length}", "", "ask for more")
        longest = max(1, len(train) - length + 1)
        return self._windows(np.resize(train, max(len(train), length)), np.arange(batch) * length % longest, length)

    def dynamic(self) -> Mapping[str, Mapping[int, str]]:
        """Both inputs vary in both dimensions."""
        return {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}

    def batches(self, part: Part, size: int, rng: np.random.Generator | None = None) -> Iterator[list[int]]:
        """Windows of one pass, shuffled when `rng` is given."""
        order = np.arange(self.size(part)) if rng is None else rng.permutation(self.size(part))
        for start in range(0, len(order), size):
            yield order[start : start + size].tolist()

    def extended(self, count: int, rng: np.random.Generator) -> Self:
        """The same task with `count` more training windows, which begin anywhere."""
        last = len(self.streams["train"]) - self.length
        more = rng.integers(0, last + 1, count)
        longer = copy.copy(self)
        longer.starts = {**self.starts, "train": np.concatenate([self.starts["train"], more])}
        return longer

    @staticmethod
    def _windows(stream: np.ndarray, starts: np.ndarray, length: int) -> dict[str, Tensor]:
        ids = torch.from_numpy(stream[starts[:, None] + np.arange(length)].astype(np.int64))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class NextTokens(nn.Module):
    """A language model that gives how probable it held each token that came."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) int64 each -> log probabilities (B, L - 1) of tokens 1 to L - 1, each given those before it."""
        logits = first_of(self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False))
        log_p = logits[:, :-1].float().log_softmax(-1)
        return log_p.gather(-1, input_ids[:, 1:, None])[..., 0]


def documents(source: str | Path, text: str | Sequence[str] | None) -> list[str]:
    """The rows of a table, or the passages of a plain text: paragraphs together until there is enough."""
    path = Path(source)
    if path.suffix.lower() not in PLAIN:
        table = read(source)
        names = find_texts(table, text)
        return table.strings(names[0])
    found: list[str] = []
    size = 0
    for piece in _pieces(read_text(path)):
        if not found or size > PASSAGE:
            found.append("")
            size = 0
        found[-1] += piece
        size += len(piece)
    return [one for one in found if one.strip()]


def _pieces(text: str) -> Iterator[str]:
    """Paragraphs, and lines of those that are longer than a passage: not every text has blank lines."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [paragraph] if len(paragraph) <= PASSAGE else paragraph.split("\n")
        yield from (line + "\n" for line in lines[:-1])
        yield lines[-1] + "\n\n"


def stream_of(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """All texts in one row of tokens, (tokens,) int32, the end-of-text token after each if there is one."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids = [[*one, *end] for one in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    return np.fromiter((token for row in ids for token in row), np.int32, sum(map(len, ids)))


def _digest(text: str) -> str:
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "replace"), digest_size=12).hexdigest()
