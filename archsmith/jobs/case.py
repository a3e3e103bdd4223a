"""What a run was asked to do, and what it works on: the request as plain data, the model, the task, the targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from archsmith.cost import RUNTIMES
from archsmith.errors import BadInput
from archsmith.jobs.target import Target, parse_targets
from archsmith.model.load import Loaded, demo_model, load
from archsmith.model.load import named_inputs as named
from archsmith.model.pretrained import read_json
from archsmith.model.running import check_runs
from archsmith.model.share import skeleton
from archsmith.tasks import ImageClassification, LanguageModelling, SentenceEmbedding, Task, TextClassification
from archsmith.tasks.docstrings import docstring_pairs
from archsmith.tasks.pictures import Preparation
from archsmith.tasks.read import READERS

DEMO_DATA = "docstrings of the installed packages"
DEMO_TOKENS = 64  # of a docstring: enough to tell it from two thousand others, and half the work of 128
SHORTEST = 16  # tokens of a text that a model is examined on
DEMO_MODEL = "all-MiniLM-L6-v2 of the extra demo"


@dataclass(frozen=True)
class Request:
    """The command line, or the call, as plain data; what `plan.json` of a run holds."""

    model: str
    task: str
    data: str
    validation: str | None = None
    holdout: str | None = None
    text: tuple[str, ...] | None = None
    label: str | None = None
    metric: str | None = None
    targets: tuple[str, ...] = ()
    runtime: str = "all"
    threads: int = 1
    batch: int = 1
    length: int = 128
    minutes: float = 20.0
    seed: int = 0
    allow_code: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        """The inverse of `to_json`. Raises `BadInput` for what is no request of this version."""
        try:
            request = cls(**data)
        except TypeError as error:
            law = "a run's plan must be of this version of archsmith"
            raise BadInput(law, str(error), "plan.json", "use the version that began the run") from error
        return replace(
            request, targets=tuple(request.targets), text=tuple(request.text) if request.text is not None else None
        )


@dataclass(frozen=True, eq=False)
class Case:
    """A request with its model, its task and its targets, ready to be worked on."""

    request: Request
    loaded: Loaded
    task: Task
    targets: tuple[Target, ...]

    @property
    def model(self) -> nn.Module:
        """The user's model; nothing changes it."""
        return self.loaded.model

    def limit(self, metric: str) -> float | None:
        """The bound on a metric in its base unit, if there is one."""
        return next((target.limit for target in self.targets if target.metric == metric), None)

    def example(self) -> dict[str, Tensor]:
        """What latency is measured on."""
        return self.task.example(self.request.batch, self.request.length)

    def as_served(self) -> dict[str, Tensor]:
        """Two rows of the length that latency is measured on, one padded for its half where there is a mask."""
        example = self.task.example(2, max(SHORTEST, self.request.length))
        if "attention_mask" in example:
            example["attention_mask"][1, example["attention_mask"].shape[1] // 2 :] = 0
        return example

    def rng(self, *place: int) -> np.random.Generator:
        """A generator for one place of the run, from the run's seed."""
        return np.random.default_rng([self.request.seed, *place])


def there(path: str | Path) -> bool:
    """Whether a path exists. Raises `BadInput` for one that cannot be looked at: too long, or not for this user."""
    try:
        return Path(path).exists()
    except OSError as error:
        law = "a path must be one that can be looked at"
        raise BadInput(law, str(error.strerror), str(path)[:200], "name another") from None


def prepare(request: Request) -> Case:
    """Load the model, read and split the data. Raises `BadInput` for whatever cannot be used."""
    check(request)
    targets = parse_targets(request.targets)
    check_perplexity(request)
    if request.task not in TASKS:
        remedy = f"choose one of {', '.join(TASKS)}"
        raise BadInput("a task is one that archsmith knows", repr(request.task), "--task", remedy)
    source = str(demo_model()) if request.model == DEMO_MODEL else request.model
    for name, path in (("--data", request.data), ("--validation", request.validation), ("--holdout", request.holdout)):
        named_file = path is not None and (Path(path).suffix.lower() in READERS or Path(path).is_absolute())
        if path is not None and named_file and not there(path):
            raise BadInput("a data file must exist", "nothing", f"{name} {path}", "check the path")
    loaded = load(source, allow_code=request.allow_code, task=request.task)
    return runs(Case(request, loaded, TASKS[request.task](request, loaded), targets))


def prepared(request: Request, model: nn.Module | str, task: Task, example: Any = None) -> Case:
    """A case of a model and a task that the caller holds."""
    check(request)
    if getattr(task, "holdout_opened", False):
        law = "a task serves one run, since its holdout is read once"
        raise BadInput(law, "one that was used", "task", "make another")
    if isinstance(model, str):
        loaded = load(model, allow_code=request.allow_code)
    else:
        inputs = named(model, example, "example") if example is not None else None
        # The caller's own modules keep their mode and their parameters' gradients.
        own = skeleton(model).float().eval()
        loaded = Loaded(own, getattr(task, "tokenizer", None), type(model).__name__, "module", example=inputs)
    return runs(Case(request, loaded, task, parse_targets(request.targets)))


def runs(case: Case) -> Case:
    """The case, if its model runs on the call that is timed and repeats itself. Raises `BadInput`."""
    check_length(case.loaded, case.request.length)
    if isinstance(case.task, SentenceEmbedding):
        case.task.check_parts()
    wrapped = case.task.wrap(case.model).eval()
    outputs = check_runs(wrapped, case.example())
    check_runs(wrapped, case.as_served())  # some models take one row only
    classes = getattr(case.task, "classes", 0)
    if outputs[0].shape[-1] < classes:
        law, found = f"the model must have a logit for each of the {classes} classes", str(outputs[0].shape[-1])
        raise BadInput(law, found, case.loaded.source, "check the label column and the model's number of labels")
    return case


def check_length(loaded: Loaded, length: int) -> None:
    """That a call of so many tokens fits the model. Raises `BadInput`."""
    positions = _positions(loaded)
    if positions is not None and length > positions:
        law, found = "a call must fit the model's positions", f"{length} tokens for {positions}"
        raise BadInput(law, found, "--length", f"give at most {positions}")


def check(request: Request) -> None:
    """The numbers of a request. Raises `BadInput`."""
    for name in ("threads", "batch", "length"):
        if getattr(request, name) < 1:
            raise BadInput(f"{name} is at least 1", str(getattr(request, name)), f"--{name}", "give a larger number")
    if not (math.isfinite(request.minutes) and request.minutes > 0):
        raise BadInput("minutes are above 0", str(request.minutes), "--minutes", "give a larger number")
    if request.runtime not in ("all", *RUNTIMES):
        remedy = f"choose one of {', '.join(RUNTIMES)}, or all"
        raise BadInput("a runtime is one that archsmith knows", repr(request.runtime), "--runtime", remedy)
    if request.runtime != "all" and (reason := RUNTIMES[request.runtime]().available()):
        raise BadInput("the runtime asked for must be installed", reason, f"--runtime {request.runtime}")
    if request.runtime == "pytorch" and any(target.metric == "memory" for target in parse_targets(request.targets)):
        law, remedy = "memory is that of a process that serves a file", "name another --runtime"
        raise BadInput(law, "pytorch, which has none", "--target memory", remedy)
    if request.seed < 0:
        raise BadInput("a seed is 0 or above", str(request.seed), "--seed", "give another")


def check_perplexity(request: Request) -> None:
    """That it is bounded where there is one. Raises `BadInput`."""
    bounded = any(target.metric == "perplexity" for target in parse_targets(request.targets))
    if bounded and request.task != "language-modelling":
        law, remedy = "perplexity is that of a language model", "bound drop or quality instead"
        raise BadInput(law, request.task, "--target perplexity", remedy)


def _tokenizer(loaded: Loaded) -> Any:
    if loaded.tokenizer is None:
        raise BadInput("a text task needs the model's tokenizer", "none", loaded.source, "put it beside the model")
    return loaded.tokenizer


def _longest(request: Request, loaded: Loaded) -> int | None:
    """Tokens that texts are cut to: 512 or as many as are timed, what a sentence model reads, what positions allow."""
    reads = loaded.pooling.max_length if loaded.pooling is not None else None
    limits = [n for n in (_positions(loaded), reads or max(512, request.length)) if n is not None]
    return min(limits)


def _positions(loaded: Loaded) -> int | None:
    """Rows of the model's position table, if its config tells."""
    config = getattr(loaded.model, "config", None)
    longest = getattr(config, "max_position_embeddings", None)
    offset = 2 if getattr(config, "model_type", "") and getattr(config, "pad_token_id", 0) == 1 else 0
    return int(longest) - offset if isinstance(longest, int) and longest > 8 else None


def _labels(loaded: Loaded) -> Mapping[str, int] | None:
    """The model's own names of its classes, if somebody named them."""
    labels: Mapping[str, int] | None = getattr(getattr(loaded.model, "config", None), "label2id", None)
    return None if labels is not None and all(str(name).startswith("LABEL_") for name in labels) else labels


def _images(request: Request, loaded: Loaded) -> Task:
    inputs = dict(loaded.example or {})
    if len(inputs) != 1 or any(tensor.dim() != 4 for tensor in inputs.values()):
        law = "a model of images takes one input, (batch, channels, height, width)"
        raise BadInput(law, ", ".join(inputs) or "no example", loaded.source, "give an example input")
    ((argument, pictures),) = inputs.items()
    said = loaded.tokenizer if isinstance(loaded.tokenizer, Mapping) else {}
    if "preprocessor_config.json" in loaded.files:
        said = read_json(loaded.files["preprocessor_config.json"])
    return ImageClassification.from_files(
        request.data,
        request.validation,
        request.holdout,
        prepared=Preparation.of(said, pictures),
        rng=np.random.default_rng([request.seed, 0]),
        label=request.label,
        metric=request.metric or "accuracy",
        labels=_labels(loaded),
        argument=argument,
    )


def _classification(request: Request, loaded: Loaded) -> Task:
    return TextClassification.from_files(
        request.data,
        request.validation,
        request.holdout,
        tokenizer=_tokenizer(loaded),
        rng=np.random.default_rng([request.seed, 0]),
        label=request.label,
        text=request.text,
        metric=request.metric or "accuracy",
        max_length=_longest(request, loaded),
        labels=_labels(loaded),
    )


def _language(request: Request, loaded: Loaded) -> Task:
    return LanguageModelling.from_files(
        request.data,
        request.validation,
        request.holdout,
        tokenizer=_tokenizer(loaded),
        rng=np.random.default_rng([request.seed, 0]),
        text=request.text,
        length=request.length,
    )


def _embedding(request: Request, loaded: Loaded) -> Task:
    rng = np.random.default_rng([request.seed, 0])
    metric = request.metric or "recall@10"
    pooling = loaded.pooling.mode if loaded.pooling is not None else "mean"
    if request.data == DEMO_DATA:
        pairs = docstring_pairs()
        return SentenceEmbedding.from_pairs(
            pairs, tokenizer=_tokenizer(loaded), rng=rng, metric=metric, pooling=pooling, max_length=DEMO_TOKENS
        )
    return SentenceEmbedding.from_files(
        request.data,
        request.validation,
        request.holdout,
        tokenizer=_tokenizer(loaded),
        rng=rng,
        text=request.text,
        metric=metric,
        pooling=pooling,
        max_length=_longest(request, loaded),
    )


TASKS: dict[str, Callable[[Request, Loaded], Task]] = {
    "text-classification": _classification,
    "image-classification": _images,
    "language-modelling": _language,
    "sentence-embedding": _embedding,
}
