"""One-shot searches: what is asked of weights that were trained once."""

from __future__ import annotations

import json
from pathlib import Path

from stripes import asked, call

from archsmith.study import Store

OPS = {
    "conv": {"conv": {"out": "in"}},
    "separable": {"separable": {"out": "in"}},
    "point": {"conv": {"out": "in", "kernel": 1}},
}
MIXED = {
    "choices": {"op": list(OPS)},
    "network": [
        {"conv": {"out": 8, "kernel": 3}},
        {"repeat": 2, "name": "layer", "of": [{"pick": "$op", "of": OPS}, "batch_norm", "relu"]},
        "mean", {"linear": {"out": "$classes"}},
    ],
}  # fmt: skip


def test_no_trial_has_an_operator_that_p_darts_has_dropped(stripes: Path, tmp_path: Path) -> None:
    (tmp_path / "mixed.json").write_text(json.dumps(MIXED))
    more = ("--strategy", "p-darts", "--trials", 9, "--space", tmp_path / "mixed.json")
    code, said = call(*asked(stripes, tmp_path / "run", *more))
    assert code == 0, said
    store = Store.read(tmp_path / "run" / "study.db")
    trials = store.history()
    store.close()
    first = json.loads((tmp_path / "run" / "stages" / "shared.json").read_text())["result"]["first"]
    judged = [trial for trial in trials if trial.status == "complete"]
    assert len(judged) == len(trials) == len(first) == 4
