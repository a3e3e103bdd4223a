"""The verb `dashboard`: optuna-dashboard on a run's study, until it is stopped."""

from __future__ import annotations

from pathlib import Path

from archsmith.errors import BadInput
from archsmith.jobs.asked import read_asked, store_of
from archsmith.study.storage import has_study, plain_errors, shown, url_of


def dashboard(path: str | Path, port: int = 8080) -> None:
    """Serve the study of a run on this machine. Raises `BadInput` where it or the package is not there."""
    location = study_of(path)
    try:
        from optuna_dashboard import run_server
    except ImportError as error:
        law = "the dashboard needs its package"
        raise BadInput(law, "none", "", "pip install 'archsmith[dashboard]'") from error
    try:
        run_server(location, host="localhost", port=port)
    except OSError as error:
        raise BadInput("the port must be free", str(error), str(port), "name another with --port") from error


def study_of(path: str | Path) -> str:
    """Where the study of a run is, as Optuna writes it: a URL, or the path of a journal."""
    store = store_of(path, read_asked(path))
    with plain_errors(store):
        if not has_study(store):
            raise BadInput("a run has a study once its search has begun", "none", shown(store), "check the folder")
    return store if store.endswith(".journal") else url_of(store)
