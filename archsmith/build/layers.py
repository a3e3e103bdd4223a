"""Modules that torch has not, or not in this form. B: rows, L: length, C: channels, H: heads, D: width of a head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F

NARROW, PARTS = 2**16, 8191  # so that no product leaves the 24 bits in which OpenVINO divides exactly
MOST_ROWS = 2**20  # of a table that runs of tokens are hashed into


class Turned(nn.Module):
    """A module for (B, C, L) on a sequence (B, L, C)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) -> (B, L', C')."""
        out: Tensor = self.inner(x_BLC.transpose(1, 2)).transpose(1, 2)
        return out


class Sequenced(nn.Module):
    """A convolution along a sequence; `causal` ones see nothing that comes later."""

    masked = True

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, dilation: int, groups: int, bias: bool,
                 causal: bool) -> None:  # fmt: skip
        super().__init__()
        reach = dilation * (kernel - 1)
        self.pad = (reach, 0) if causal else (reach // 2, reach - reach // 2)
        self.conv = nn.Conv1d(inside, outside, kernel, stride, 0, dilation, groups, bias)

    def forward(self, x_BLC: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """(B, L, C) -> (B, L / stride, C'); what is padding counts as nothing."""
        if mask_BL is not None:
            x_BLC = x_BLC * mask_BL[..., None].to(x_BLC.dtype)
        out: Tensor = self.conv(F.pad(x_BLC.transpose(1, 2), self.pad)).transpose(1, 2)
        return out


class Positions(nn.Module):
    """A learnt vector for each place, added."""

    def __init__(self, length: int, channels: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(length, channels))

    def forward(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C), L at most the length that it was made for."""
        return x_BLC + self.table[: x_BLC.shape[1]]


def runs(ids_BL: Tensor, there_BL: Tensor, longest: int, rows: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each length up to the longest: the row of a table that the run beginning at each place is hashed into, and
    whether it ends within the text; (B, L) each. Above `NARROW` rows a second hash says which part of the table."""
    narrow = min(rows, NARROW)
    place_BL, part_BL, whole_BL = ids_BL % narrow, ids_BL % PARTS, there_BL
    for length in range(1, longest + 1):
        if length > 1:
            last_BL = F.pad(ids_BL, (0, length - 1))[:, length - 1 :]
            whole_BL = whole_BL & F.pad(there_BL, (0, length - 1))[:, length - 1 :]
            place_BL = (place_BL * 251 + last_BL) % narrow
            part_BL = (part_BL * 1021 + last_BL) % PARTS
        yield length, place_BL if rows == narrow else place_BL + part_BL % (rows // narrow) * narrow, whole_BL


def texts_with(batches: Iterable[tuple[Tensor, Tensor]], longest: int, rows: int) -> tuple[int, Tensor]:
    """How many texts there are, and in how many of them is a run that is hashed into each row: (rows,).

    `batches`: of tokens and of where they are no padding, (B, L) each. P: places.
    """
    texts, seen = 0, torch.zeros(rows)
    for ids_BL, there_BL in batches:
        found = list(runs(ids_BL, there_BL, longest, rows))
        place_BP = torch.cat([torch.where(whole_BL, places_BL, rows) for _, places_BL, whole_BL in found], 1)
        place_BP = place_BP.sort(1).values
        first_BP = F.pad(place_BP[:, 1:] != place_BP[:, :-1], (1, 0), value=True) & (place_BP < rows)
        seen += torch.bincount(place_BP[first_BP], minlength=rows)
        texts += len(ids_BL)
    return texts, seen


class NGrams(nn.Module):
    """A vector for each run of tokens that begins at a place, out of a table that runs are hashed into (Joulin et al.
    2017, "Bag of tricks"), zeros where the run reaches past the end; the vectors of several lengths side by side."""

    masked = True

    def __init__(self, rows: int, out: int, lengths: tuple[int, ...]) -> None:
        super().__init__()
        self.rows, self.lengths = rows, lengths
        tables = [nn.Embedding(rows, out) for _ in lengths]
        for table in tables:
            nn.init.normal_(table.weight, std=0.1)  # of a run that is seen once little is to be believed
        self.tables = nn.ModuleList(tables)

    def forward(self, ids_BL: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """(B, L) tokens -> (B, L, C)."""
        there_BL = ids_BL != 0 if mask_BL is None else mask_BL != 0
        found: dict[int, Tensor] = {}
        for length, place_BL, whole_BL in runs(ids_BL, there_BL, max(self.lengths), self.rows):
            if length in self.lengths:
                vector_BLC: Tensor = self.tables[self.lengths.index(length)](place_BL)
                found[length] = vector_BLC * whole_BL[..., None].to(vector_BLC.dtype)
        return torch.cat([found[length] for length in self.lengths], 2)


class Bag(nn.Module):
    """A text as the sum of a vector for each run of tokens in it, weighted as in TF-IDF (Spärck Jones 1972): a run that
    few texts have counts for more, log((1 + n) / (1 + n_run)) + 1, and the weights of its
    places have the norm 1.

    In how many texts a run is, is told before training (`know`); a run that is in none counts for nothing. Where
    nothing was told all runs count the same. P: places, those of each length one after another.
    """

    masked = True
    LOUD = 4.0  # times what comes out: a hundred runs of one text together move it as far in a step as a layer does
    texts: Tensor  # ()
    seen: Tensor  # (rows,)

    def __init__(self, rows: int, out: int, longest: int) -> None:
        super().__init__()
        self.rows, self.longest = rows, longest
        self.table = nn.Embedding(rows, out)
        nn.init.normal_(self.table.weight, std=0.02)
        self.bias = nn.Parameter(torch.zeros(out))
        self.register_buffer("texts", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(rows))

    def forward(self, ids_BL: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """(B, L) tokens -> (B, C)."""
        there_BL = ids_BL != 0 if mask_BL is None else mask_BL != 0
        found = list(runs(ids_BL, there_BL, self.longest, self.rows))
        place_BP = torch.cat([places_BL for _, places_BL, _ in found], 1)
        there_BP = torch.cat([whole_BL for _, _, whole_BL in found], 1)
        seen_BP = self.seen[place_BP]
        known_BP = there_BP & ((seen_BP > 0) | (self.texts == 0))
        weight_BP = (((1 + self.texts) / (1 + seen_BP)).log() + 1) * known_BP.to(seen_BP.dtype)
        weight_BP = weight_BP / weight_BP.square().sum(1, keepdim=True).sqrt().clamp_min(1e-6)
        vector_BPC: Tensor = self.table(place_BP)
        return self.LOUD * (vector_BPC * weight_BP[..., None]).sum(1) + self.bias

    def know(self, texts: int, seen: Tensor) -> None:
        """Take how many texts there are, and how many have a run of each row (rows,)."""
        self.texts.fill_(texts)
        self.seen.copy_(seen)


class Patches(nn.Module):
    """Squares of a picture as a sequence."""

    def __init__(self, inside: int, outside: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, size, size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, L, C')."""
        out: Tensor = self.conv(x).flatten(2).transpose(1, 2)
        return out


class Recurrent(nn.Module):
    """LSTMs or GRUs on one another. The backward direction begins at the last place that is no padding."""

    masked = True

    def __init__(self, kind: str, inside: int, outside: int, both: bool, depth: int) -> None:
        super().__init__()
        make = nn.LSTM if kind == "lstm" else nn.GRU
        widths = [inside] + [outside * (1 + both)] * (depth - 1)
        self.ahead = nn.ModuleList(make(width, outside, batch_first=True) for width in widths)
        self.back = nn.ModuleList(make(width, outside, batch_first=True) for width in widths if both)

    def forward(self, x_BLC: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """(B, L, C) -> (B, L, C'), C' twice the width in both directions."""
        order_BL = None if mask_BL is None else _turned(mask_BL)
        for i, ahead in enumerate(self.ahead):
            out_BLC = _stepped(ahead, x_BLC)
            if len(self.back):
                out_BLC = torch.cat([out_BLC, _backward(self.back[i], x_BLC, order_BL)], 2)
            x_BLC = out_BLC
        return x_BLC


def _stepped(part: nn.Module, x_BLC: Tensor) -> Tensor:
    """What a recurrent layer gives at each place. `torch.export` would write its steps out one by one, as many as its
    example has; of a scan there is one for any length."""
    if not (torch.compiler.is_exporting() and isinstance(part, nn.LSTM | nn.GRU)):
        out: Tensor = part(x_BLC)[0]
        return out
    w, r, b, c = (getattr(part, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))

    def lstm(states: tuple[Tensor, Tensor], given: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        i, f, g, o = (given + nn.functional.linear(states[0], r, c)).chunk(4, 1)
        cell = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
        return (state, cell), state.clone()

    def gru(state: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        (r1, z1, n1), (r2, z2, n2) = given.chunk(3, 1), nn.functional.linear(state, r, c).chunk(3, 1)
        update = (z1 + z2).sigmoid()
        state = (1 - update) * (n1 + (r1 + r2).sigmoid() * n2).tanh() + update * state
        return state, state.clone()

    zeros = x_BLC.new_zeros(x_BLC.shape[0], part.hidden_size)
    gates_LBG = nn.functional.linear(x_BLC, w, b).transpose(0, 1)
    if isinstance(part, nn.LSTM):
        return scan(lstm, (zeros, zeros.clone()), gates_LBG)[1].transpose(0, 1)  # type: ignore[no-any-return]
    return scan(gru, zeros, gates_LBG)[1].transpose(0, 1)  # type: ignore[no-any-return]


def _turned(mask_BL: Tensor) -> Tensor:
    """(B, L): each row's places from its last that is no padding to its first; padding stays where it is."""
    places = torch.arange(mask_BL.shape[1], device=mask_BL.device)[None]
    last = mask_BL.long().sum(1, keepdim=True) - 1
    return torch.where(places <= last, last - places, places)


def _backward(part: nn.Module, x_BLC: Tensor, order_BL: Tensor | None) -> Tensor:
    """What a recurrence gives that runs from the end to the beginning, each place's at its place."""
    if order_BL is None:
        return _stepped(part, x_BLC.flip(1)).flip(1)
    taken = _stepped(part, x_BLC.gather(1, order_BL[..., None].expand(-1, -1, x_BLC.shape[2])))
    return taken.gather(1, order_BL[..., None].expand(-1, -1, taken.shape[2]))


class Queries(nn.Module):
    """Learnt vectors, the same for every row."""

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(rows, channels) / channels**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, rows, C)."""
        return self.vectors.to(x.dtype).expand(x.shape[0], -1, -1)


class Attention(nn.Module):
    """Multi-head self-attention; padding is not attended to."""

    masked = True

    def __init__(self, channels: int, heads: int, head: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.head, self.causal = heads, head, causal
        self.qkv = nn.Linear(channels, 3 * heads * head)
        self.out = nn.Linear(heads * head, channels)

    def forward(self, x_BLC: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        rows, length, _ = x_BLC.shape
        q, k, v = self.qkv(x_BLC).view(rows, length, 3, self.heads, self.head).permute(2, 0, 3, 1, 4)
        seen = None if mask_BL is None else mask_BL[:, None, None].bool()
        if seen is not None and self.causal:
            seen = seen & torch.ones(length, length, dtype=torch.bool, device=x_BLC.device).tril()
        mixed_BHLD = F.scaled_dot_product_attention(q, k, v, seen, is_causal=self.causal and seen is None)
        out: Tensor = self.out(mixed_BHLD.transpose(1, 2).reshape(rows, length, -1))
        return out


class Pooled(nn.Module):
    """The mean, the largest or the last of a sequence's places that are no padding."""

    masked = True

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x_BLC: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """(B, L, C) -> (B, C)."""
        if mask_BL is None:
            return x_BLC[:, -1] if self.how == "last" else x_BLC.mean(1) if self.how == "mean" else x_BLC.amax(1)
        there = mask_BL[..., None].to(x_BLC.dtype)
        if self.how == "mean":
            return (x_BLC * there).sum(1) / there.sum(1).clamp_min(1)
        if self.how == "max":
            most = x_BLC.masked_fill(there == 0, torch.finfo(x_BLC.dtype).min).amax(1)
            return torch.where(there.amax(1) > 0, most, 0.0)  # of a row without a token nothing
        last_BL = there[..., 0] * torch.arange(1, x_BLC.shape[1] + 1, device=x_BLC.device)
        return x_BLC.gather(1, last_BL.argmax(1)[:, None, None].expand(-1, 1, x_BLC.shape[2]))[:, 0]


class Attentive(nn.Module):
    """A weighted mean of a sequence's places."""

    masked = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1)

    def forward(self, x_BLC: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """(B, L, C) -> (B, C)."""
        score_BL1: Tensor = self.score(x_BLC)
        if mask_BL is not None:
            score_BL1 = score_BL1.masked_fill(mask_BL[..., None] == 0, torch.finfo(score_BL1.dtype).min)
        return (score_BL1.softmax(1) * x_BLC).sum(1)


class SqueezeExcite(nn.Module):
    """Each channel times a number from 0 to 1 that the means of all channels give."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        scale: Tensor = self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * scale


class FactorisedReduce(nn.Module):
    """Half the height and width without leaving places out: two strided maps, one of the places between."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inside, outside // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(inside, outside - outside // 2, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / 2, W / 2)."""
        return torch.cat([self.even(x), self.odd(F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:])], 1)


class First(nn.Module):
    """A picture's first channels."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out, H, W)."""
        return x[:, : self.out]


class Zero(nn.Module):
    """Nothing, in the input's shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros like the input."""
        return x * 0.0
