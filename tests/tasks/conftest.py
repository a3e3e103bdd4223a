"""A tokenizer of the tests' own: a BertTokenizer whose words are a few English ones, letters and Chinese characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizer

CHINESE = "这部电影很好看不坏差剧情太慢了我喜欢演员音乐非常棒无聊浪费时间值得一再推荐给你们和他"
ENGLISH = "a the film is good bad great dull plot slow fast very not fun actor music"


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ENGLISH.split()[1:], *letters]
    words += ["##" + letter for letter in letters] + sorted(set(CHINESE))
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("\n".join(words), encoding="utf-8")
    return BertTokenizer(vocab=str(path), vocab_file=str(path), model_max_length=64)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
