"""See and change a network: trace it, certify its axes and branches, cut it, load it, save it."""

from archsmith.model.anatomy import Anatomy, Axis, Branch, Certificate, Place
from archsmith.model.cut import Plan, cut, plan
from archsmith.model.examine import examine
from archsmith.model.space import derive_space, realise
from archsmith.model.views import reorder, view

__all__ = [
    "Anatomy",
    "Axis",
    "Branch",
    "Certificate",
    "Place",
    "Plan",
    "cut",
    "derive_space",
    "examine",
    "plan",
    "realise",
    "reorder",
    "view",
]
