"""A job of four stages that a test kills; RUN-did gets a line whenever a stage's work ends."""

import time
from pathlib import Path

from archsmith.space import JSON
from archsmith.study import RunDirectory

STAGES = ("load", "trace", "train", "export")


def work_of(name: str, did: Path) -> object:
    """Writes forty files slowly, so that a kill falls into the middle of them."""

    def work(folder: Path) -> JSON:
        for number in range(40):
            (folder / f"{number}.bin").write_bytes(name.encode() * 200)
            time.sleep(0.0005)
        with did.open("a") as file:
            file.write(f"{name}\n")
        return {"stage": name, "files": 40}

    return work


def job(path: Path) -> list[JSON]:
    """Create or go on, do every stage."""
    did = path.with_name(path.name + "-did")
    opened = RunDirectory.open(path) if (path / "plan.json").exists() else RunDirectory.create(path, {"minutes": 3})
    with opened as run:
        return [run.stage(name, work_of(name, did)) for name in STAGES]  # type: ignore[arg-type]
