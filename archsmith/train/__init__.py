"""The one training loop. Everything that trains calls it."""

from archsmith.train.fit import Ends, Fitted, Schedule, fit
from archsmith.train.twins import twins_for

__all__ = ["Ends", "Fitted", "Schedule", "fit", "twins_for"]
