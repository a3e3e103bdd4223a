"""Strategies, one file a method, and exact selection."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from archsmith.errors import BadInput, first_line
from archsmith.trial import Strategy

if TYPE_CHECKING:
    from archsmith.search.along import along_front, in_spread
    from archsmith.search.annealing import simulated_annealing
    from archsmith.search.bayesian import bayesian_optimisation
    from archsmith.search.closing import closing_in
    from archsmith.search.deep_q import deep_q_learning
    from archsmith.search.evolution import regularised_evolution
    from archsmith.search.exact import Option, Pick, exact_front, exact_pick
    from archsmith.search.fidelity import asha, bohb, hyperband
    from archsmith.search.genetic import genetic_algorithm
    from archsmith.search.grid import grid_search, listed
    from archsmith.search.local import local_search
    from archsmith.search.nsga import nsga2
    from archsmith.search.optuna_adapter import as_sampler
    from archsmith.search.optuna_sampler import optuna_sampler
    from archsmith.search.picking import portfolio
    from archsmith.search.policy import policy_gradient
    from archsmith.search.predictor import predictor_search
    from archsmith.search.pymoo_algorithm import pymoo_nsga2
    from archsmith.search.qlearning import q_learning
    from archsmith.search.random import random_search
    from archsmith.search.smac_facade import smac
    from archsmith.search.swarm import particle_swarm
    from archsmith.search.wrap import shrinking, shrinking_search, with_prior, within

# Where each public name is. It is imported when it is asked for: what models trials brings libraries that take seconds.
NAMES = {
    "along": "along_front in_spread", "annealing": "simulated_annealing", "bayesian": "bayesian_optimisation",
    "closing": "closing_in", "deep_q": "deep_q_learning", "evolution": "regularised_evolution",
    "exact": "Option Pick exact_front exact_pick", "fidelity": "asha bohb hyperband", "genetic": "genetic_algorithm",
    "grid": "grid_search listed", "local": "local_search", "nsga": "nsga2", "optuna_adapter": "as_sampler",
    "optuna_sampler": "optuna_sampler", "policy": "policy_gradient", "picking": "portfolio",
    "predictor": "predictor_search", "pymoo_algorithm": "pymoo_nsga2", "qlearning": "q_learning",
    "random": "random_search", "smac_facade": "smac",
    "swarm": "particle_swarm", "wrap": "shrinking shrinking_search with_prior within",
}  # fmt: skip
MODULES = {name: module for module, names in NAMES.items() for name in names.split()}
# Name -> the function that makes it, and what of its options is fixed.
STRATEGIES: dict[str, tuple[str, dict[str, str]]] = {
    "random": ("random_search", {}),
    "grid": ("grid_search", {}),
    "local": ("local_search", {}),
    "annealing": ("simulated_annealing", {}),
    "genetic": ("genetic_algorithm", {}),
    "evolution": ("regularised_evolution", {}),
    "regularized-evolution": ("regularised_evolution", {}),  # as Real et al. call it
    "swarm": ("particle_swarm", {}),
    "q-learning": ("q_learning", {}),
    "deep-q": ("deep_q_learning", {}),
    "reinforce": ("policy_gradient", {"method": "reinforce"}),
    "ppo": ("policy_gradient", {"method": "ppo"}),
    "bayesian": ("bayesian_optimisation", {}),
    "bananas": ("predictor_search", {"model": "mlp"}),
    "boosting": ("predictor_search", {"model": "boosting"}),
    "transformer": ("predictor_search", {"model": "transformer"}),
    "nsga2": ("nsga2", {}),
    "asha": ("asha", {}),
    "hyperband": ("hyperband", {}),
    "bohb": ("bohb", {}),
    "optuna": ("optuna_sampler", {}),
    "pymoo": ("pymoo_nsga2", {}),
    "smac": ("smac", {}),
    "portfolio": ("portfolio", {}),
    "shrinking": ("shrinking_search", {}),
    "front": ("along_front", {}),
    "closing": ("closing_in", {}),
}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)


def strategy(name: str, objectives: Sequence[str], *, budget: int = 100, **options: Any) -> Strategy:
    """A strategy by its name. The budget, in trials, is what sizes and rates follow from; options are its own.

    Raises `BadInput` for a name or an option that there is not.

    >>> strategy("genetic", ["loss"], budget=200, population=12) is not None
    True
    """
    if name not in STRATEGIES:
        raise BadInput("a strategy is one that is known", repr(name), "", f"there are: {', '.join(STRATEGIES)}")
    function, fixed = STRATEGIES[name]
    make = partial(__getattr__(function), **fixed)
    taken = inspect.signature(make).parameters
    given: dict[str, Any] = {"objectives": list(objectives), "budget": budget}
    given = {key: value for key, value in given.items() if key in taken}
    open_ended = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values())
    unknown = [key for key in options if key in fixed or (key not in taken and not open_ended)]
    if unknown:
        own = [key for key in taken if key not in ("objectives", "budget", *fixed)]
        remedy = f"there are: {', '.join(own)}" if own else "it has none"
        raise BadInput(f"an option of {name} is one that it has", repr(unknown[0]), "", remedy)
    hints = typing.get_type_hints(make.func)
    for key, value in options.items():
        if key in hints and not _fits(value, hints[key]):
            kind = getattr(hints[key], "__name__", str(hints[key])).replace("typing.", "")
            kind = "a list of numbers, [1,3,9]" if hints[key] == Sequence[float] else kind
            law = f"an option of {name} has a value of its kind"
            raise BadInput(law, f"{key}={value!r}", "", f"it takes {kind}")
    missing = [
        key for key, each in taken.items() if each.default is each.empty and key not in {**given, **options}
        and each.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]  # fmt: skip
    if missing:
        raise BadInput(f"{name} needs {missing[0]}", "none", "", f"give {missing[0]}=...")
    try:
        found: Strategy = make(**given, **options)
    except BadInput:
        raise
    except Exception as error:  # whatever an option that is no such thing runs into
        law = f"{name} must be able to begin with its options"
        raise BadInput(law, f"{type(error).__name__}: {first_line(error)}") from error
    return found


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a parameter's kind, as far as the kinds of options here go.

    >>> _fits(3, float), _fits(True, int), _fits("3", int | None), _fits([1], Sequence[int]), _fits([""], Sequence[int])
    (True, False, False, True, False)
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        return listed and all(_fits(each, hint) for hint in arguments[:1] for each in value)
    return callable(value) if origin is not None and origin is Callable else True


__all__ = [
    "STRATEGIES",
    "Option",
    "Pick",
    "along_front",
    "as_sampler",
    "asha",
    "bayesian_optimisation",
    "bohb",
    "closing_in",
    "deep_q_learning",
    "exact_front",
    "exact_pick",
    "genetic_algorithm",
    "grid_search",
    "hyperband",
    "in_spread",
    "listed",
    "local_search",
    "nsga2",
    "optuna_sampler",
    "particle_swarm",
    "policy_gradient",
    "portfolio",
    "predictor_search",
    "pymoo_nsga2",
    "q_learning",
    "random_search",
    "regularised_evolution",
    "shrinking",
    "shrinking_search",
    "simulated_annealing",
    "smac",
    "strategy",
    "with_prior",
    "within",
]
