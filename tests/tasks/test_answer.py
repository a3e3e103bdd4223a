"""A model's answers come in the order asked for, whatever the batches; what is no number is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.tasks.answer import answers, calling, load_array, save_array

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def task(tiny_task: Callable[..., Any]) -> Any:
    return tiny_task("classification", 40)


def tell_tokens(inputs: dict[str, Tensor]) -> np.ndarray:
    """(rows, 2): the sum of a row's tokens, and how many there are."""
    mask = inputs["attention_mask"]
    return torch.stack([(inputs["input_ids"] * mask).sum(1), mask.sum(1)], 1).numpy().astype(np.float64)


ROWS: list[list[int] | None] = [None, [7], [5, 0, 39, 1], list(range(39, -1, -1)), [3, 3, 3]]


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("rows", ROWS)
def test_answers_are_in_the_order_of_the_rows(task: Any, rows: list[int] | None, batch: int) -> None:
    told: list[int] = []
    found = answers(tell_tokens, task, "train", rows, batch, told.append)
    asked = list(range(40)) if rows is None else rows
    wanted = np.concatenate([tell_tokens(task.inputs("train", [row])) for row in asked])
    assert found.dtype == np.float32 and np.array_equal(found, wanted)
    assert told[-1] == len(asked) and len(told) == -(-len(asked) // batch)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_no_number_is_refused(task: Any, bad: float) -> None:
    def call(inputs: dict[str, Tensor]) -> np.ndarray:
        found = tell_tokens(inputs)
        found[-1, 0] = bad
        return found

    with pytest.raises(BadInput, match=r"finite.*validation"):
        answers(call, task, "validation")


def test_no_rows_are_refused(task: Any) -> None:
    with pytest.raises(BadInput, match=r"must have rows.*train"):
        answers(tell_tokens, task, "train", [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_module_is_called_for_plain_float32(dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 2).to(dtype)

    class Wrapped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert torch.is_inference_mode_enabled()
            out: Tensor = layer(x)
            return out

    found = calling(Wrapped())({"x": torch.ones(4, 3, dtype=dtype)})
    assert found.dtype == np.float32 and found.shape == (4, 2)
    np.testing.assert_allclose(found[0], layer(torch.ones(3, dtype=dtype)).detach().float().numpy(), rtol=1e-6)


@pytest.mark.parametrize("array", [np.zeros((3, 2), np.float32), np.array([[np.nan, 1.0]]), np.arange(4)])
def test_arrays_come_back_as_they_were(array: np.ndarray, tmp_path: Path) -> None:
    save_array(tmp_path / "a.npy", array)
    found = load_array(tmp_path / "a.npy")
    assert found.dtype == array.dtype and np.array_equal(found, array, equal_nan=array.dtype.kind == "f")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        save_array(tmp_path / "a.npy", np.array([{}], dtype=object))
