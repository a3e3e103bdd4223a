"""Recurrent layers in ONNX: an LSTM or a GRU becomes the operator of that name, for any length.

`torch.export` writes the steps of a recurrent layer out one by one, as many as its example has. So while a model is
captured for ONNX, each `nn.LSTM` and `nn.GRU` is stood in for by one that calls an operator of ours, which the
converter is told how to write. B: rows, L: length, I: inputs, H: hidden width, G: gates (4 of an LSTM, 3 of a GRU).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Where ONNX has the gates of torch: i f g o -> i o f c; r z n -> z r h.
LSTM, GRU = (0, 3, 1, 2), (1, 0, 2)


@torch.library.custom_op("archsmith::lstm", mutates_args=())
def lstm(x_LBI: Tensor, w: Tensor, r: Tensor, b: Tensor, hidden: int) -> tuple[Tensor, Tensor, Tensor]:
    """(L, B, H) outputs and the last (B, H) of both states, which begin as zeros; weights as ONNX has them: w (1, G H,
    I), r (1, G H, H), b (1, 2 G H)."""
    zeros = x_LBI.new_zeros(1, x_LBI.shape[1], hidden)
    given = _torch_order(w, r, b, LSTM)
    out, h, c = torch.lstm(x_LBI, (zeros, zeros.clone()), given, True, 1, 0.0, False, False, False)
    return out, h[0].clone(), c[0].clone()


@torch.library.custom_op("archsmith::gru", mutates_args=())
def gru(x_LBI: Tensor, w: Tensor, r: Tensor, b: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    """(L, B, H) outputs and the last (B, H) state; as `lstm`."""
    zeros = x_LBI.new_zeros(1, x_LBI.shape[1], hidden)
    out, h = torch.gru(x_LBI, zeros, _torch_order(w, r, b, GRU), True, 1, 0.0, False, False, False)
    return out, h[0].clone()


@lstm.register_fake
def _(x_LBI: Tensor, w: Tensor, r: Tensor, b: Tensor, hidden: int) -> tuple[Tensor, Tensor, Tensor]:
    length, rows, _ = x_LBI.shape
    return x_LBI.new_empty(length, rows, hidden), x_LBI.new_empty(rows, hidden), x_LBI.new_empty(rows, hidden)


@gru.register_fake
def _(x_LBI: Tensor, w: Tensor, r: Tensor, b: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    length, rows, _ = x_LBI.shape
    return x_LBI.new_empty(length, rows, hidden), x_LBI.new_empty(rows, hidden)


def _torch_order(w: Tensor, r: Tensor, b: Tensor, order: tuple[int, ...]) -> list[Tensor]:
    """Weights of ONNX's order as torch has them: w, r, and both biases."""
    back = [order.index(at) for at in range(len(order))]

    def turned(value: Tensor) -> Tensor:
        return torch.cat([value.chunk(len(order))[at] for at in back])

    return [turned(w[0]), turned(r[0]), *(turned(half) for half in b[0].chunk(2))]


class StandIn(nn.Module):
    """What an `nn.LSTM` or `nn.GRU` computes from states of zeros, by our operators."""

    def __init__(self, part: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """(B, L, I), or (L, B, I) as the layer has it, to the same with H, or 2 H of both directions; last states."""
        part = self.part
        if hx is not None or not isinstance(x, Tensor) or x.dim() != 3:
            found: tuple[Tensor, Any] = part(x, hx)
            return found
        x_LBI = x.transpose(0, 1) if part.batch_first else x
        last: list[tuple[Tensor, ...]] = []
        for layer in range(part.num_layers):
            outs = []
            for suffix in ("", "_reverse")[: 1 + part.bidirectional]:
                given = x_LBI.flip(0) if suffix else x_LBI
                out, *states = (lstm if isinstance(part, nn.LSTM) else gru)(
                    given, *_onnx_order(part, f"_l{layer}{suffix}"), part.hidden_size
                )
                outs.append(out.flip(0) if suffix else out)
                last.append(tuple(states))
            x_LBI = torch.cat(outs, 2) if len(outs) > 1 else outs[0]
        stacked = tuple(torch.stack(each) for each in zip(*last, strict=True))
        out = x_LBI.transpose(0, 1) if part.batch_first else x_LBI
        return out, stacked if isinstance(part, nn.LSTM) else stacked[0]


def _onnx_order(part: nn.LSTM | nn.GRU, which: str) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of a layer and a direction as ONNX has them."""
    order = LSTM if isinstance(part, nn.LSTM) else GRU

    def turned(value: Tensor) -> Tensor:
        return torch.cat([value.chunk(len(order))[at] for at in order])

    w, r = (turned(getattr(part, f"weight_{kind}{which}"))[None] for kind in ("ih", "hh"))
    biases = [turned(getattr(part, f"bias_{kind}{which}")) for kind in ("ih", "hh")] if part.bias else []
    return w, r, torch.cat(biases)[None] if biases else w.new_zeros(1, 2 * w.shape[1])


@contextmanager
def standing_in(wrapped: nn.Module) -> Iterator[None]:
    """Within, our operators are called in place of the model's recurrent layers (but for projected ones)."""
    found = [
        (module, name, child)
        for module in wrapped.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.LSTM | nn.GRU) and not child.proj_size
    ]
    try:
        for module, name, child in found:
            setattr(module, name, StandIn(child))
        yield
    finally:
        for module, name, child in found:
            setattr(module, name, child)


def translations() -> Mapping[Callable[..., Any], Callable[..., Any]]:
    """How torch's converter writes our operators."""
    from onnxscript import opset18 as op

    def write_lstm(x: Any, w: Any, r: Any, b: Any, hidden: int) -> tuple[Any, Any, Any]:
        out, h, c = op.LSTM(x, w, r, b, hidden_size=hidden)
        return op.Squeeze(out, [1]), op.Squeeze(h, [0]), op.Squeeze(c, [0])

    def write_gru(x: Any, w: Any, r: Any, b: Any, hidden: int) -> tuple[Any, Any]:
        out, h = op.GRU(x, w, r, b, hidden_size=hidden, linear_before_reset=1)
        return op.Squeeze(out, [1]), op.Squeeze(h, [0])

    return {torch.ops.archsmith.lstm.default: write_lstm, torch.ops.archsmith.gru.default: write_gru}
