"""The one training loop. Everything that trains calls it."""

from archsmith.train.fit import Fitted, Schedule, fit

__all__ = ["Fitted", "Schedule", "fit"]
