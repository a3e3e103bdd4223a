"""What a search from nothing is asked, and what its networks are built on: the task out of the data, and the space."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np

from archsmith.build import SPACES, Blueprint, Declared, known_space
from archsmith.errors import BadInput
from archsmith.evaluate.from_scratch import Ground, check_recipe
from archsmith.jobs.case import Request
from archsmith.jobs.target import parse_targets
from archsmith.model.pretrained import read_json
from archsmith.tasks import ImageClassification, LanguageModelling, SeriesForecasting, Task, TextClassification
from archsmith.tasks.columns import find_label, find_texts
from archsmith.tasks.picture_files import read_pictures
from archsmith.tasks.pictures import Preparation
from archsmith.tasks.read import read
from archsmith.tasks.vocabulary import kept_words, learnt_tokenizer

HISTORY, HORIZON = 96, 24  # steps of a series: four days of hours, and one
TIMED = 128  # tokens of the call that is timed, where networks read as many
SAMPLED = 1000  # pictures, whose median sides are those of all; one with colours makes all of them coloured
PICTURES = 256  # that means and deviations are taken of
TARGETS = {"language-modelling": ("perplexity<=1.02x",)}  # of what ships beside the winner, where none is given
OPTIONS = {  # tasks that read them
    "history": ("series-forecasting", "language-modelling"),
    "horizon": ("series-forecasting",),
    "text": ("text-classification", "language-modelling"),
    "label": ("image-classification", "text-classification", "series-forecasting"),
    "segmented": ("text-classification",),
}
DROP = ("drop<=1.0",)  # the same of any other task


@dataclass(frozen=True)
class Scratch:
    """What networks are searched for, as plain data. `space`: the name of one, or a file of a declared one.

    `history`: steps of a series, or tokens of a running text, that a network reads; `horizon`: steps that it foretells.
    """

    task: str
    data: str
    space: str
    validation: str | None = None
    holdout: str | None = None
    text: tuple[str, ...] | None = None
    label: str | None = None
    metric: str | None = None
    history: int | None = None
    horizon: int | None = None
    targets: tuple[str, ...] = ()
    runtime: str = "all"
    seed: int = 0
    processes: int = 1  # that train the winner
    segmented: bool = False  # whether texts have spaces between all words, Chinese ones too

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scratch:
        """The inverse of `asdict`."""
        text = data.get("text")
        return cls(**{**data, "targets": tuple(data["targets"]), "text": None if text is None else tuple(text)})

    def anywhere(self) -> Scratch:
        """The same, whatever folder it is gone on with from."""

        def whole(path: str | None) -> str | None:
            return str(Path(path).absolute()) if path and Path(path).exists() else path

        space = self.space if self.space in SPACES else str(whole(self.space))
        files = {name: whole(getattr(self, name)) for name in ("data", "validation", "holdout")}
        return replace(self, space=space, **files)  # type: ignore[arg-type]

    @property
    def request(self) -> Request:
        """The same as `optimize` is asked, of the winner."""
        return Request(
            model=f"found in {Path(self.space).stem}", task=self.task, data=self.data, validation=self.validation,
            holdout=self.holdout, text=self.text, label=self.label, metric=self.metric,
            targets=self.targets or TARGETS.get(self.task, DROP), runtime=self.runtime, seed=self.seed,
            length=self.length,
        )  # fmt: skip

    @property
    def length(self) -> int:
        """Tokens of the call that is timed: no more than networks of the task read."""
        return min(TIMED, grounded(self)[0].signal.shape[0])


@cache
def grounded(scratch: Scratch) -> tuple[Ground, Blueprint]:
    """The task and the space, made once a process. Raises `BadInput`."""
    parse_targets(scratch.targets)  # what is wrong with them is said before any work is done
    for name in ("task", "data", "space"):
        if not getattr(scratch, name):
            raise BadInput(
                "a search from nothing needs a task, its data and a space", f"no {name}", "", f"give --{name}"
            )
    if scratch.task not in TASKS:
        remedy = f"choose one of {', '.join(TASKS)}"
        raise BadInput("a search from nothing is for a task that is known", repr(scratch.task), "--task", remedy)
    for name, tasks in OPTIONS.items():
        if getattr(scratch, name) not in (None, False) and scratch.task not in tasks:
            raise BadInput(f"{name} is of {' and '.join(tasks)}", scratch.task, f"--{name}", "leave it out")
    blueprint: Blueprint
    if scratch.space in SPACES:
        blueprint = known_space(scratch.space)
    elif Path(scratch.space).is_file():
        try:
            blueprint = Declared.from_json(read_json(Path(scratch.space)))
        except BadInput as error:
            raise error.within(scratch.space) from error
    else:
        raise BadInput(
            "a space is one that is known, or a file", scratch.space, "--space", f"known: {', '.join(SPACES)}"
        )
    ground = Ground.of(TASKS[scratch.task](scratch))
    check_recipe(blueprint, ground)
    ground.drawn(blueprint, np.random.default_rng(0))  # a space of another kind is said before any work is done
    return ground, blueprint


def _images(scratch: Scratch) -> Task:
    found = read_pictures(scratch.data, scratch.label)
    some = range(0, len(found.data), max(1, len(found.data) // SAMPLED))
    heights, widths, depths = zip(*(_shape(found.data[i], found.places[i]) for i in some), strict=True)
    height, width, channels = median_low(heights), median_low(widths), max(depths)
    task = ImageClassification.from_files(
        scratch.data,
        scratch.validation,
        scratch.holdout,
        prepared=Preparation(height, width, (0.0,) * channels, (1.0,) * channels),
        rng=np.random.default_rng([scratch.seed, 0]),
        label=scratch.label,
        metric=scratch.metric or "accuracy",
        argument="x",
    )
    task.resized = len(set(zip(heights, widths, strict=True))) > 1
    # Of the train part alone: what the others are must not be learnt.
    pixels = task.parts["train"].pixels
    sample = pixels[:: max(1, len(pixels) // PICTURES)].reshape(-1, channels) / 255
    deviation = np.maximum(sample.std(axis=0), 1e-3)
    mean = sample.mean(axis=0)
    task.prepared = replace(task.prepared, mean=tuple(mean.tolist()), std=tuple(deviation.tolist()))
    return task


def _shape(data: bytes | np.ndarray, place: str) -> tuple[int, int, int]:
    """(height, width, channels) of a picture: 1 for grey ones, else 3."""
    if isinstance(data, np.ndarray):
        channels = 1 if data.ndim == 2 or data.shape[-1] == 1 else 3
        return int(data.shape[0]), int(data.shape[1]), channels
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.height, image.width, 1 if image.mode in ("L", "1") else 3
    except OSError as error:
        raise BadInput("a picture must be readable", str(error)[:120], place, "take it out or repair it") from None


def _texts(scratch: Scratch) -> Task:
    table = read(scratch.data)
    columns = find_texts(table, scratch.text, find_label(table, scratch.label))

    def task(tokenizer: Any) -> TextClassification:
        return TextClassification.from_files(
            scratch.data,
            scratch.validation,
            scratch.holdout,
            tokenizer=tokenizer,
            rng=np.random.default_rng([scratch.seed, 0]),
            label=scratch.label,
            text=scratch.text,
            metric=scratch.metric or "accuracy",
        )

    # Parts are split by their texts, whatever the words are; the words that stay are those of the train part.
    texts = (text for name in columns for text in table.strings(name))
    every = learnt_tokenizer(texts, characters=not scratch.segmented)
    counts = np.bincount(task(every).parts["train"].ids, minlength=len(every))
    return task(kept_words(every, counts))


def _series(scratch: Scratch) -> Task:
    if scratch.metric not in (None, SeriesForecasting.metric):
        law, remedy = "a forecast is judged by r2", "leave --metric out; mse and mae are in RUN/forecast.json"
        raise BadInput(law, repr(scratch.metric), "--metric", remedy)
    return SeriesForecasting.from_files(
        scratch.data,
        scratch.validation,
        scratch.holdout,
        label=scratch.label,
        history=HISTORY if scratch.history is None else scratch.history,
        horizon=HORIZON if scratch.horizon is None else scratch.horizon,
    )


def _language(scratch: Scratch) -> Task:
    if scratch.metric not in (None, LanguageModelling.metric):
        law = "a language model is judged by perplexity"
        raise BadInput(law, repr(scratch.metric), "--metric", "leave it out")
    return LanguageModelling.from_files(
        scratch.data,
        scratch.validation,
        scratch.holdout,
        tokenizer=None,
        rng=np.random.default_rng([scratch.seed, 0]),
        text=scratch.text,
        length=TIMED if scratch.history is None else scratch.history,
    )


TASKS: dict[str, Callable[[Scratch], Task]] = {
    "image-classification": _images,
    "text-classification": _texts,
    "language-modelling": _language,
    "series-forecasting": _series,
}
