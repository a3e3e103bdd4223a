"""What every room's tests share: measuring data that may be absent, and tiny random transformers models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network is wrong

import numpy as np
import pytest
import torch
from families import Tiny, shared_path, tiny_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("data/sst2")`: the path, or the test is skipped with the reason."""
    return shared_path


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Tiny]:
    """`tiny("bert", num_hidden_layers=2)`: a fresh tiny random model with its inputs."""
    return tiny_model


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`tiny_task("classification", rows=96)` or `"embedding"`: a task of random words that fits the models of `tiny`.

    The parts are files or lists of their own: `rows` train, 32 validation and 32 holdout examples.
    """
    from transformers import BertTokenizerFast

    from archsmith.tasks import SentenceEmbedding, TextClassification

    words = [f"word{number}" for number in range(91)]
    vocabulary = tmp_path_factory.mktemp("tiny") / "vocab.txt"
    vocabulary.write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words)) + "\n")
    tokenizer = BertTokenizerFast(vocab=str(vocabulary), vocab_file=str(vocabulary), model_max_length=32)

    def make(kind: str, rows: int = 96) -> Any:
        rng = np.random.default_rng(0)
        folder = tmp_path_factory.mktemp(kind)

        def text() -> str:
            return " ".join(rng.choice(words, int(rng.integers(4, 12))))

        sizes = {"train": rows, "validation": 32, "holdout": 32}
        if kind == "embedding":
            pairs: Any = {part: [(text(), text()) for _ in range(size)] for part, size in sizes.items()}
            return SentenceEmbedding.from_pairs(pairs, tokenizer=tokenizer, rng=rng)
        for part, size in sizes.items():
            lines = [f"{row % 3}\t{text()}" for row in range(size)]
            (folder / f"{part}.tsv").write_text("label\ttext\n" + "\n".join(lines) + "\n")
        paths = [folder / f"{part}.tsv" for part in sizes]
        return TextClassification.from_files(*paths, tokenizer=tokenizer, rng=rng)

    return make
