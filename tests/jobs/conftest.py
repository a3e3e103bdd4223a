"""A small real run: a tiny BERT that has learnt which words are kind, saved as a user would have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stripes import write_stripes
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from archsmith.tasks import TextClassification
from archsmith.train import Schedule, fit

KIND, UNKIND = ("good", "fine", "lovely", "warm", "bright"), ("bad", "dull", "awful", "cold", "grim")
PLAIN = tuple(f"word{number}" for number in range(60))


def write_texts(path: Path, rows: int, seed: int) -> Path:
    """Sentences with one or three telling words among plain ones; the label is what most of them say."""
    rng = np.random.default_rng(seed)
    lines = ["label\tsentence"]
    for _ in range(rows):
        label = int(rng.integers(2))
        words = list(rng.choice(PLAIN, int(rng.integers(4, 12))))
        words += list(rng.choice(KIND if label else UNKIND, 2)) + list(rng.choice(UNKIND if label else KIND, 1))
        lines.append(f"{label}\t{' '.join(rng.permutation(words))}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("texts")
    sizes = {"train": 900, "validation": 200, "holdout": 200}
    return {part: write_texts(folder / f"{part}.tsv", rows, seed) for seed, (part, rows) in enumerate(sizes.items())}


@pytest.fixture(scope="session")
def kind_bert(tmp_path_factory: pytest.TempPathFactory, texts: dict[str, Path]) -> Path:
    """A folder with a trained three-layer BERT of width 64 and its tokenizer."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "kind-bert"
    vocabulary = folder.parent / "vocab.txt"
    vocabulary.write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *KIND, *UNKIND, *PLAIN)) + "\n")
    tokenizer = BertTokenizerFast(vocab=str(vocabulary), vocab_file=str(vocabulary))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
    task = TextClassification.from_files(
        texts["train"], texts["validation"], texts["holdout"], tokenizer=tokenizer, rng=np.random.default_rng(0)
    )
    wrapped = task.wrap(model)

    def loss(rows: list[int]) -> torch.Tensor:
        return task.loss(wrapped(**task.inputs("train", rows)), task.targets("train", rows))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        fit(
            wrapped,
            lambda epoch: task.batches("train", 32, np.random.default_rng([0, epoch])),
            loss,
            Schedule(240, learning_rate=2e-3),
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of stripes and a space of networks for them."""
    return write_stripes(tmp_path_factory.mktemp("stripes"))
