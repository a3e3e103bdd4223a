"""Pictures as arrays: read from bytes, brought to a model's size and scale, and made into new ones by plain indexing.

N: pictures, H: height, W: width, C: channels.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from archsmith.errors import BadInput

IN_MEMORY = 2**31  # bytes of decoded pictures; more lie in a temporary file
MIXED = 0.5  # share of made pictures that are two in one (Zhang et al. 2018, "mixup")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, where a model says nothing


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes a model's input: its size, and what is subtracted and divided by, a channel each.

    `shortest`: the side that the shorter edge is brought to before the middle is cut out; None: straight to the size.
    """

    height: int
    width: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    shortest: int | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any], example: Tensor) -> Self:
        """From a preprocessor_config.json (empty where there is none) and an input of the model, (batch, C, H, W)."""
        channels, height, width = (int(n) for n in example.shape[-3:])
        size = said.get("size", {})
        size = {"shortest_edge": size} if isinstance(size, int) else size
        shortest = size.get("shortest_edge") if said.get("do_resize", True) else None
        mean = said.get("image_mean", MEAN) if said.get("do_normalize", True) else [0.0] * channels
        std = said.get("image_std", STD) if said.get("do_normalize", True) else [1.0] * channels
        if len(mean) != channels or len(std) != channels:
            mean, std = [float(np.mean(mean))] * channels, [float(np.mean(std))] * channels
        return cls(height, width, tuple(map(float, mean)), tuple(map(float, std)), shortest)

    def decode(self, data: bytes | np.ndarray, place: str) -> np.ndarray:
        """(H, W, C) uint8 of an encoded picture, or of an array (h, w) or (h, w, c)."""
        try:
            from PIL import Image
        except ImportError:
            remedy = "pip install 'archsmith[images]'"
            raise BadInput("pictures are read by the package pillow", "none", place, remedy) from None
        try:
            image = Image.open(io.BytesIO(data)) if isinstance(data, bytes) else Image.fromarray(_bytes_of(data))
            image = image.convert("L" if len(self.mean) == 1 else "RGB")
        except (OSError, ValueError, TypeError, Image.DecompressionBombError) as error:
            raise BadInput("a picture must be readable", str(error)[:120], place, "take it out or repair it") from None
        if image.size != (self.width, self.height):
            image = self._resize(image)
        return np.asarray(image, dtype=np.uint8).reshape(self.height, self.width, len(self.mean))

    def _resize(self, image: Any) -> Any:
        from PIL import Image

        if self.shortest is None:
            return image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        scale = max(self.shortest / min(image.size), self.width / image.width, self.height / image.height)
        wide, high = (
            max(least, round(n * scale)) for n, least in zip(image.size, (self.width, self.height), strict=True)
        )
        left, top = (wide - self.width) // 2, (high - self.height) // 2
        image = image.resize((wide, high), Image.Resampling.BILINEAR)
        return image.crop((left, top, left + self.width, top + self.height))

    def scaled(self, pixels: np.ndarray) -> Tensor:
        """(N, C, H, W) float32 from (N, H, W, C) of 0 to 255."""
        values = (pixels.astype(np.float32) / 255 - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def _bytes_of(values: np.ndarray) -> np.ndarray:
    """Pixels of 0 to 255; fractions of 1 are taken for what they are."""
    values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if values.dtype == np.uint8:
        return values
    largest = float(values.max(initial=0))
    found: np.ndarray = np.clip(values * (255 if largest <= 1 else 1), 0, 255).astype(np.uint8)
    return found


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one part: `pixels` (N, H, W, C) uint8, and recipes for more that are made of them, one a row.

    A recipe: `first` and `second` picture, (M, 2) int64; `shift` of the first, down and right, (M, 2) int64; whether
    it is `turned` left to right, (M,) bool; the `share` of the first in the mixture, (M,) float32.
    """

    pixels: np.ndarray
    sources: np.ndarray
    shift: np.ndarray
    turned: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray) -> Self:
        """Without recipes."""
        none = np.zeros((0, 2), dtype=np.int64)
        return cls(pixels, none, none, np.zeros(0, dtype=bool), np.zeros(0, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.pixels) + len(self.sources)

    def take(self, rows: Sequence[int]) -> np.ndarray:
        """(rows, H, W, C): uint8 where all are real, else float32 of 0 to 255."""
        wanted = np.asarray(rows, dtype=np.int64)
        real = wanted < len(self.pixels)
        if real.all():
            return self.pixels[wanted]
        found = np.empty((len(wanted), *self.pixels.shape[1:]), dtype=np.float32)
        found[real] = self.pixels[wanted[real]]
        found[~real] = self._made(wanted[~real] - len(self.pixels))
        return found

    def _made(self, recipes: np.ndarray) -> np.ndarray:
        height, width = self.pixels.shape[1:3]
        down = reflected(np.arange(height) + self.shift[recipes, :1], height)
        right = np.where(self.turned[recipes, None], width - 1 - np.arange(width), np.arange(width))
        right = reflected(right + self.shift[recipes, 1:], width)
        first, second = self.sources[recipes].T
        moved = self.pixels[first[:, None, None], down[:, :, None], right[:, None, :]].astype(np.float32)
        share = self.share[recipes, None, None, None]
        found: np.ndarray = moved * share + self.pixels[second].astype(np.float32) * (1 - share)
        return found

    def extended(self, count: int, rng: np.random.Generator) -> Self:
        """With `count` more: moved by up to an eighth of the side, half of them turned, half mixed with another."""
        most = np.array(self.pixels.shape[1:3]) // 8
        mixed = rng.random(count) < MIXED
        share = np.where(mixed, np.maximum(draw := rng.random(count), 1 - draw), 1.0).astype(np.float32)
        new: tuple[np.ndarray, ...] = (
            rng.integers(0, len(self.pixels), (count, 2)),
            rng.integers(-most, most + 1, (count, 2)),
            rng.random(count) < 0.5,
            share,
        )
        old = (self.sources, self.shift, self.turned, self.share)
        both = [np.concatenate([one, other]) for one, other in zip(old, new, strict=True)]
        return type(self)(self.pixels, *both)


def reflected(at: np.ndarray, size: int) -> np.ndarray:
    """Positions beyond an edge, mirrored back."""
    at = np.abs(at)
    return np.where(at >= size, 2 * (size - 1) - at, at)


def decoded(data: Sequence[bytes | np.ndarray], places: Sequence[str], prepared: Preparation) -> np.ndarray:
    """All pictures of a part, (N, H, W, C) uint8; in a temporary file, which goes with the array, if they are many."""
    shape = (len(data), prepared.height, prepared.width, len(prepared.mean))
    pixels: np.ndarray
    if int(np.prod(shape)) > IN_MEMORY:
        pixels = np.memmap(tempfile.TemporaryFile(), dtype=np.uint8, shape=shape)  # noqa: SIM115  (the array holds it)
    else:
        pixels = np.empty(shape, dtype=np.uint8)
    for row, (one, place) in enumerate(zip(data, places, strict=True)):
        pixels[row] = prepared.decode(one, place)
    return pixels
