"""What every room's tests share: measuring data that may be absent, and tiny random transformers models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network is wrong

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
