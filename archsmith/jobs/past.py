"""What earlier runs teach a search: their trials, kept beside the search that learns from them.

RUN/past.json    the trials of each, so that the search goes on as it began whatever becomes of those runs
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from archsmith.report.plain import write_text
from archsmith.space import JSON
from archsmith.study import Store
from archsmith.trial import Proposal, Trial

Past = list[tuple[list[Trial], tuple[str, ...]]]  # of each earlier study, at each fidelity its complete trials
FILE = "past.json"


def read_past(runs: Sequence[str], store_of: Callable[[str], str]) -> Past:
    """The trials of earlier runs. Raises `BadInput` for one that cannot be read."""
    found: Past = []
    for run in runs:
        with closing(Store.read(store_of(run))) as store:
            alike: dict[tuple[tuple[str, float], ...], list[Trial]] = {}  # a loss after an epoch is none after nine
            for trial in store.history():
                if trial.status == "complete":
                    alike.setdefault(tuple(sorted(trial.proposal.fidelity.items())), []).append(trial)
            found += [(trials, store.objectives) for trials in alike.values() or [[]]]
    return found


def keep(past: Past, run: Path) -> None:
    """Write them into a run's folder."""
    written = [
        {
            "objectives": list(objectives),
            "trials": [{"proposal": trial.proposal.to_json(), "values": dict(trial.values)} for trial in trials],
        }
        for trials, objectives in past
    ]
    write_text(run / FILE, json.dumps(written))


def kept(run: Path) -> Past | None:
    """Those that were kept; None where none were."""
    if not (run / FILE).is_file():
        return None
    studies: list[JSON] = json.loads((run / FILE).read_text(encoding="utf-8"))
    return [([_trial(i, row) for i, row in enumerate(each["trials"])], tuple(each["objectives"])) for each in studies]


def _trial(number: int, row: JSON) -> Trial:
    return Trial(number, Proposal.from_json(row["proposal"]), "complete", row["values"])
