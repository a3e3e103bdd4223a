"""The one training loop. Everything that trains calls it."""

from archsmith.train.fit import Ends, Fitted, Schedule, Stateful, fit
from archsmith.train.twins import twins_for

__all__ = ["Ends", "Fitted", "Schedule", "Stateful", "fit", "twins_for"]
