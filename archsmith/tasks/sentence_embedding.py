"""Sentence embedding for search: pairs of texts, each of which must find its other half among all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from archsmith.errors import BadInput
from archsmith.tasks.columns import find_texts
from archsmith.tasks.encodings import Tokenizer
from archsmith.tasks.files import Parted, Texts, divide, read_tables, take_columns
from archsmith.tasks.read import Table
from archsmith.tasks.task import Part
from archsmith.tasks.text import TextTask, Wrapped

Pooling = Literal["mean", "cls"]
TEMPERATURE = 0.05  # of the softmax over similarities: the scale of 20 that such models are trained with
LEAST = 5  # pairs for each that recall@k may take for found
TIE = 1e-6  # similarities closer than this are equal: two batches round the same text differently


class SentenceEmbedding(TextTask):
    """Pairs (a, b); quality is recall@k: how often b is among the k nearest of all b of its part, asked by a.

    A part of n pairs has 2n rows: all a, then all b. There are no targets: what teaches is the original's embeddings.
    """

    name = "sentence-embedding"

    def __init__(self, parted: Parted, metric: str = "recall@10", pooling: Pooling = "mean") -> None:
        super().__init__(parted)
        self.metric = metric
        self.nearest = _k_of(metric)
        self.pooling: Pooling = pooling

    @classmethod
    def from_files(
        cls,
        data: str | Path,
        validation: str | Path | None = None,
        holdout: str | Path | None = None,
        *,
        tokenizer: Tokenizer,
        rng: np.random.Generator,
        text: str | Sequence[str] | None = None,
        metric: str = "recall@10",
        pooling: Pooling = "mean",
        max_length: int | None = None,
        fractions: Mapping[Part, float] | None = None,
    ) -> SentenceEmbedding:
        """Pairs from files with two text columns (`text="a,b"`, or usual names); the rest as in text classification."""
        _k_of(metric)
        tables = read_tables(data, validation, holdout)
        columns = find_texts(tables["train"], text)
        if len(columns) != 2:
            remedy = 'name two with --text "a,b"'
            raise BadInput("sentence embedding needs two text columns", columns[0], tables["train"].source, remedy)
        texts = {part: take_columns(table, columns) for part, table in tables.items()}
        return cls(_divide_pairs(texts, tokenizer, max_length, rng, fractions), metric, pooling)

    @classmethod
    def from_pairs(
        cls,
        pairs: Mapping[Part, Sequence[tuple[str, str]]],
        *,
        tokenizer: Tokenizer,
        rng: np.random.Generator,
        metric: str = "recall@10",
        pooling: Pooling = "mean",
        max_length: int | None = None,
    ) -> SentenceEmbedding:
        """Pairs by part, "train" at least; parts that are missing are split off it."""
        texts = {}
        for part, rows in pairs.items():
            columns = {"a": [a for a, _ in rows], "b": [b for _, b in rows]}
            texts[part] = take_columns(Table(f"{part} pairs", columns), ("a", "b"))
        return cls(_divide_pairs(texts, tokenizer, max_length, rng, None), metric, pooling)

    def pairs(self, part: Part) -> int:
        """Pairs in a part, without the rows that `extended` added."""
        return (self.size(part) - (self.extra_rows if part == "train" else 0)) // 2

    def check_parts(self) -> None:
        """Raise `BadInput` where validation or holdout are so small that chance would find most of their pairs."""
        parts: tuple[Part, ...] = ("validation", "holdout")
        for part in parts:
            if 0 < self.pairs(part) < LEAST * self.nearest:
                law = f"{self.metric} needs {LEAST * self.nearest} pairs in each part, or chance finds too many"
                raise BadInput(law, str(self.pairs(part)), part, "give more pairs, or --metric recall@1")

    def targets(self, part: Part, rows: Sequence[int]) -> None:
        """None: the original model teaches."""
        self._check_seal(part)

    def wrap(self, model: nn.Module) -> nn.Module:
        """`(input_ids, attention_mask) -> embeddings (batch, width)` of length 1 around the model."""
        return Embeddings(model, self.pooling)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """There is no supervised loss. Raises `BadInput`."""
        raise BadInput("sentence embedding has no labels to learn from", "", "", "train on the divergence")

    def divergence(self, outputs: Tensor, original: Tensor) -> Tensor:
        """Mean 1 - cosine (where the widths are equal) plus the divergence of similarity structure, in nats.

        The latter is KL(original || outputs) of each row's softmax over its similarities to the other rows of the
        batch, at temperature 0.05; 0 for a batch of one. `outputs` (batch, width), `original` (batch, its width).
        """
        ours = functional.normalize(outputs.float(), dim=-1)
        theirs = functional.normalize(original.float(), dim=-1)
        total = ours.new_zeros(())
        if ours.shape == theirs.shape:
            total = total + (1 - (ours * theirs).sum(dim=-1)).mean()
        if len(ours) > 1:
            log_p, log_q = _neighbours(theirs), _neighbours(ours)
            total = total + functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        return total

    def judge(self, outputs: np.ndarray, part: Part) -> np.ndarray:
        """Embeddings (2 * pairs, width) -> (pairs,) int64: how many other b are nearer to a than its own.

        Rows that `extended` added are left out. A pair with a number that is not finite is never found.
        """
        self._check_seal(part)
        n = self.pairs(part)
        if outputs.ndim != 2 or len(outputs) != self.size(part):
            law = f"the model must give one embedding for each of {self.size(part)} texts"
            raise BadInput(law, f"shape {outputs.shape}", part, "check the model's output")
        queries, bodies = _unit(outputs[:n]), _unit(outputs[n : 2 * n])
        ranks = np.empty(n, dtype=np.int64)
        for begin in range(0, n, 1024):
            block = queries[begin : begin + 1024]
            similar = block @ bodies.T
            own = similar[np.arange(len(block)), begin + np.arange(len(block))]
            ranks[begin : begin + 1024] = (similar > own[:, None] + TIE).sum(axis=1)
        finite = np.isfinite(outputs[:n]).all(axis=1) & np.isfinite(outputs[n : 2 * n]).all(axis=1)
        return np.where(finite, ranks, max(n, self.nearest))

    def quality(self, judged: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Recall@k in points, of all or of some records (pairs,)."""
        chosen = judged if rows is None else judged[rows]
        return 100.0 * float(np.mean(chosen < self.nearest))


class Embeddings(Wrapped):
    """A sentence encoder that gives one embedding of length 1 a text."""

    def __init__(self, model: nn.Module, pooling: Pooling) -> None:
        super().__init__(model, typed=False)
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, length) int64 each -> (batch, width), the mean of the tokens' states or the first's, normalised."""
        result = self.call(input_ids, attention_mask, None)
        hidden_BLW = result if isinstance(result, Tensor) else result[0]
        if self.pooling == "cls":
            pooled_BW = hidden_BLW[:, 0]
        else:
            mask_BL1 = attention_mask.unsqueeze(-1).to(hidden_BLW.dtype)
            pooled_BW = (hidden_BLW * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1).clamp(min=1e-9)
        return functional.normalize(pooled_BW, dim=-1)


def _k_of(metric: str) -> int:
    match = re.fullmatch(r"recall@([1-9]\d*)", metric)
    if match is None:
        raise BadInput("a sentence-embedding metric must be recall@k", repr(metric), "", "write recall@10, say")
    return int(match[1])


def _divide_pairs(
    texts: Mapping[Part, Texts],
    tokenizer: Tokenizer,
    max_length: int | None,
    rng: np.random.Generator,
    fractions: Mapping[Part, float] | None,
) -> Parted:
    """Split pairs as wholes, then tokenise their halves as texts of their own: all a, then all b."""
    strata = {part: np.zeros(len(own.columns[0]), dtype=np.int64) for part, own in texts.items()}
    return divide(texts, strata, tokenizer, max_length, rng, fractions, stacked=True)


def _unit(vectors: np.ndarray) -> np.ndarray:
    finite = np.nan_to_num(vectors.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(finite / np.maximum(np.linalg.norm(finite, axis=1, keepdims=True), 1e-12))


def _neighbours(unit: Tensor) -> Tensor:
    """Log softmax of each row's similarities to the other rows, (batch, batch - 1)."""
    n = len(unit)
    similar = unit @ unit.T / TEMPERATURE
    others = ~torch.eye(n, dtype=torch.bool, device=unit.device)
    return functional.log_softmax(similar[others].view(n, n - 1), dim=-1)
