"""Small adversarial graphs: each once misled a reading of couplings, or could. With the widths that must be found free.

`ZOO`: name -> `Animal`. What `free` does not list must not be certified. Images and tokens have files of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Make = Callable[[], Any]


class Graph(nn.Module):
    """Parts, and a function of them and the inputs."""

    def __init__(self, run: Callable[..., Any], parts: Mapping[str, Any]) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Whatever the function makes of one or two inputs."""
        return self.run(self, x) if y is None else self.run(self, x, y)


@dataclass(frozen=True)
class Animal:
    """What makes the module, its inputs, and its free widths as "kind size size kind size"."""

    make: Callable[[], nn.Module]
    inputs: Mapping[str, Tensor]
    free: str


ZOO: dict[str, Animal] = {}


def zoo(free: str, *shapes: tuple[int, ...], **parts: Make) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function of its parts and of random inputs of these shapes under its own name."""

    def enter(run: Callable[..., Any]) -> Callable[..., Any]:
        generator = torch.Generator().manual_seed(len(ZOO))
        inputs = {n: torch.randn(s, generator=generator) for n, s in zip("xy", shapes or [(3, 10)], strict=False)}
        make = lambda: Graph(run, {name: part() for name, part in parts.items()}).eval()  # noqa: E731
        ZOO[run.__name__.replace("_", " ")] = Animal(make, inputs, free)
        return run

    return enter


def linear(inside: int, outside: int, **options: Any) -> Make:
    """Makes a linear layer."""
    return lambda: nn.Linear(inside, outside, **options)


def weight(*shape: int) -> Make:
    """Makes a parameter."""
    return lambda: nn.Parameter(torch.randn(shape) * 0.3)


@zoo("width 12", a=linear(10, 12), b=linear(12, 4))
def perceptron(m, x):
    return m.b(m.a(x).relu())


@zoo("width 12", a=linear(10, 12, bias=False), b=linear(12, 4, bias=False))
def without_biases(m, x):
    return m.b(m.a(x).tanh())


@zoo("width 12 14 18", a=linear(10, 12), b=linear(12, 14), c=linear(14, 18), d=linear(18, 4))
def three_hidden_layers(m, x):
    return m.d(m.c(m.b(m.a(x).relu()).relu()).relu())


@zoo("width 12", a=weight(10, 12), b=weight(12, 4))
def parameters_used_directly(m, x):
    return (x @ m.a).relu() @ m.b


@zoo("width 12", a=weight(10, 12), b=weight(12, 4))
def parameter_used_transposed(m, x):
    return functional.linear(x, m.a.t()).relu() @ m.b


@zoo("width 12", a=weight(10, 12), b=weight(12, 4))
def einsum(m, x):
    return torch.einsum("bh,ho->bo", torch.einsum("bi,ih->bh", x, m.a).relu(), m.b)


@zoo("", a=weight(10, 12))
def one_matrix_both_ways(m, x):
    return functional.linear((x @ m.a).relu(), m.a)


@zoo("width 12", a=linear(10, 12), b=linear(12, 12), c=linear(12, 4))
def layer_used_twice(m, x):
    return m.c(m.b(m.b(m.a(x)).relu()).relu())


@zoo("width 12", a=linear(10, 12), b=linear(12, 4), idle=linear(10, 12))
def layer_that_nothing_uses(m, x):
    return m.b(m.a(x).relu())


@zoo("width 12", a=linear(10, 12), b=linear(12, 4), c=linear(10, 14), d=linear(14, 4))
def branch_times_zero(m, x):
    return m.b(m.a(x).relu()) + 0 * m.d(m.c(x))


@zoo("width 12", a=linear(10, 12), b=linear(12, 4), c=linear(10, 14), d=linear(14, 4))
def branch_not_taken(m, x):
    return m.b(m.a(x).relu()) if x.abs().sum() > 0 else m.d(m.c(x))


@zoo("width 12 14", a=linear(10, 12), b=linear(12, 4), c=linear(10, 14), d=linear(14, 5))
def tuple_of_outputs(m, x):
    return m.b(m.a(x).relu()), m.d(m.c(x).relu())


@zoo("width 12", a=linear(10, 12), b=linear(12, 4), c=linear(10, 14))
def dict_of_outputs(m, x):
    return {"first": m.b(m.a(x).relu()), "other": m.c(x)}


@zoo("width 12", (3, 10), (3, 6), a=linear(10, 12), b=linear(6, 12), c=linear(12, 4))
def two_inputs_added(m, x, y):
    return m.c((m.a(x) + m.b(y)).relu())


@zoo("width 5 7", (3, 10), (3, 6), a=linear(10, 5), b=linear(6, 7), c=linear(12, 4))
def two_inputs_joined(m, x, y):
    return m.c(torch.cat([m.a(x), m.b(y)], -1).relu())


@zoo("width 12", a=linear(10, 12), b=linear(12, 4))
def operators_in_place(m, x):
    return m.b(m.a(x).add_(1).mul_(2).relu_())


@zoo("width 5 12", a=linear(10, 12), b=linear(10, 5), c=linear(5, 12), d=linear(12, 4))
def low_rank_beside_full_rank(m, x):
    return m.d((m.a(x) + m.c(m.b(x))).relu())


@zoo("", a=linear(10, 6), b=lambda: nn.Bilinear(6, 10, 7), c=linear(7, 4))
def bilinear(m, x):
    return m.c(m.b(m.a(x), x))


@zoo("width 12", a=lambda: nn.utils.parametrizations.weight_norm(nn.Linear(10, 12)), b=linear(12, 4))
def weight_norm(m, x):
    return m.b(m.a(x).relu())


@zoo("width 12", a=linear(10, 12), s=lambda: nn.PReLU(12), b=linear(12, 4))
def slope_for_each_unit(m, x):
    return m.b(m.s(m.a(x)))


@zoo("ffn 6", a=linear(10, 12), b=linear(6, 10))
def halves_gate_each_other(m, x):
    gate, up = m.a(x).chunk(2, -1)
    return x + m.b(gate.sigmoid() * up)


@zoo("ffn 6", a=linear(10, 12), b=linear(6, 10))
def interleaved_gate(m, x):
    hidden = m.a(x)
    return x + m.b(hidden[..., ::2].sigmoid() * hidden[..., 1::2])


@zoo("ffn 6", a=linear(10, 12), b=linear(6, 10))
def glu_of_torch(m, x):
    return x + m.b(functional.glu(m.a(x), -1))


@zoo("ffn 6", a=linear(10, 12), b=linear(6, 10), inner=lambda: 6)
def gate_as_a_dimension(m, x):
    hidden = m.a(x).view(-1, 2, m.inner)
    return x + m.b(hidden[:, 0].sigmoid() * hidden[:, 1])


@zoo("", a=linear(10, 12), b=linear(12, 4))
def pieces_by_numbers_in_the_code(m, x):
    return m.b(torch.cat([piece.relu() for piece in m.a(x).split([3, 4, 5], -1)], -1))


@zoo("width 3 4 5", a=linear(10, 12), b=linear(12, 4), p=lambda: 3, q=lambda: 4, r=lambda: 5)
def unequal_pieces(m, x):
    return m.b(torch.cat([piece.relu() for piece in m.a(x).split([m.p, m.q, m.r], -1)], -1))


@zoo("width 4 5 6", a=linear(10, 4), b=linear(10, 5), c=linear(10, 6), d=linear(15, 4))
def nested_concatenation(m, x):
    return m.d(torch.cat([torch.cat([m.a(x), m.b(x)], -1), m.c(x)], -1).relu())


@zoo("", a=linear(10, 4), b=linear(10, 5), d=linear(3, 4))
def concatenation_split_elsewhere(m, x):
    return m.d(torch.cat([m.a(x), m.b(x)], -1).view(-1, 3, 3).sum(1))


@zoo("width 12", a=linear(5, 12), b=linear(12, 4))
def through_the_batch(m, x):
    return m.b(m.a(x.view(-1, 5)).relu()).view(-1, 2, 4)


@zoo("width 3 4", a=linear(10, 12), b=linear(12, 4), p=lambda: 3, q=lambda: 4)
def product_turned_round(m, x):
    return m.b(m.a(x).view(-1, m.p, m.q).transpose(1, 2).flatten(1).relu())


@zoo("width 12", a=linear(10, 12), s=weight(12), t=weight(1, 12), b=linear(12, 4))
def scales_and_shifts(m, x):
    return m.b((m.a(x) * m.s + m.t).relu())


@zoo("width 12", a=linear(10, 12), g=linear(10, 1), b=linear(12, 4))
def one_gate_for_all(m, x):
    return m.b(m.a(x).relu() * m.g(x).sigmoid())


@zoo("width 5 6", a=linear(10, 5), b=linear(10, 6), c=linear(30, 4))
def outer_product(m, x):
    return m.c((m.a(x)[:, :, None] * m.b(x)[:, None, :]).flatten(1))


@zoo("", a=linear(10, 5), c=linear(25, 4))
def outer_product_with_itself(m, x):
    hidden = m.a(x)
    return m.c((hidden[:, :, None] * hidden[:, None, :]).flatten(1))


@zoo("width 12", a=linear(10, 12), b=linear(10, 12), c=linear(12, 4))
def stacked_and_summed(m, x):
    return m.c(torch.stack([m.a(x), m.b(x)], 1).relu().sum(1))


@zoo("width 12", a=linear(10, 12), b=linear(12, 4))
def expanded_and_folded(m, x):
    return m.b(m.a(x)[:, None].expand(-1, 3, -1).flatten(0, 1))


@zoo("width 6", a=linear(10, 6), b=linear(12, 4))
def tiled_along_its_width(m, x):
    return m.b(m.a(x).repeat(1, 2).relu())


@zoo("", a=linear(10, 6), b=linear(8, 4))
def padded_along_its_width(m, x):
    return m.b(functional.pad(m.a(x), (0, 2)))


@zoo("", a=linear(10, 6), b=linear(6, 4))
def read_backwards(m, x):
    return m.b(m.a(x) + m.a(x).flip(-1))


@zoo("", a=linear(10, 6), b=linear(6, 4))
def rolled(m, x):
    return m.b(m.a(x) + m.a(x).roll(1, -1))


@zoo("width 3", a=linear(10, 6), b=linear(6, 4))  # the three behind the one that is picked
def picked_by_number(m, x):
    return m.b(m.a(x)) + m.a(x)[:, 2:3]


@zoo("", a=linear(10, 6), b=linear(6, 4))
def softmax_along_it(m, x):
    return m.b(m.a(x).softmax(-1))


@zoo("", a=linear(10, 6), b=linear(6, 4))
def sorted_units(m, x):
    return m.b(m.a(x).sort(-1)[0])


@zoo("", a=linear(10, 6), b=linear(6, 4))
def running_sum(m, x):
    return m.b(m.a(x).cumsum(-1))


@zoo("", a=linear(10, 6), b=linear(3, 4))
def the_largest_only(m, x):
    return m.b(m.a(x).topk(3, -1)[0])


@zoo("width 12", a=linear(10, 12), n=lambda: nn.LayerNorm(12), b=linear(12, 4))
def layer_norm(m, x):
    return m.b(m.n(m.a(x)))


@zoo("width 12", a=linear(10, 12), s=weight(12), b=linear(12, 4))
def rms_norm_by_hand(m, x):
    hidden = m.a(x)
    return m.b(hidden * hidden.pow(2).mean(-1, keepdim=True).rsqrt() * m.s)


@zoo("width 12", a=linear(10, 12), b=linear(12, 4))
def unit_length(m, x):
    return m.b(functional.normalize(m.a(x), dim=-1))


@zoo("width 12", a=linear(10, 12), n=lambda: nn.BatchNorm1d(12), b=linear(12, 4))
def batch_norm(m, x):
    return m.b(m.n(m.a(x)).relu())


@zoo("", a=linear(10, 6), b=linear(6, 4))
def meets_positions(m, x):
    return m.b(m.a(x) * torch.arange(6))


@zoo("", a=linear(10, 6), b=linear(6, 4))
def fourier_transform(m, x):
    return m.b(torch.fft.fft(m.a(x)).real)


@zoo("ffn 12 14", a=linear(10, 12), b=linear(12, 10), c=linear(10, 14), d=linear(14, 10))
def residual_blocks(m, x):
    hidden = x + m.b(m.a(x).relu())
    return hidden + m.d(m.c(hidden).relu())


@zoo(
    "residual 16 ffn 12",
    e=linear(10, 16),
    n=lambda: nn.LayerNorm(16),
    a=linear(16, 12),
    b=linear(12, 16),
    d=linear(16, 4),
)
def stream_of_its_own(m, x):
    hidden = m.e(x)
    return m.d(hidden + m.b(m.a(m.n(hidden)).relu()))


@zoo("width 16", e=linear(10, 16), g=linear(16, 16), a=linear(16, 16), d=linear(16, 4))
def gated_stream(m, x):
    hidden = m.e(x)
    gate = m.g(hidden).sigmoid()
    return m.d(hidden * (1 - gate) + gate * m.a(hidden).relu())
