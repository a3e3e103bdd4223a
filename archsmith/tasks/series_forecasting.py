"""Series forecast: from the last steps of some columns, the next steps of one or more of them.

B: batch, H: history, C: columns, F: horizon, T: targets.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.tasks.classified import first_of
from archsmith.tasks.files import different_files
from archsmith.tasks.sealed import Sealed
from archsmith.tasks.series import Series, read_series
from archsmith.tasks.split import CAPS, SplitReport, checked
from archsmith.tasks.task import Part

PARTS: tuple[Part, ...] = ("train", "validation", "holdout")  # in the order of time
SHARES: Mapping[Part, float] = {"validation": 0.2, "holdout": 0.2}
LEAST = 8  # windows of a part


@dataclass(frozen=True)
class Scaling:
    """What a network reads and gives: `columns` in their order, scaled by `mean` and `deviation` of the train part.

    Of the targets it gives `horizon` steps: all targets of the first step, then of the second.
    """

    columns: tuple[str, ...]
    targets: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    history: int
    horizon: int

    @property
    def at(self) -> list[int]:
        """The columns that are foretold, by number."""
        return [self.columns.index(name) for name in self.targets]

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """(..., columns) -> the same, float32."""
        found: np.ndarray = ((values - np.array(self.mean)) / np.array(self.deviation)).astype(np.float32)
        return found


class SeriesForecasting(Sealed):
    """Windows of `history` steps and the `horizon` steps of the targets that follow.

    Quality is 100 times R2, the share of the targets' variance that is foretold, over all steps of the horizon. Where a
    forecast is worse than the part's own mean, as all may be of a series that drifts, R2 has no end; quality is then
    100 (variance / squared error - 1), from 0 to -100, which keeps the order.
    """

    name = "series-forecasting"
    metric = "r2"

    def __init__(self, parts: Mapping[Part, Series], scaling: Scaling, split_off: tuple[str, ...] = ()) -> None:
        """`parts`: each with steps of its own, no window of which reaches into another. Raises `BadInput`."""
        self.scaling = scaling
        self.values = {part: scaling.scaled(own.values) for part, own in parts.items()}
        self.starts: dict[Part, np.ndarray] = {}
        self.stride: dict[Part, int] = {}
        length = scaling.history + scaling.horizon
        across: dict[str, int] = {}
        for part, own in parts.items():
            last = max(0, len(own) - length + 1)
            gaps = np.concatenate([[0], np.cumsum(own.gaps)])
            starts = np.arange(last)
            whole = gaps[starts + length] == gaps[starts + 1] if last else starts > 0
            if not whole.sum() >= LEAST:
                law = f"{part} must have {LEAST} windows of {scaling.history} steps and {scaling.horizon} to come"
                found = f"{int(whole.sum())} in {len(own)} steps"
                raise BadInput(law, found, own.source, "give more rows, or a smaller --history or --horizon")
            if int((~whole).sum()):
                across[f"{part} windows across a gap in time"] = int((~whole).sum())
            self.stride[part] = -(-int(whole.sum()) // CAPS[part]) if part in CAPS else 1
            self.starts[part] = starts[whole][:: self.stride[part]]
            constant = np.ptp(self.values[part][:, scaling.at], axis=0) == 0
            if constant.any():
                law = "a target must change in each part"
                name = scaling.targets[int(constant.argmax())]
                raise BadInput(law, f"{name!r}, always the same in {part}", own.source, "name another with --label")
        # Windows of the holdout that share steps with the first of them.
        self.block = -(-length // self.stride["holdout"])
        counted: dict[str, int] = {part: len(starts) for part, starts in self.starts.items()}
        self.split = SplitReport(counted, split_off, cut=across)
        self._made: list[tuple[int, int, float]] = []

    @classmethod
    def from_files(
        cls,
        data: str | Path,
        validation: str | Path | None = None,
        holdout: str | Path | None = None,
        *,
        label: str | None = None,
        horizon: int = 24,
        history: int = 96,
        fractions: Mapping[Part, float] | None = None,
    ) -> SeriesForecasting:
        """Read, put in the order of time, split by time, scale.

        `data`: a table with numeric columns, all of which are read, and a column of times. Parts without a file of
        their own are its last steps: a fifth for validation, then a fifth for the holdout. `label`: the columns that
        are foretold, "a" or "a,b"; the last one unless told. Raises `BadInput`.
        """
        if history < 2 or horizon < 1:
            law = "a forecast reads 2 steps or more and gives 1 or more"
            raise BadInput(law, f"{history} and {horizon}", "--history, --horizon", "ask for more")
        series = {part: read_series(source) for part, source in different_files(data, validation, holdout).items()}
        whole = series["train"]
        for part, own in series.items():
            if own.columns != whole.columns:
                odd = ", ".join(sorted(set(own.columns) ^ set(whole.columns))) or "their order"
                raise BadInput(f"{part} must have the columns of the data", odd, own.source, "rename or remove them")
        targets = _targets(whole, label)
        wanted = [part for part in PARTS[1:] if part not in series]
        shares = checked({**SHARES, **(fractions or {})})
        end = len(whole)
        for part in reversed(wanted):
            begin = end - round(shares[part] * len(whole))
            series[part], end = whole.span(begin, end), begin
        series["train"] = whole.span(0, end)
        _check_apart(series)
        values = series["train"].values
        deviation = values.std(axis=0)
        still = np.ptp(values, axis=0) == 0
        if still[[whole.columns.index(name) for name in targets]].any():
            law = "a target must change in each part"
            raise BadInput(law, f"{', '.join(targets)}, always the same", whole.source, "name another with --label")
        scaling = Scaling(
            whole.columns,
            targets,
            tuple(values.mean(axis=0).tolist()),
            tuple(np.where(still, 1.0, deviation).tolist()),
            history,
            horizon,
        )
        return cls({part: series[part] for part in PARTS}, scaling, tuple(wanted))

    @property
    def outputs(self) -> int:
        """Numbers that a network gives for a window: horizon times targets."""
        return self.scaling.horizon * len(self.scaling.targets)

    def size(self, part: Part) -> int:
        """Windows in a part."""
        return len(self.starts[part]) + (len(self._made) if part == "train" else 0)

    def lengths(self, part: Part) -> np.ndarray:
        """(windows,) int64, all 1."""
        return np.ones(self.size(part), dtype=np.int64)

    def inputs(self, part: Part, rows: Sequence[int]) -> dict[str, Tensor]:
        """`x` (rows, history, columns) float32, scaled."""
        self._check_seal(part)
        own = self.starts[part]
        at = np.asarray(rows, dtype=np.int64)
        made = [self._made[row - len(own)] for row in at.tolist() if row >= len(own)]
        found = np.empty((len(at), self.scaling.history, len(self.scaling.columns)), np.float32)
        found[at < len(own)] = self._past(part, own[at[at < len(own)]])
        if made:
            first, second, share = (np.array(column) for column in zip(*made, strict=True))
            part_of = share.astype(np.float32)[:, None, None]
            found[at >= len(own)] = part_of * self._past(part, first) + (1 - part_of) * self._past(part, second)
        return {"x": torch.from_numpy(found)}

    def targets(self, part: Part, rows: Sequence[int]) -> Tensor:
        """(rows, horizon x targets) float32, scaled; NaN for rows that `extended` added."""
        self._check_seal(part)
        own = self.starts[part]
        at = np.asarray(rows, dtype=np.int64)
        found = np.full((len(at), self.outputs), np.nan, np.float32)
        found[at < len(own)] = self._future(part, own[at[at < len(own)]]).reshape(-1, self.outputs)
        return torch.from_numpy(found)

    def _past(self, part: Part, starts: np.ndarray) -> np.ndarray:
        """(rows, H, C)."""
        found: np.ndarray = self.values[part][starts[:, None] + np.arange(self.scaling.history)]
        return found

    def _future(self, part: Part, starts: np.ndarray) -> np.ndarray:
        """(rows, F, T)."""
        steps = starts[:, None] + self.scaling.history + np.arange(self.scaling.horizon)
        found: np.ndarray = self.values[part][steps][..., self.scaling.at]
        return found

    def wrap(self, model: nn.Module) -> nn.Module:
        """`x -> forecast (batch, horizon x targets)`, scaled, around the model."""
        return Forecast(model)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of scaled values, over the rows that have targets; 0 where none has."""
        there = ~targets.isnan()
        apart = torch.where(there, outputs.float() - targets.nan_to_num(), 0.0)
        return apart.square().sum() / there.sum().clamp(min=1)

    def divergence(self, outputs: Tensor, original: Tensor) -> Tensor:
        """Mean squared distance of two forecasts."""
        return (outputs.float() - original.float()).square().mean()

    def judge(self, outputs: np.ndarray, part: Part) -> np.ndarray:
        """Forecasts (windows, horizon x targets) -> (windows, targets, 4): sums over the horizon of squared errors, of
        absolute errors, of the values and of their squares. Rows that `extended` added are left out."""
        self._check_seal(part)
        if outputs.shape != (self.size(part), self.outputs):
            law = f"the model must give {self.size(part)} rows of {self.outputs} numbers, horizon times targets"
            raise BadInput(law, f"shape {outputs.shape}", part, "check the model")
        true = self._future(part, self.starts[part]).astype(np.float64)
        error = outputs[: len(true)].reshape(true.shape).astype(np.float64) - true
        error = np.nan_to_num(error, nan=1e6, posinf=1e6, neginf=-1e6)
        return np.stack([(error**2).sum(1), np.abs(error).sum(1), true.sum(1), (true**2).sum(1)], axis=-1)

    def quality(self, judged: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Points from -100 to 100, of all or of some windows; of several targets their variances count together."""
        r2 = self.errors(judged if rows is None else judged[rows])["r2"]
        return 100 * (r2 if r2 >= 0 else r2 / (1 - r2))

    def errors(self, judged: np.ndarray) -> dict[str, float]:
        """`mse` and `mae` of scaled values, and `r2`, from judged records; `r2` may be below 0."""
        squared, absolute, total, squares = judged.sum(axis=0).T
        count = len(judged) * self.scaling.horizon
        variance = float((squares - total**2 / count).sum())
        r2 = 1.0 - float(squared.sum()) / variance if variance > 0 else 0.0
        share = count * len(self.scaling.targets)
        return {"mse": float(squared.sum()) / share, "mae": float(absolute.sum()) / share, "r2": r2}

    def drop(self, judged: np.ndarray, original: np.ndarray) -> float:
        """Points below the original."""
        return self.quality(original) - self.quality(judged)

    def naive(self, part: Part, season: int = 1) -> np.ndarray:
        """The targets' last `season` steps over and over, (windows, horizon x targets); 1: the last value."""
        self._check_seal(part)
        return self._repeated(part, self.starts[part], season).reshape(-1, self.outputs)

    def season(self) -> int:
        """Steps of a season: the lag, within the history, at which the changes of the train part are most alike."""
        changes = np.diff(self.values["train"][:, self.scaling.at], axis=0)
        lags = range(2, self.scaling.history + 1)
        alike = [float((changes[lag:] * changes[:-lag]).mean()) for lag in lags]
        return lags[int(np.argmax(alike))]

    def _repeated(self, part: Part, starts: np.ndarray, season: int) -> np.ndarray:
        """(rows, F, T)."""
        back = self.scaling.history - season + np.arange(self.scaling.horizon) % season
        found: np.ndarray = self.values[part][starts[:, None] + back][..., self.scaling.at]
        return found

    def example(self, batch: int, length: int) -> dict[str, Tensor]:
        """So many training windows; `length` means nothing."""
        if batch < 1:
            raise BadInput("an example needs a batch of at least 1", str(batch), "", "ask for more")
        return self.inputs("train", [row % len(self.starts["train"]) for row in range(batch)])

    def dynamic(self) -> Mapping[str, Mapping[int, str]]:
        """The number of windows varies."""
        return {"x": {0: "batch"}}

    def batches(self, part: Part, size: int, rng: np.random.Generator | None = None) -> Iterator[list[int]]:
        """Windows of one pass, shuffled when `rng` is given."""
        order = np.arange(self.size(part)) if rng is None else rng.permutation(self.size(part))
        for start in range(0, len(order), size):
            yield order[start : start + size].tolist()

    def extended(self, count: int, rng: np.random.Generator) -> Self:
        """The same task with `count` more train rows: windows mixed by twos, for the original to foretell."""
        own = self.starts["train"]
        pairs, share = rng.choice(own, (count, 2)), rng.random(count)
        longer = copy.copy(self)
        longer._made = [*self._made, *((int(a), int(b), float(c)) for (a, b), c in zip(pairs, share, strict=True))]
        return longer


class Forecast(nn.Module):
    """A model of series that gives its forecast and nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, C) float32 -> (B, F x T)."""
        result: Any = self.model(x=x)
        return first_of(result)


def _targets(series: Series, label: str | None) -> tuple[str, ...]:
    if label is None:
        return (series.columns[-1],)
    names = (label,) if label in series.columns else tuple(name.strip() for name in label.split(","))
    for name in names:
        if name not in series.columns:
            known = f"the columns of numbers are {', '.join(series.columns)}"
            raise BadInput("what is foretold is a column of numbers", repr(name), series.source, known)
    if len(set(names)) < len(names):
        raise BadInput("each target is named once", repr(label), "--label", "name different columns")
    return names


def _check_apart(series: Mapping[Part, Series]) -> None:
    """That no two parts share a span of time. Raises `BadInput`."""
    spans = sorted(
        (own.times[0], own.times[-1], part) for part, own in series.items() if own.times is not None and len(own)
    )
    for (_, end, first), (begin, _, second) in pairwise(spans):
        if begin <= end:
            law = "parts must not overlap in time"
            raise BadInput(law, f"{second} begins before {first} ends", series[second].source, "give later steps")
