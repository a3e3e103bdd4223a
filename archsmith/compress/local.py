"""Local distillation: layer by layer, what leaves a kept layer approaches what the original hands to the one behind it
(Romero et al. 2015), on the kept units of the residual stream, together with the relations between tokens
(Wang et al. 2021, MiniLMv2, on hidden states).

Layers learn in the order of the network, each on what the small network's own layers before it give, which are done.
One layer's goals, gradients and moments are held at a time: memory follows the layer and not the model.

B: batch, L: length, R: kept residual width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from archsmith.model.relay import Relay
from archsmith.model.wide import widened
from archsmith.train import Schedule, fit

LONGEST_RELATION = 192  # tokens; relations cost the square of the length
RELATIONS = 0.1  # their weight beside the states


def distil_layers(
    original: nn.Module,
    small: nn.Module,
    pairs: Sequence[tuple[nn.Module, nn.Module]],
    batches: Sequence[Mapping[str, Tensor]],
    schedule: Schedule,
    *,
    kept: Mapping[nn.Module, Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[float]:
    """Bring the layers of a small network near those of the original, in place; returns the loss left at each.

    Args:
        original, small: wrapped modules `(**inputs) -> Tensor`.
        pairs: (layer of the original, layer of the small network that should give the same), in the order of the
            network. Each gets its share of the schedule's steps, with a schedule of its own.
        batches: inputs to learn on; where they have `attention_mask`, padding is left out.
        kept: layer of the original -> positions (R,) of its residual stream that the small network kept; all where
            none.
        progress: is told the steps done, of the schedule's.
    """
    theirs, mine = (
        Relay(model, batches, [pair[side] for pair in pairs]) for side, model in enumerate((original, small))
    )
    lost, done = [], 0
    pairs = [pair for pair in pairs if next(pair[1].parameters(), None) is not None]  # what is left may be a shortcut
    for number, (goal, layer) in enumerate(pairs):
        steps = schedule.steps // len(pairs) + (number < schedule.steps % len(pairs))
        if not steps:
            continue
        theirs.advance(goal)
        mine.advance(layer)
        with torch.no_grad():
            wanted = [theirs.passed(index, goal) for index in range(len(batches))]

        def loss(
            index: list[int], goal: nn.Module = goal, layer: nn.Module = layer, wanted: list[Tensor] = wanted
        ) -> Tensor:
            state, mask = mine.passed(index[0], layer), batches[index[0]].get("attention_mask")
            return layer_loss(state, wanted[index[0]], mask, (kept or {}).get(goal))

        def passes(epoch: int, number: int = number) -> Iterable[list[int]]:
            rng = np.random.default_rng([schedule.seed, number, epoch])
            return [[int(index)] for index in rng.permutation(len(batches))]

        def tell(step: int, before: int = done) -> None:
            if progress:
                progress(before + step)

        with _learning(small, layer):
            own = replace(schedule, steps=steps, dropout=False)
            lost.append(fit(layer, passes, loss, own, progress=tell).loss)
        done += steps
    return lost


@contextmanager
def _learning(small: nn.Module, layer: nn.Module) -> Iterator[None]:
    """Within, this layer alone asks for gradients, then all do; a half-precision layer learns in single precision,
    which small steps need, and is rounded when it is done."""
    kinds = {p: p.dtype for p in layer.parameters()}
    small.requires_grad_(False)
    layer.requires_grad_(True)
    for p in kinds:
        p.data = widened(p.data)
    try:
        yield
    finally:
        for p, kind in kinds.items():
            p.data = p.data.to(kind)
        small.requires_grad_(True)


def layer_loss(mine: Tensor, wanted: Tensor, mask: Tensor | None, kept: Tensor | None = None) -> Tensor:
    """`state_loss` on the kept units; where the stream is narrower, a tenth of `relation_loss` besides."""
    if kept is None or mine.shape == wanted.shape:
        return state_loss(mine, wanted, mask)
    narrow = wanted.index_select(1 if wanted.dim() == 4 else -1, kept)
    return state_loss(mine, narrow, mask) + RELATIONS * relation_loss(mine, wanted, mask)


def state_loss(mine: Tensor, wanted: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared error over the wanted states' variance, padding left out; shapes (B, L, R) and mask (B, L)."""
    if mask is not None and mask.shape == mine.shape[:-1]:
        mine, wanted = mine[mask.bool()], wanted[mask.bool()]
    return functional.mse_loss(mine, wanted) / (wanted.var() + 1e-6)


def relation_loss(mine: Tensor, wanted: Tensor, mask: Tensor | None) -> Tensor:
    """Divergence between the tokens' similarities in both networks, whatever their widths: (B, L, r), (B, L, R).

    0 where states have no token dimension or too many tokens.
    """
    if mine.dim() != 3 or mine.shape[1] > LONGEST_RELATION or mask is None or mask.shape != mine.shape[:-1]:
        return mine.new_zeros(())
    hide = ~mask.bool()[:, None, :]

    def relations(states_BLR: Tensor) -> Tensor:
        unit = functional.normalize(states_BLR, dim=-1)
        return (10 * unit @ unit.transpose(1, 2)).masked_fill(hide, -1e4).log_softmax(-1)

    apart = functional.kl_div(relations(mine), relations(wanted), log_target=True, reduction="none").sum(-1)
    return apart[mask.bool()].mean()
