"""Speed of generation: milliseconds of each further token, with the model's own cache of keys and values."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TOKENS, ROUNDS, FEWEST = 16, 15, 5


def decodes(model: nn.Module, prompt: Tensor) -> bool:
    """Whether a model generates further tokens from a cache after this prompt: a decoder of transformers."""
    can: Any = getattr(model, "can_generate", None)
    if not can or not can() or getattr(model.config, "is_encoder_decoder", False):
        return False
    try:
        _once(model, prompt)
    except Exception:  # no cache, another kind of it, or no positions left after the prompt
        return False
    return True


def decode_times(
    models: Mapping[str, nn.Module], prompt: Tensor, rng: np.random.Generator, seconds: float = float("inf")
) -> dict[str, np.ndarray]:
    """Milliseconds a token after the prompt (1, length) int64, greedily: name -> (rounds,), interleaved.

    `seconds` caps the wall time; some rounds are always run.
    """
    names = list(models)
    rounds: list[list[float]] = []
    began = time.perf_counter()
    while len(rounds) < FEWEST or (len(rounds) < ROUNDS and time.perf_counter() - began < seconds):
        row = [0.0] * len(names)
        for place in rng.permutation(len(names)):
            row[place] = _once(models[names[place]], prompt)
        rounds.append(row)
    table = np.array(rounds)
    return {name: table[:, column] for column, name in enumerate(names)}


def _once(model: Any, prompt: Tensor) -> float:
    with torch.inference_mode():
        out = model(input_ids=prompt, use_cache=True)
        before = time.perf_counter_ns()
        for _ in range(TOKENS):
            following = out.logits[:, -1:].argmax(-1)
            out = model(input_ids=following, past_key_values=out.past_key_values, use_cache=True)
    return (time.perf_counter_ns() - before) / 1e6 / TOKENS
