"""The spaces that the field knows, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from archsmith.build.spaces.cells import AMOEBA_OPS, ENAS_OPS, NASNET_OPS, darts, two_before
from archsmith.build.spaces.images import chain, enas_macro, mobile, residual, vision_transformer
from archsmith.build.spaces.nasbench101 import NASBench101
from archsmith.build.spaces.nasbench201 import nasbench201
from archsmith.build.spaces.sequences import encoder_decoder, mlp, series, text, transformer
from archsmith.errors import BadInput
from archsmith.space import JSON, Space, Value


class Blueprint(Protocol):
    """A space, and the network of each of its points; `needs` names what the task gives ("classes", "vocabulary")."""

    space: Space
    needs: set[str]

    def static(self, architecture: Mapping[str, Value], given: Mapping[str, Value]) -> JSON:
        """The network without choices."""
        ...


SPACES: Mapping[str, Callable[..., Blueprint]] = {
    "amoebanet": partial(two_before, AMOEBA_OPS, 5, False, 16, 8),
    "chain": chain,
    "darts": darts,
    "decoder": partial(transformer, True),
    "enas": partial(two_before, ENAS_OPS, 5, False, 16, 8),
    "enas-macro": enas_macro,
    "encoder": transformer,
    "encoder-decoder": encoder_decoder,
    "mlp": mlp,
    "mobile": mobile,
    "nasnet": partial(two_before, NASNET_OPS, 5, False, 16, 8),
    "nb101": NASBench101,
    "nb201": nasbench201,
    "residual": residual,
    "series": series,
    "text": text,
    "vit": vision_transformer,
}


def known_space(name: str) -> Blueprint:
    """A space by its name. Raises `BadInput` for one that is not known."""
    if name not in SPACES:
        raise BadInput("a space is one that is known, or a file", repr(name), "", f"there are: {', '.join(SPACES)}")
    return SPACES[name]()
