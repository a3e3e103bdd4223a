"""The training loop: it learns, goes on from a checkpoint as if nothing had been, skips what is not a number."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from archsmith.errors import ArchsmithError
from archsmith.train import Schedule, fit

torch.set_num_threads(1)
fitting = importlib.import_module("archsmith.train.fit")  # the room's `fit` is its function
ROWS = 48
SPARSE = (0, 10**9)  # a table's size from which it is updated row by row: always, never


class Words(nn.Module):
    """A table of words, dropout, and a line through their mean."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Embedding(200, 6)
        self.drop = nn.Dropout(0.3)
        self.line = nn.Linear(6, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.line(self.drop(self.table(ids)).mean(1)).squeeze(1)
        return out


class Regression:
    """Sums of the weights of words 0 to 99, which a table and a line can learn."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.ids = torch.from_numpy(rng.integers(0, 100, (ROWS, 5)))
        self.wanted = torch.from_numpy(rng.normal(size=100).astype(np.float32))[self.ids].mean(1)
        self.module = Words()

    def passes(self, epoch: int) -> Iterator[list[int]]:
        order = np.random.default_rng([1, epoch]).permutation(ROWS)
        yield from (order[begin : begin + 8].tolist() for begin in range(0, ROWS, 8))

    def loss(self, rows: list[int]) -> Tensor:
        return functional.mse_loss(self.module(self.ids[rows]), self.wanted[rows])

    def error(self) -> float:
        self.module.eval()
        with torch.no_grad():
            return float(self.loss(list(range(ROWS))))


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Killed(Exception):
    pass


@pytest.mark.parametrize("sparse_from", SPARSE)
def test_a_regression_is_learnt(sparse_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SPARSE_FROM", sparse_from)
    job = Regression()
    before = job.error()
    fitted = fit(job.module, job.passes, job.loss, Schedule(250, learning_rate=3e-2))
    assert job.error() < 0.2 * before
    assert (fitted.steps, fitted.skipped, fitted.validated) == (250, 0, ())
    assert fitted.loss < before
    assert not job.module.training and all(p.grad is None for p in job.module.parameters())


@pytest.mark.parametrize("sparse_from", SPARSE)
@pytest.mark.parametrize("checks", [0, 5])
@pytest.mark.parametrize("killed_at", [51, 199])
def test_a_resumed_training_ends_with_the_same_bits(
    sparse_from: int, checks: int, killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SPARSE_FROM", sparse_from)
    schedule, file = Schedule(200, learning_rate=1e-2), tmp_path / "checkpoint"
    whole, job, rest = Regression(), Regression(), Regression()
    straight = fit(whole.module, whole.passes, whole.loss, schedule, validate=whole.error, checks=checks)

    def kill(step: int) -> None:
        if step == killed_at:
            raise Killed

    with pytest.raises(Killed):
        fit(
            job.module,
            job.passes,
            job.loss,
            schedule,
            validate=job.error,
            checks=checks,
            checkpoint=file,
            progress=kill,
        )
    steps: list[int] = []
    torch.rand(3)  # what else a process draws from the global generator does not matter
    resumed = fit(
        rest.module,
        rest.passes,
        rest.loss,
        schedule,
        validate=rest.error,
        checks=checks,
        checkpoint=file,
        progress=steps.append,
    )
    assert steps[0] == killed_at // 50 * 50 + 1 and steps[-1] == 200
    assert equal(weights(whole.module), weights(rest.module))
    assert resumed == straight
    saved = torch.load(file, weights_only=True)["seconds"]
    assert resumed.seconds > saved > 0


def test_training_draws_nothing_from_the_global_generator() -> None:
    job = Regression()
    before = torch.get_rng_state()
    fit(job.module, job.passes, job.loss, Schedule(5))
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_of_dropout_differ() -> None:
    found = []
    for seed in (0, 0, 1):
        job = Regression()
        fit(job.module, job.passes, job.loss, Schedule(5, seed=seed))
        found.append(weights(job.module))
    assert equal(found[0], found[1]) and not equal(found[0], found[2])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_whose_loss_is_not_finite_is_skipped(bad: float) -> None:
    job, calls = Regression(), iter(range(10**6))

    def loss(rows: list[int]) -> Tensor:
        return job.loss(rows) * (bad if next(calls) % 3 == 1 else 1.0)

    before = job.error()
    fitted = fit(job.module, job.passes, loss, Schedule(300, learning_rate=2e-2))
    assert fitted.skipped == 100 and math.isfinite(fitted.loss)
    assert job.error() < 0.5 * before


def test_a_step_whose_gradient_is_not_finite_is_skipped() -> None:
    """The root of nought is nought, its gradient is not a number."""
    job, calls = Regression(), iter(range(10**6))

    def loss(rows: list[int]) -> Tensor:
        value = job.loss(rows)
        return value + (job.module.line.weight * 0).sum().sqrt() if next(calls) % 3 == 1 else value

    fitted = fit(job.module, job.passes, loss, Schedule(30))
    assert fitted.skipped == 10
    assert all(torch.isfinite(p).all() for p in job.module.parameters())


def test_a_skipped_step_leaves_nothing_in_norms_over_batches() -> None:
    rng = np.random.default_rng(0)
    x, module = torch.from_numpy(rng.normal(size=(64, 3)).astype(np.float32)), nn.Sequential(nn.Linear(3, 4))
    module.extend([nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1)])
    x[5, 1] = math.inf

    def passes(epoch: int) -> list[list[int]]:
        return [list(range(at, at + 16)) for at in range(0, 64, 16)]

    fitted = fit(module, passes, lambda rows: module(x[rows]).square().mean(), Schedule(40))
    assert fitted.skipped == 10 and bool(module(x[16:]).isfinite().all())
    assert not torch.equal(module[1].running_mean, torch.zeros(4))


@pytest.mark.parametrize(("bad", "raises"), [(20, False), (21, True)])
def test_many_losses_in_a_row_that_are_not_finite_end_it(bad: int, raises: bool) -> None:
    job, calls = Regression(), iter(range(10**6))

    def loss(rows: list[int]) -> Tensor:
        return job.loss(rows) * (math.nan if 5 <= next(calls) < 5 + bad else 1.0)

    if raises:
        with pytest.raises(ArchsmithError, match="finite loss"):
            fit(job.module, job.passes, loss, Schedule(60))
    else:
        assert fit(job.module, job.passes, loss, Schedule(60)).skipped == 20


def test_a_row_of_bad_losses_is_counted_across_a_resume(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"

    def kill(step: int) -> None:
        if step == 50:
            raise Killed  # the checkpoint is written before progress is told

    def broken(job: Regression, good: int) -> None:
        calls = iter(range(10**6))

        def loss(rows: list[int]) -> Tensor:
            return job.loss(rows) * (1.0 if next(calls) < good else math.nan)

        fit(job.module, job.passes, loss, Schedule(100), checkpoint=file, progress=kill)

    with pytest.raises(Killed):
        broken(Regression(), 35)
    with pytest.raises(ArchsmithError, match="21 steps up to step 55"):
        broken(Regression(), 0)


VALUES = [
    ("the least", [3.0, 1.0, 2.0, 2.5], 1),
    ("of equals the last", [1.0, 1.0, 2.0, 1.0], 3),
    ("the first", [0.0, 1.0, 2.0, 3.0], 0),
    ("a value that is no number never wins", [math.nan, 2.0, math.nan, 3.0], 1),
]


@pytest.mark.parametrize(("values", "best"), [case[1:] for case in VALUES], ids=[case[0] for case in VALUES])
def test_the_best_check_is_kept(values: list[float], best: int) -> None:
    job, seen = Regression(), []

    def validate() -> float:
        assert not job.module.training
        seen.append(weights(job.module))
        return values[len(seen) - 1]

    fitted = fit(job.module, job.passes, job.loss, Schedule(40), validate=validate, checks=4)
    assert [step for step, _ in fitted.validated] == [10, 20, 30, 40]
    assert equal(weights(job.module), seen[best])


def test_a_large_table_changes_in_the_rows_of_the_batches_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step: the rows used move as they do in a dense step, the others keep their bits."""
    found = []
    for sparse_from in SPARSE:
        monkeypatch.setattr(fitting, "SPARSE_FROM", sparse_from)
        job = Regression()
        before = job.module.table.weight.detach().clone()
        schedule = Schedule(2, learning_rate=1e-2, weight_decay=0.0, clip=1e9, warmup=0.5)
        fit(job.module, lambda epoch: [[0, 1, 2]] * 2, job.loss, schedule)
        used = torch.zeros(200, dtype=torch.bool)
        used[job.ids[[0, 1, 2]].unique()] = True
        after = job.module.table.weight.detach()
        assert torch.equal(before[~used], after[~used])
        assert (before[used] != after[used]).any(1).all()
        assert not job.module.table.sparse
        found.append(after)
    torch.testing.assert_close(found[0], found[1])


class Tied(Words):
    """Uses its table a second time, as a matrix: its gradient is dense."""

    def forward(self, ids: Tensor) -> Tensor:
        states = self.drop(self.table(ids)).mean(1)
        return self.line(states).squeeze(1) + (states @ self.table.weight.T).mean(1)


def test_a_table_that_is_used_as_a_matrix_too_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SPARSE_FROM", 0)
    job = Regression()
    job.module = Tied()
    before = job.error()
    fit(job.module, job.passes, job.loss, Schedule(200, learning_rate=2e-2))
    assert job.error() < 0.5 * before


def test_a_training_that_fails_leaves_tables_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SPARSE_FROM", 0)
    job = Regression()

    def loss(rows: list[int]) -> Tensor:
        raise Killed

    with pytest.raises(Killed):
        fit(job.module, job.passes, loss, Schedule(3))
    assert not job.module.table.sparse and not job.module.training


def test_what_is_frozen_stays_as_it_is() -> None:
    job = Regression()
    job.module.table.weight.requires_grad_(False)
    before = weights(job.module)
    for _ in range(2):
        fit(job.module, job.passes, job.loss, Schedule(5))
    assert torch.equal(before["table.weight"], job.module.table.weight)
    assert not torch.equal(before["line.weight"], job.module.line.weight)


def test_data_without_batches_is_refused() -> None:
    job = Regression()
    with pytest.raises(ArchsmithError, match="at least one batch"):
        fit(job.module, lambda epoch: [], job.loss, Schedule(3))


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.5, 1.0])
def test_the_rate_rises_to_its_peak_once_and_then_falls(steps: int, warmup: float) -> None:
    schedule = Schedule(steps, learning_rate=2.0, warmup=warmup)
    rates = [schedule.rate(step) for step in range(steps)]
    top = int(np.argmax(rates))
    assert rates[top] == 2.0 and top == max(1, round(warmup * steps)) - 1
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a > b for a, b in pairwise(rates[top:]))
    assert min(rates) >= 0 and (steps == 1 or rates[-1] < 1e-12 or warmup == 1.0)


def test_pictures_are_learnt_and_the_weights_lie_as_they_did() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    pictures, own, before = torch.randn(16, 3, 8, 8), list(module.parameters()), copy.deepcopy(module.state_dict())
    seen: list[bool] = []

    def loss(rows: list[int]) -> Tensor:
        weight = module.get_parameter("0.weight")
        seen.append(weight.is_contiguous(memory_format=torch.channels_last))
        return module(pictures[rows]).square().mean()

    fitted = fit(module, lambda epoch: [list(range(8)), list(range(8, 16))], loss, Schedule(20, 1e-2))
    with torch.no_grad():
        assert fitted.loss < 0.5 * float(copy_of(module, before)(pictures).square().mean())
    assert all(seen)
    assert all(one is other and one.is_contiguous() for one, other in zip(module.parameters(), own, strict=True))


def copy_of(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    other = copy.deepcopy(module)
    other.load_state_dict(state)
    return other.train()


class Viewed(nn.Module):
    """Reads what a convolution gave with a `view`, which rows with channels last do not allow."""

    def __init__(self, solid: bool) -> None:
        super().__init__()
        self.conv, self.line = nn.Conv2d(3, 6, 3), nn.Linear(6 * 36, 2)
        self.solid = nn.Conv3d(1, 1, 1) if solid else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x).relu()
        out = out if self.solid is None else self.solid(out[:, None])[:, 0]
        found: Tensor = self.line(out.view(-1, 6 * 36))
        return found


@pytest.mark.parametrize("solid", [False, True])
def test_a_module_that_needs_its_rows_as_they_are_is_trained(solid: bool) -> None:
    module, pictures = Viewed(solid), torch.randn(16, 3, 8, 8)
    fitted = fit(
        module, lambda epoch: [list(range(16))], lambda rows: module(pictures[rows]).square().mean(), Schedule(3)
    )
    assert fitted.steps == 3 and all(p.is_contiguous() for p in module.parameters())


def test_a_training_that_is_told_to_ends_in_the_midst_of_its_schedule_as_its_last_step_left_it() -> None:
    schedule, told, states = Schedule(40, learning_rate=3e-2), [], []
    job = Regression()

    def ends(checks: list[tuple[float, float]]) -> bool:
        told.append(list(checks))
        return len(checks) == 3

    worse = iter([0.0, 1.0, 2.0])  # the first check is the best one
    fitted = fit(job.module, job.passes, job.loss, schedule, validate=lambda: next(worse), checks=8, ends=ends)
    assert fitted.steps == 15 and fitted.validated == ((5, 0.0), (10, 1.0), (15, 2.0))
    assert told[-1] == [(0.125, 0.0), (0.25, 1.0), (0.375, 2.0)]

    def keep(step: int) -> None:
        if step == 15:
            states.append(weights(whole.module))

    whole = Regression()
    fit(whole.module, whole.passes, whole.loss, schedule, progress=keep)
    assert equal(weights(job.module), states[0])


def test_a_checkpoint_of_other_weights_is_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As another version of a space's networks would have written it."""
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))

    def train(module: nn.Module, beside: nn.Module | None = None) -> tuple[int, bool]:
        steps: list[int] = []
        caplog.clear()
        passes = lambda epoch: [list(range(64))]  # noqa: E731
        fit(module, passes, lambda rows: module(x[rows]).square().mean(), Schedule(100),
            checkpoint=tmp_path / "checkpoint", beside=beside, progress=steps.append)  # fmt: skip
        return steps[0], "of other weights" in caplog.text

    assert train(nn.Linear(4, 1)) == (1, False) and train(nn.Linear(4, 1)) == (51, False)
    assert train(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))) == (1, True)
    assert train(nn.Linear(4, 1)) == (1, True) and train(nn.Sequential(nn.Linear(4, 1))) == (1, True)  # by other names
    assert train(nn.Sequential(nn.Linear(4, 1)), nn.Linear(2, 2)) == (1, True)  # something learns beside it
    assert train(nn.Sequential(nn.Linear(4, 1)), nn.Linear(2, 2)) == (51, False)
