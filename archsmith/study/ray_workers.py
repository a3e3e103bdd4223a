"""An executor on Ray (Moritz et al. 2018): the workers of a cluster, or of a little one that is started here."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from archsmith.errors import BadInput, first_line
from archsmith.study.executor import translated

P = ParamSpec("P")
T = TypeVar("T")
REACHED_SECONDS = 10.0


class RayWorkers:
    """Runs calls on Ray, each on one CPU of the cluster (`resources` asks for something else: `{"num_gpus": 1}`).

    `address`: of a cluster, "auto" for the one that this machine belongs to; None starts one here for as long as this
    object is open, with as many CPUs as `workers`. `workers`: calls at once; as many as there are CPUs unless told.

    Raises `BadInput` where Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, workers: int | None = None, address: str | None = None, **resources: float) -> None:
        try:
            import ray
        except ImportError as error:
            law = "the executor ray needs the package ray"
            raise BadInput(law, "none", "", "pip install 'archsmith[ray]'") from error
        self._ray = ray
        self._mine = not ray.is_initialized()
        if self._mine:
            own: dict[str, Any] = {"num_cpus": workers} if address is None else {"address": address}
            try:
                if address is not None and "://" not in address and ":" in address:
                    host, _, port = address.rpartition(":")  # Ray itself waits for minutes where nobody listens
                    socket.create_connection((host, int(port)), timeout=REACHED_SECONDS).close()
                ray.init(**own, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                law = "a Ray cluster must be there"
                raise BadInput(law, first_line(error), str(address), "start it with `ray start`") from error
        self.workers = int(workers or ray.cluster_resources().get("CPU", 1))
        # A worker that dies is the study's business: it counts how often a trial has cost one.
        self._call = ray.remote(max_retries=0, **{"num_cpus": 1, **resources})(_call)

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start the call on the cluster. Call, arguments and result must be picklable."""
        deaths = (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.NodeDiedError)
        return translated(self._call.remote(call, args, kwargs).future(), *deaths)

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        if self._mine and self._ray.is_initialized():
            self._ray.shutdown()


def _call(call: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    return call(*args, **kwargs)
