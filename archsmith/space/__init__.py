"""What may be chosen, as plain data. No torch."""

from archsmith.space.choice import JSON, Architecture, Choice, Condition, Value
from archsmith.space.constraint import Constraint, Forbidden, Linear
from archsmith.space.space import Space

__all__ = ["JSON", "Architecture", "Choice", "Condition", "Constraint", "Forbidden", "Linear", "Space", "Value"]
