"""archsmith finds the architecture that a trained model should have had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsmith.jobs.optimize import optimize
    from archsmith.report.result import Result

__version__ = "0.1.0"
__all__ = ["Result", "__version__", "optimize"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: `archsmith --help` must not wait for torch.
    if name == "optimize":
        from archsmith.jobs.optimize import optimize

        return optimize
    if name == "Result":
        from archsmith.report.result import Result

        return Result
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
