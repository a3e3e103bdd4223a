"""Strategies, one file a method, and exact selection."""

from archsmith.search.along import along_front, in_spread
from archsmith.search.closing import closing_in
from archsmith.search.evolution import regularised_evolution
from archsmith.search.exact import Option, Pick, exact_front, exact_pick
from archsmith.search.random import random_search

STRATEGIES = {
    "random": random_search,
    "evolution": regularised_evolution,
    "front": along_front,
    "closing": closing_in,
}

__all__ = [
    "STRATEGIES",
    "Option",
    "Pick",
    "along_front",
    "closing_in",
    "exact_front",
    "exact_pick",
    "in_spread",
    "random_search",
    "regularised_evolution",
]
