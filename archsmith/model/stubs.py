"""What stands where a piece was cut out. Self-contained: this text is shipped inside saved models."""

import inspect
from typing import Any

import torch
from torch import nn


class Skip(nn.Module):
    """Stands for a skipped module: gives its main input back, or where `constant` its `bias` (none: zeros) instead.

    The main input is the first floating tensor among the arguments, (..., width). `items`: 0 gives a bare tensor, n a
    tuple of it and n - 1 times None.
    """

    def __init__(self, items: int = 0, constant: bool = False, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.items, self.constant = items, constant
        self.register_parameter("bias", bias)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        values = (*args, *kwargs.values())
        x = next(v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point())
        if self.constant:
            bias = self._parameters.get("bias")
            x = torch.zeros_like(x) if bias is None else bias.expand(*x.shape[:-1], -1)
        return (x,) + (None,) * (self.items - 1) if self.items else x


class Bias(nn.Module):
    """Stands for the last product of a skipped branch, (..., width) -> (..., width): its bias, else zeros."""

    def __init__(self, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.register_parameter("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self._parameters.get("bias")
        return torch.zeros_like(x) if bias is None else bias.expand(*x.shape[:-1], -1)


class Taking(nn.Module):
    """Comes before the class of a module that is given a tensor with something for each unit, made outside (slopes of
    heads): it takes what belongs to the kept units.

    `taken`: (argument, dimension, units, positions of each, kept units) of such tensors.
    """

    taken: tuple[tuple[str, int, int, int, tuple[int, ...]], ...] = ()
    names: tuple[str, ...] = ()  # of the arguments that may come without theirs

    def __reduce__(self) -> Any:
        return _bare, (type(self).__bases__[1],), self.__dict__

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self.names, args, strict=False))
        values = {**given, **kwargs}
        for argument, dim, units, inner, kept in self.taken:
            if isinstance(values.get(argument), torch.Tensor):
                apart = values[argument].unflatten(dim, (-1, units, inner))
                chosen = apart.index_select(dim + 1, torch.tensor(kept, device=apart.device))
                values[argument] = chosen.flatten(dim, dim + 2)
        return super().forward(*(values[name] for name in given), *args[len(given) :], **{n: values[n] for n in kwargs})


_TAKING: dict[type[nn.Module], type[nn.Module]] = {}


def taking(base: type[nn.Module]) -> type[nn.Module]:
    """`Taking` before this class; the same for the same class."""
    if not issubclass(base, Taking) and base not in _TAKING:
        kinds = inspect.Parameter
        asked = inspect.signature(base.forward).parameters.values()
        names = [p.name for p in asked if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
        _TAKING[base] = type(Taking.__name__, (Taking, base), {"names": tuple(names[1:])})
    return _TAKING.get(base, base)


def _bare(base: type[nn.Module]) -> nn.Module:
    """A module of `taking(base)` without anything in it."""
    made = taking(base)
    return made.__new__(made)


class Heads(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose heads together may be narrower or wider than its input, from the same parameters.

    Queries, keys and values have `num_heads` x `head_dim` columns; the input may have any width. Made of a module of
    torch by setting its class.
    """

    _qkv_same_embed_dim = property(lambda self: False)  # no fused kernel knows these widths

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        single = query.dim() == 2
        if single:
            query, key, value = (x.unsqueeze(0 if self.batch_first else 1) for x in (query, key, value))
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        columns = self.num_heads * self.head_dim
        weights: tuple[torch.Tensor, ...] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = torch.split(self.in_proj_weight, columns)
        biases = (None,) * 3 if self.in_proj_bias is None else torch.split(self.in_proj_bias, columns)
        q, k, v = (
            torch.unflatten(nn.functional.linear(x, w, b), -1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5
        for mask in (attn_mask, None if key_padding_mask is None else key_padding_mask[:, None, None]):
            if mask is None:
                continue
            mask = torch.unflatten(mask, 0, (-1, self.num_heads)) if mask.dim() == 3 else mask
            scores = scores.masked_fill(mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        shares = scores.softmax(-1)
        mixed = nn.functional.dropout(shares, self.dropout, self.training) @ v
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        out = out if self.batch_first else out.transpose(0, 1)
        shown = (shares.mean(1) if average_attn_weights else shares) if need_weights else None
        if single:
            out, shown = out.squeeze(0 if self.batch_first else 1), None if shown is None else shown.squeeze(0)
        return out, shown
