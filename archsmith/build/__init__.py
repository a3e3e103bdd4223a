"""Networks from nothing: declared with choices in them, planned, built."""

from archsmith.build.network import network
from archsmith.build.plan import pieces, planned
from archsmith.build.signal import Signal
from archsmith.build.spaces import SPACES, Blueprint, known_space
from archsmith.build.spec import Declared

__all__ = ["SPACES", "Blueprint", "Declared", "Signal", "known_space", "network", "pieces", "planned"]
