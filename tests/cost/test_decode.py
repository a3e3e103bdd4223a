"""What a further token costs a decoder with its cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from archsmith.cost import decode_times, decodes
from archsmith.cost.decode import FEWEST

torch.set_num_threads(1)


def test_decoders_decode(tiny: Callable[..., Any]) -> None:
    prompt = torch.arange(3, 13)[None]
    assert decodes(tiny("llama").model, prompt) and decodes(tiny("gpt2").model, prompt)
    assert not any(decodes(model, prompt) for model in (tiny("bert").model, tiny("t5").model, nn.Linear(2, 2)))
    assert not decodes(tiny("gpt2").model, torch.arange(3, 67)[None]), "no position is left after 64"


def test_more_layers_take_longer_for_a_token(tiny: Callable[..., Any]) -> None:
    models = {name: tiny("llama", num_hidden_layers=layers).model for name, layers in (("deep", 12), ("flat", 1))}
    seen: list[tuple[int, ...]] = []
    models["flat"].model.embed_tokens.register_forward_hook(lambda m, args, out: seen.append(tuple(args[0].shape)))
    times = decode_times(models, torch.arange(3, 13)[None], np.random.default_rng(0), seconds=0.0)
    assert {name: row.shape for name, row in times.items()} == {"deep": (FEWEST,), "flat": (FEWEST,)}
    assert float(np.median(times["deep"])) > 2 * float(np.median(times["flat"])) > 0
    assert seen[:2] == [(1, 10), (1, 1)], "the prompt, and then a token at a time"
