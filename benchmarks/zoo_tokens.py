"""The zoo's graphs of tokens: attention in its many forms, recurrences, mixtures of experts, state spaces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from zoo import Make, linear, weight, zoo

TOKENS = (2, 5, 12)


def heads(states: Tensor, width: int) -> Tensor:
    """(batch, length, heads x width) -> (batch, heads, length, width)."""
    return states.unflatten(-1, (-1, width)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention, heads joined again."""
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def qkv(inside: int, outside: int) -> dict[str, Make]:
    """Query, key, value and output layers."""
    return {"q": linear(inside, outside), "k": linear(inside, outside), "v": linear(inside, outside),
            "o": linear(outside, inside)}  # fmt: skip


@zoo("heads 3", TOKENS, **qkv(12, 24))
def attention(m, x):
    return x + m.o(attend(heads(m.q(x), 8), heads(m.k(x), 8), heads(m.v(x), 8)))


@zoo("heads 3", TOKENS, **qkv(12, 24))
def attention_by_hand(m, x):
    q, k, v = (heads(layer(x), 8) for layer in (m.q, m.k, m.v))
    weights = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1)
    return x + m.o((weights @ v).transpose(1, 2).flatten(2))


@zoo("heads 3", TOKENS, qkv=linear(12, 72), o=linear(24, 12))
def fused_query_key_value(m, x):
    q, k, v = m.qkv(x).chunk(3, -1)
    return x + m.o(attend(heads(q, 8), heads(k, 8), heads(v, 8)))


@zoo("heads 3", TOKENS, qkv=linear(12, 72), o=linear(24, 12))
def fused_within_each_head(m, x):
    q, k, v = m.qkv(x).unflatten(-1, (-1, 24)).transpose(1, 2).chunk(3, -1)
    return x + m.o(attend(q, k, v))


@zoo("heads 3", TOKENS, qkv=linear(12, 40), o=linear(24, 12))
def one_key_picked_by_number(m, x):
    all_heads = m.qkv(x).unflatten(-1, (-1, 8)).transpose(1, 2)
    return x + m.o(attend(all_heads[:, :-2], all_heads[:, [-2]], all_heads[:, [-1]]))


@zoo("ffn 16", (6, 12), up=weight(2, 12, 16), down=weight(2, 16, 12), ends=lambda: torch.tensor([2, 6]).int())
def experts_in_one_product(m, x):
    hidden = torch._grouped_mm(x, m.up, offs=m.ends).relu()
    return x + torch._grouped_mm(hidden, m.down, offs=m.ends)


@zoo("kv_groups 2 heads 3", TOKENS, q=linear(12, 48), k=linear(12, 16), v=linear(12, 16), o=linear(48, 12), n=lambda: 3)
def grouped_queries(m, x):
    k, v = (heads(layer(x), 8)[:, :, None].expand(-1, -1, m.n, -1, -1).flatten(1, 2) for layer in (m.k, m.v))
    return x + m.o(attend(heads(m.q(x), 8), k, v))


@zoo("heads 3", TOKENS, q=linear(12, 24), k=linear(12, 8), v=linear(12, 8), o=linear(24, 12), n=lambda: 3)
def one_key_for_all(m, x):
    k, v = (heads(layer(x), 8).expand(-1, m.n, -1, -1) for layer in (m.k, m.v))
    return x + m.o(attend(heads(m.q(x), 8), k, v))


@zoo("heads 3", TOKENS, q=linear(12, 24), k=linear(12, 24), v=linear(12, 12), o=linear(12, 12))
def values_narrower_than_keys(m, x):
    return x + m.o(attend(heads(m.q(x), 8), heads(m.k(x), 8), heads(m.v(x), 4)))


@zoo("heads 3", TOKENS, (2, 4, 7), q=linear(12, 24), k=linear(7, 24), v=linear(7, 24), o=linear(24, 12))
def attention_to_another(m, x, y):
    return x + m.o(attend(heads(m.q(x), 8), heads(m.k(y), 8), heads(m.v(y), 8)))


@zoo("heads 3", TOKENS, **qkv(12, 24), p=weight(3, 5, 5))
def bias_for_each_head(m, x):
    mixed = functional.scaled_dot_product_attention(
        heads(m.q(x), 8), heads(m.k(x), 8), heads(m.v(x), 8), attn_mask=m.p[None].expand(2, -1, -1, -1)
    )
    return x + m.o(mixed.transpose(1, 2).flatten(2))


@zoo("heads 3", TOKENS, **qkv(12, 24))
def rotated_by_position(m, x):
    angle = torch.arange(5)[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001]).repeat(2)

    def turn(states: Tensor) -> Tensor:
        first, second = states.chunk(2, -1)
        return states * angle.cos() + torch.cat([-second, first], -1) * angle.sin()

    return x + m.o(attend(turn(heads(m.q(x), 8)), turn(heads(m.k(x), 8)), heads(m.v(x), 8)))


@zoo("heads 3", TOKENS, q=linear(12, 24), o=linear(24, 12))
def linear_attention(m, x):
    q = heads(m.q(x), 8)
    return x + m.o((q.relu() @ (q.relu().transpose(-1, -2) @ q)).transpose(1, 2).flatten(2))


@zoo("heads 3", TOKENS, a=lambda: nn.MultiheadAttention(12, 3, batch_first=True))
def attention_of_torch(m, x):
    return x + m.a(x, x, x, need_weights=False)[0]


@zoo("heads 3 ffn 20", TOKENS, a=lambda: nn.TransformerEncoderLayer(12, 3, 20, batch_first=True))
def encoder_layer_of_torch(m, x):
    return m.a(x)


@zoo("heads 3 3 ffn 20", TOKENS, (2, 4, 12), a=lambda: nn.TransformerDecoderLayer(12, 3, 20, batch_first=True))
def decoder_layer_of_torch(m, x, y):
    return m.a(x, y)


@zoo("width 9", TOKENS, r=lambda: nn.LSTM(12, 9, batch_first=True), d=linear(9, 4))
def lstm(m, x):
    return m.d(m.r(x)[0])


@zoo(
    "width 9 7",
    TOKENS,
    r=lambda: nn.LSTM(12, 9, batch_first=True),
    s=lambda: nn.LSTM(9, 7, batch_first=True),
    d=linear(7, 4),
)
def two_lstms(m, x):
    return m.d(m.s(m.r(x)[0])[0][:, -1])


@zoo("width 9", TOKENS, r=lambda: nn.LSTM(12, 9, batch_first=True, bidirectional=True), d=linear(18, 4))
def lstm_both_ways(m, x):
    return m.d(m.r(x)[0])


@zoo("residual 9", TOKENS, r=lambda: nn.GRU(12, 9, batch_first=True), d=linear(9, 4))
def gru(m, x):
    return m.d(m.r(x)[1][-1])


@zoo("width 9", TOKENS, r=lambda: nn.LSTMCell(12, 9), d=linear(9, 4))
def lstm_cell(m, x):
    state: Any = None
    for t in range(x.shape[1]):
        state = m.r(x[:, t], state)
    return m.d(state[0])


@zoo("width 9", TOKENS, a=weight(9), i=linear(12, 9), g=linear(12, 9), d=linear(9, 4))
def state_space(m, x):
    given = m.i(x) * m.g(x).sigmoid()
    state = torch.zeros_like(given[:, 0])
    out = []
    for t in range(x.shape[1]):
        state = state * m.a.sigmoid() + given[:, t]
        out.append(state)
    return m.d(torch.stack(out, 1))


@zoo("ffn 6", TOKENS, r=linear(12, 3), up=weight(3, 12, 6), down=weight(3, 6, 12))
def experts_in_one_tensor(m, x):
    share = m.r(x).softmax(-1)
    each = torch.einsum("blef,efd->bled", torch.einsum("bld,edf->blef", x, m.up).relu(), m.down)
    return x + (each * share[..., None]).sum(2)


@zoo("ffn 6 width 6 6", TOKENS, r=linear(12, 3), **{f"u{i}": linear(12, 6) for i in range(3)},
     **{f"d{i}": linear(6, 12) for i in range(3)})  # fmt: skip
def experts_in_turn(m, x):
    share = m.r(x).softmax(-1)
    total = x
    for i in range(3):
        total = total + getattr(m, f"d{i}")(getattr(m, f"u{i}")(x).relu()) * share[..., i : i + 1]
    return total


@zoo("width 20", (2, 5), e=lambda: nn.Embedding(50, 20), d=linear(20, 4))
def mean_of_embeddings(m, x):
    return m.d(m.e((x * 10).long().abs() % 50).mean(1))


@zoo("width 20", (2, 5), e=lambda: nn.EmbeddingBag(50, 20), d=linear(20, 4))
def bag_of_embeddings(m, x):
    return m.d(m.e((x * 10).long().abs() % 50))


@zoo("residual 20 ffn 24", (2, 5), e=lambda: nn.Embedding(50, 20), a=linear(20, 24), b=linear(24, 20))
def tied_embeddings(m, x):
    hidden = m.e((x * 10).long().abs() % 50)
    hidden = hidden + m.b(m.a(hidden).relu())
    return functional.linear(hidden, m.e.weight)


@zoo("ffn 6", (2, 4, 12), a=linear(12, 6), n=lambda: nn.LayerNorm(12), t=linear(4, 6), u=linear(6, 4))
def mixes_tokens(m, x):
    return m.a(m.n(x + m.u(m.t(x.transpose(1, 2)).relu()).transpose(1, 2)))
