"""One network trained by two processes, for real: the same steps as by one."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.errors import ArchsmithError
from archsmith.tasks import ImageClassification
from archsmith.tasks.pictures import Preparation
from archsmith.train import Schedule, fit
from archsmith.train.parallel import Share, agreed, spread, together
from archsmith.train.recipe import Recipe, teach

RECIPE = Recipe(steps=12, batch=17, smoothing=0.1, shift=1, flip=True, mixup=0.3, l1=0.1, activation_l2=0.01)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.inner = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(54, 2))
            self.idle = nn.Linear(3, 3)  # that no output needs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


def task_of(file: str) -> ImageClassification:
    prepared = Preparation(8, 8, (0.5,) * 3, (0.25,) * 3)
    return ImageClassification.from_files(file, prepared=prepared, rng=np.random.default_rng(0), argument="x")


def taught(share: Share | None, tell: Any, file: str, folder: str) -> None:
    """A network taught as the recipe says, on rows of which a batch is not always halved evenly."""
    task, module = task_of(file), Small()
    fitted = teach(task.wrap(module), task, RECIPE, 0, progress=tell, share=share)
    assert fitted.steps == RECIPE.steps
    rank = share.rank if share else 9
    torch.save(module.state_dict(), Path(folder) / f"{rank}.pt")


def killed_once(share: Share, tell: Any, file: str, folder: str) -> None:
    """A network with a norm, taught by processes of which one dies at step 130 where none has been there before."""
    task, module, mark = task_of(file), Small(), Path(folder) / "killed"
    module.inner.insert(1, nn.BatchNorm2d(6))

    def progress(step: int) -> None:
        tell(step)
        if step == 130 and share.rank == 1 and not mark.exists():
            mark.touch()
            os._exit(1)

    kept = Path(folder) / "w.checkpoint"
    teach(task.wrap(module), task, replace(RECIPE, steps=160), 0, progress=progress, checkpoint=kept, share=share)
    torch.save(module.state_dict(), Path(folder) / f"{share.rank}.pt")


def infinite(share: Share, tell: Any, folder: str) -> None:
    """In one step of four the loss is not finite, in one of two processes."""
    module = nn.Linear(2, 1)
    nn.init.ones_(module.weight)
    called, steps = spread(module), iter(range(100))

    def loss(rows: list[int]) -> Tensor:
        value = called(input=torch.ones(2, 2)).square().mean()
        if not torch.is_grad_enabled():
            return value
        broken = next(steps) == 1 and share.rank == 1
        return agreed(value * float("nan") if broken else value)

    fitted = fit(module, lambda epoch: [[0, 1]] * 4, loss, Schedule(4))
    assert fitted.skipped == 1 and fitted.steps == 4
    torch.save(module.state_dict(), Path(folder) / f"{share.rank}.pt")


def fails(share: Share, tell: Any, folder: str) -> None:
    """One fails while the other waits for it."""
    (Path(folder) / f"{os.getpid()}.pid").touch()  # at once: the other may end both between a file and its text
    if share.rank == 1:
        raise ValueError("the second has no batch")
    torch.distributed.barrier()
    time.sleep(100)


def dies(share: Share, tell: Any, folder: str) -> None:
    if share.rank == 0:
        os._exit(7)
    time.sleep(100)


def weights(file: Path) -> dict[str, Tensor]:
    return torch.load(file, weights_only=True)


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file = str(tmp_path / "data.npz")
    np.savez(file, image=rng.integers(0, 256, (68, 8, 8, 3)).astype(np.uint8), label=rng.integers(0, 2, 68))
    assert task_of(file).size("train") % RECIPE.batch == 3  # too few for two processes; 17 are halved unevenly
    steps: list[int] = []
    taught(None, None, file, str(tmp_path))
    together(taught, (file, str(tmp_path)), 2, tell=steps.append)
    one, first, second = (weights(tmp_path / f"{rank}.pt") for rank in (9, 0, 1))
    start = Small().state_dict()
    assert steps == list(range(1, RECIPE.steps + 1))
    for name, value in one.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, atol=1e-5, rtol=0)
    assert (one["inner.0.weight"] - start["inner.0.weight"]).abs().max() > 1e-3
    (tmp_path / "again").mkdir()
    together(taught, (file, str(tmp_path / "again")), 2)
    again = weights(tmp_path / "again" / "0.pt")
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_processes_go_on_where_they_were_killed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file, steps = str(tmp_path / "data.npz"), list[int]()
    np.savez(file, image=rng.integers(0, 256, (68, 8, 8, 3)).astype(np.uint8), label=rng.integers(0, 2, 68))
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    (tmp_path / "straight" / "killed").touch()
    together(killed_once, (file, str(tmp_path / "straight")), 2)
    with pytest.raises(ArchsmithError, match="ended with code 1"):
        together(killed_once, (file, str(tmp_path / "killed")), 2)
    together(killed_once, (file, str(tmp_path / "killed")), 2, tell=steps.append)
    assert steps == list(range(101, 161))
    straight, killed = (weights(tmp_path / name / "0.pt") for name in ("straight", "killed"))
    assert all(torch.equal(killed[name], value) for name, value in straight.items())


def test_a_step_that_is_not_finite_for_one_is_skipped_by_all(tmp_path: Path) -> None:
    together(infinite, (str(tmp_path),), 2)
    first, second = weights(tmp_path / "0.pt"), weights(tmp_path / "1.pt")
    assert all(torch.equal(first[name], value) and bool(value.isfinite().all()) for name, value in second.items())


@pytest.mark.parametrize(
    ("work", "says"), [(fails, "ValueError: the second has no batch"), (dies, "ended with code 7")]
)
def test_one_that_fails_ends_all_with_its_reason(tmp_path: Path, work: Any, says: str) -> None:
    began = time.monotonic()
    with pytest.raises(ArchsmithError, match=says):
        together(work, (str(tmp_path),), 2)
    assert time.monotonic() - began < 60
    for file in tmp_path.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.stem), 0)
