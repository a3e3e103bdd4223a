"""The user's own evaluator, by its name. Light to import: every process that evaluates begins here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.errors import BadInput
from archsmith.trial import Evaluator, Proposal

LAW = "an evaluator is package.module:name of a function of a proposal and a generator"


@dataclass(frozen=True, eq=False)
class Named:
    """The evaluator "package.module:name" of the user, found again in every process that it is sent to."""

    spec: str
    folder: str = field(default_factory=lambda: str(Path.cwd()))

    @cached_property
    def found(self) -> Evaluator:
        """The evaluator. Raises `BadInput` where there is none of that name."""
        module, _, name = self.spec.partition(":")
        if self.folder not in sys.path:
            sys.path.insert(0, self.folder)  # like `python -m`: the user's own module lies where the command is run
        try:
            evaluator: Evaluator = getattr(importlib.import_module(module), name)
        except (Exception, SystemExit) as error:  # the user's code may raise anything, and may leave
            raise BadInput(LAW, f"{type(error).__name__}: {error}", self.spec) from error
        if not callable(evaluator):
            raise BadInput(LAW, type(evaluator).__name__, self.spec)
        return evaluator

    def check(self) -> None:
        """Raise `BadInput` where there is no evaluator of that name."""
        _ = self.found

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> Mapping[str, float]:
        """The user's values."""
        return self.found(proposal, rng)

    def __getstate__(self) -> dict[str, Any]:
        return {"spec": self.spec, "folder": self.folder}
