"""Local distillation: layers come nearer to the original's, at any width of the stream, one at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.compress.local import distil_layers, layer_loss, relation_loss, state_loss
from archsmith.compress.repair import exit_paths
from archsmith.errors import ArchsmithError
from archsmith.evaluate.trained import kept_stream, layer_paths
from archsmith.model import examine, realise
from archsmith.model.relay import leaving
from archsmith.model.stubs import Skip
from archsmith.train import Schedule

torch.set_num_threads(1)
BATCHES, ROWS = 4, 16


class Known:
    """A tiny model, its anatomy, and some inputs like its own."""

    def __init__(self, made: Any) -> None:
        self.model = made.model
        self.anatomy = examine(made.model, made.inputs, np.random.default_rng(0))
        generator = torch.Generator().manual_seed(0)
        self.batches = [
            {
                name: torch.randint(0, 60, (ROWS, 9), generator=generator)
                if name == "input_ids"
                else torch.ones((ROWS, 9), dtype=value.dtype)
                for name, value in made.inputs.items()
            }
            for _ in range(BATCHES)
        ]
        self.layers = [self.model.get_submodule(path) for path in layer_paths(self.anatomy)]

    def small(self, kinds: Sequence[str], share: float) -> tuple[nn.Module, dict[str, Any], list[nn.Module]]:
        axes = {n: max(1, int(a.size * share)) for n, a in self.anatomy.axes.items() if a.kind in kinds}
        small = copy.deepcopy(realise(self.model, self.anatomy, axes))
        return small, axes, [small.get_submodule(path) for path in layer_paths(self.anatomy)]

    def apart(self, small: nn.Module, layers: Sequence[nn.Module], kept: Tensor | None) -> list[float]:
        """Of each layer, over all batches."""
        found = []
        for mine, theirs in zip(layers, self.layers, strict=True):
            total = 0.0
            for inputs in self.batches:
                with torch.no_grad():
                    goal = leaving(self.model, inputs, theirs)
                    goal = goal if kept is None else goal[..., kept]
                    total += float(state_loss(leaving(small, inputs, mine).float(), goal.float(), None))
            found.append(total)
        return found


@pytest.fixture(scope="module", params=["bert", "llama"])
def known(request: pytest.FixtureRequest, tiny: Callable[..., Any]) -> Known:
    return Known(tiny(request.param))


CUTS = [(("ffn",), 0.5, 0.5), (("heads", "kv_groups"), 0.5, 0.6), (("residual",), 0.5, 0.7)]


@pytest.mark.parametrize(("kinds", "share", "fewer"), CUTS)
def test_layers_come_nearer_to_the_originals(known: Known, kinds: Sequence[str], share: float, fewer: float) -> None:
    small, architecture, layers = known.small(kinds, share)
    paths = layer_paths(known.anatomy)
    kept = kept_stream(known.anatomy, architecture, paths[0], exit_paths(known.model, known.anatomy))
    assert (kept is None) == ("residual" not in kinds)
    before = known.apart(small, layers, kept)
    told: list[int] = []
    schedule = Schedule(40 * len(layers) + 1, learning_rate=3e-3)
    lost = distil_layers(
        known.model,
        small,
        list(zip(known.layers, layers, strict=True)),
        known.batches,
        schedule,
        kept=dict.fromkeys(known.layers, kept) if kept is not None else None,
        progress=told.append,
    )
    after = known.apart(small, layers, kept)
    assert after[-1] < fewer * before[-1] and sum(after) < fewer * sum(before)
    assert len(lost) == len(layers) and told == list(range(1, schedule.steps + 1))
    assert all(p.requires_grad for p in small.parameters())
    assert not any(module._forward_hooks or "forward" in vars(module) for module in small.modules())


def test_a_layer_learns_and_nothing_else_changes(known: Known) -> None:
    small, _, layers = known.small(("ffn",), 0.5)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    original = {name: tensor.clone() for name, tensor in known.model.state_dict().items()}
    distil_layers(known.model, small, [(known.layers[1], layers[1])], known.batches, Schedule(4), progress=None)
    path = next(name for name, module in small.named_modules() if module is layers[1])
    changed = {name for name, tensor in small.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith(f"{path}.") for name in changed)
    assert all(torch.equal(tensor, original[name]) for name, tensor in known.model.state_dict().items())


def test_a_layer_costs_its_own_passes(known: Known) -> None:
    """However many layers there are, each runs for its own steps and a few times to hand on."""
    small, _, layers = known.small(("ffn",), 0.5)
    ran = [0] * len(layers)

    def count(number: int) -> Callable[..., None]:
        def hook(*args: Any) -> None:
            ran[number] += 1

        return hook

    for number, layer in enumerate(layers):
        inner = next(part for part in layer.modules() if isinstance(part, nn.Linear))
        inner.register_forward_pre_hook(count(number))
    steps = 20
    pairs = list(zip(known.layers, layers, strict=True))
    distil_layers(known.model, small, pairs, known.batches, Schedule(steps * len(layers)))
    assert all(steps <= times <= steps + BATCHES + 3 for times in ran)


def test_the_same_seed_gives_the_same_bits(known: Known) -> None:
    ends = []
    for seed in (0, 0, 1):
        torch.rand(2)  # whatever else was drawn
        small, _, layers = known.small(("ffn",), 0.5)
        distil_layers(
            known.model, small, list(zip(known.layers, layers, strict=True)), known.batches, Schedule(20, seed=seed)
        )
        ends.append(small.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not all(torch.equal(ends[0][name], ends[2][name]) for name in ends[0])


def test_half_precision_learns_in_single_and_is_rounded(known: Known) -> None:
    whole, (small, _, layers) = copy.deepcopy(known.model).bfloat16(), known.small(("ffn",), 0.5)
    small.bfloat16()
    theirs = [whole.get_submodule(path) for path in layer_paths(known.anatomy)]
    kinds: list[torch.dtype] = []
    layers[0].register_forward_pre_hook(lambda layer, args: kinds.append(next(layer.parameters()).dtype))
    lost = [
        distil_layers(whole, small, list(zip(theirs, layers, strict=True)), known.batches, Schedule(80, 3e-3))
        for _ in range(2)
    ]
    assert torch.float32 in kinds and {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert all(again < first for first, again in zip(*lost, strict=True))
    assert all(torch.isfinite(p).all() for p in small.parameters())


def test_a_model_that_cannot_begin_in_the_middle_learns_too(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for held in (2**31, 0):
        monkeypatch.setattr("archsmith.model.relay.MOST_HELD", held)
        small, _, layers = known.small(("ffn",), 0.5)
        distil_layers(known.model, small, list(zip(known.layers, layers, strict=True)), known.batches, Schedule(6))
        ends.append(small.state_dict())
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-5) for name in ends[0])


def test_a_layer_of_which_nothing_is_left_is_passed_over(known: Known) -> None:
    small, _, layers = known.small(("ffn",), 0.5)
    path = next(name for name, module in small.named_modules() if module is layers[1])
    owner, _, number = path.rpartition(".")
    small.get_submodule(owner)[int(number)] = Skip()  # type: ignore[index]
    layers[1] = small.get_submodule(path)
    lost = distil_layers(known.model, small, list(zip(known.layers, layers, strict=True)), known.batches, Schedule(8))
    assert len(lost) == len(layers) - 1


def test_what_fails_leaves_all_that_learns_able_to(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    small, _, layers = known.small(("ffn",), 0.5)
    monkeypatch.setattr(
        "archsmith.compress.local.layer_loss", lambda *args: torch.tensor(float("nan"), requires_grad=True)
    )
    with pytest.raises(ArchsmithError, match="finite"):
        distil_layers(known.model, small, [(known.layers[0], layers[0])], known.batches, Schedule(50))
    assert all(p.requires_grad for p in small.parameters())


def test_channels_of_pictures_are_picked() -> None:
    mine, wanted = torch.randn(2, 3, 5, 7), torch.randn(2, 6, 5, 7)
    kept = torch.tensor([0, 2, 5])
    assert float(layer_loss(mine, wanted, None, kept)) == pytest.approx(float(state_loss(mine, wanted[:, kept], None)))


def test_a_layer_that_does_not_run_is_said(known: Known) -> None:
    with pytest.raises(ValueError, match="must run in every pass"):
        leaving(known.model, known.batches[0], nn.Linear(2, 2))


STATES = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def test_losses_are_nought_where_equal_and_blind_to_padding() -> None:
    noise = torch.randn(STATES.shape, generator=torch.Generator().manual_seed(1))
    padded = torch.where(MASK[..., None] == 0, noise * 100, STATES)
    for loss in (state_loss, relation_loss):
        assert float(loss(STATES, STATES, MASK)) == pytest.approx(0, abs=1e-6)
        assert float(loss(STATES + noise, STATES, MASK)) > 0.05
        assert float(loss(padded, STATES, MASK)) == pytest.approx(0, abs=1e-5)
        first = float(loss(STATES + noise, STATES, MASK))
        assert float(loss(torch.where(MASK[..., None] == 0, noise * 100, STATES + noise), STATES, MASK)) == (
            pytest.approx(first, rel=1e-5)
        )
    assert float(state_loss(padded, STATES, None)) > 1


def test_relations_are_the_same_in_any_width() -> None:
    turn = torch.linalg.qr(torch.randn(11, 8, generator=torch.Generator().manual_seed(2)))[0]
    assert float(relation_loss(STATES @ turn.T, STATES, MASK)) == pytest.approx(0, abs=1e-5)
    assert float(relation_loss(STATES[..., :4], STATES, MASK)) > 0.01


@pytest.mark.parametrize(
    ("states", "mask"), [(STATES[:, 0], MASK), (torch.zeros(1, 193, 2), torch.ones(1, 193)), (STATES, None)]
)
def test_relations_are_left_out_where_there_are_none(states: Tensor, mask: Tensor | None) -> None:
    assert float(relation_loss(states, states + 1, mask)) == 0.0
