"""Twins share a module's numbers and have gradients of their own; together they give the gradient of one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from archsmith.model.share import skeleton
from archsmith.train import Schedule, fit, twins_for
from archsmith.train.twins import Crew

fitting = importlib.import_module("archsmith.train.fit")
ROWS, WIDTH = 64, 8


class Net(nn.Module):
    """A table whose weight is tied to the last layer's, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(50, WIDTH)
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, 50, bias=False)
        self.out.weight = self.table.weight
        self.free = nn.Embedding(50, WIDTH)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.out(torch.tanh(self.inner(self.table(ids) + self.free(ids))) * self.scale)
        return found


IDS = torch.arange(ROWS) % 50


def loss_of(module: nn.Module) -> Callable[[list[int]], Tensor]:
    return lambda rows: functional.cross_entropy(module(IDS[rows]), (IDS[rows] * 7) % 50)


def passes(epoch: int) -> list[list[int]]:
    return [list(range(begin, begin + 32)) for begin in range(0, ROWS, 32)]


def train(count: int, steps: int = 120, **more: object) -> Net:
    net = Net()
    others = [skeleton(net) for _ in range(count)]
    pairs = [(other, loss_of(other)) for other in others]
    fit(net, passes, loss_of(net), Schedule(steps, 2e-2, dropout=False), twins=pairs, **more)  # type: ignore[arg-type]
    return net


def test_a_twin_shares_numbers_and_ties_but_no_gradients() -> None:
    net = Net()
    other = skeleton(net)
    assert other.out.weight is other.table.weight and other.table.weight is not net.table.weight
    with torch.no_grad():
        net.table.weight.add_(1.0)
    assert torch.equal(other.table.weight, net.table.weight) and torch.equal(other.scale, net.scale)
    loss_of(other)([0, 1]).backward()  # type: ignore[no-untyped-call]
    assert other.table.weight.grad is not None and net.table.weight.grad is None


@pytest.mark.parametrize("rows", [32, 31, 3, 2, 1])
def test_shares_add_up_to_the_gradient_of_the_batch(rows: int) -> None:
    chosen = list(range(rows))
    alone, net = Net(), Net()
    others = [skeleton(net) for _ in range(2)]
    single = Crew(alone, loss_of(alone), [])
    crew = Crew(net, loss_of(net), [(other, loss_of(other)) for other in others])
    for _ in range(2):  # the second time what the first left must be gone
        first, second = single.gradient(chosen, False), crew.gradient(chosen, False)
    crew.close()
    assert second == pytest.approx(first, rel=1e-6)
    for mine, its in zip(alone.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(its.grad, mine.grad)


@pytest.mark.parametrize("sparse_from", [0, 10**9])
def test_training_with_twins_repeats_to_the_bit_and_learns_as_alone(
    sparse_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SPARSE_FROM", sparse_from)
    first, again, alone = train(1), train(1), train(0)
    for a, b, c in zip(first.parameters(), again.parameters(), alone.parameters(), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-2, atol=1e-3)
    with torch.no_grad():
        assert float(loss_of(first)(list(range(32)))) < 0.5 * float(loss_of(Net())(list(range(32))))


def test_a_killed_training_with_twins_ends_as_it_would_have(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"

    def kill(step: int) -> None:
        if step == 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(1, 120, checkpoint=file, progress=kill)
    rest, whole = train(1, 120, checkpoint=file), train(1, 120)
    assert all(torch.equal(a, b) for a, b in zip(rest.parameters(), whole.parameters(), strict=True))


def test_a_share_that_is_not_finite_spoils_the_batch_alone() -> None:
    net = Net()
    other = skeleton(net)

    def bad(rows: list[int]) -> Tensor:
        return loss_of(other)(rows) * float("nan")

    crew = Crew(net, loss_of(net), [(other, bad)])
    assert crew.gradient([0, 1, 2, 3], False) != crew.gradient([0, 1, 2, 3], False)  # NaN
    crew.close()


def test_errors_of_a_twin_are_raised() -> None:
    net = Net()
    other = skeleton(net)

    def broken(rows: list[int]) -> Tensor:
        raise RuntimeError("no such row")

    with pytest.raises(RuntimeError, match="no such row"):
        fit(net, passes, loss_of(net), Schedule(2), twins=[(other, broken)])


@pytest.mark.parametrize(("threads", "batch", "count"), [(1, 64, 0), (2, 64, 1), (2, 16, 0), (8, 64, 3), (2, 1, 0)])
def test_twins_are_as_many_as_have_work(threads: int, batch: int, count: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert twins_for(batch) == count
    finally:
        torch.set_num_threads(before)
