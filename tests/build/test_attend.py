"""One sequence asks another: attention as a join, which encoder-decoders are made of."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from archsmith.build import Signal, network, planned
from archsmith.cost import RUNTIMES
from archsmith.cost.count import count
from archsmith.errors import BadInput
from archsmith.evaluate.paper import paper_costs

ASKING = {"graph": {"nodes": [
    {"name": "q", "from": ["in"], "of": {"queries": {"rows": 3, "out": 8}}},
    {"name": "out", "from": ["q", "in", "in"], "of": ["skip", {"linear": {"out": 8}}, {"linear": {"out": 4}}],
     "join": "attend", "heads": 2},
]}}  # fmt: skip


def by_hand(built: nn.Module, x_BMC: Tensor, there_BM: Tensor | None = None) -> Tensor:
    """Each head by itself, as the paper writes it."""
    queries, asked = built.body.parts
    q_LC, k_BMC, v_BMD = queries.vectors, asked[1](x_BMC), asked[2](x_BMC)
    heads = []
    for head in range(2):
        q, k, v = q_LC[:, 4 * head :][:, :4], k_BMC[..., 4 * head :][..., :4], v_BMD[..., 2 * head :][..., :2]
        scores = q @ k.transpose(1, 2) / math.sqrt(4)
        if there_BM is not None:
            scores = scores.masked_fill(there_BM[:, None] == 0, -math.inf)
        heads.append(scores.softmax(-1) @ v)
    return torch.cat(heads, -1)


def test_each_query_gets_the_values_of_the_keys_that_are_like_it() -> None:
    plan = planned(ASKING, Signal((5, 6)))
    built, x = network(plan), torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    assert plan.gives == Signal((3, 4)) and torch.allclose(built(x), by_hand(built, x), atol=1e-6)
    linear = 5 * 6 * 8 + 5 * 6 * 4
    assert paper_costs(plan)["macs"] == linear + 3 * 5 * (8 + 4) == count(built, {"x": x[:1]}).macs


def test_padding_is_not_asked() -> None:
    tokens = [{"embedding": {"rows": 20, "out": 6}}, ASKING]
    with pytest.raises(BadInput, match="the number of places stays"):
        planned(tokens, Signal((5,), tokens=True))  # three queries are not the places of a text
    own = {"attend": ["skip", {"linear": {"out": 6}}, {"linear": {"out": 6}}]}
    built = network(planned([tokens[0], own, "mean"], Signal((5,), tokens=True))).eval()
    ids, there = torch.tensor([[3, 4, 5, 1, 1]]), torch.tensor([[1, 1, 1, 0, 0]])
    other = torch.tensor([[3, 4, 5, 9, 2]])
    assert torch.allclose(built(ids, there), built(other, there))
    assert torch.allclose(built(ids, there), built(ids[:, :3], there[:, :3]), atol=1e-6)


REFUSED: list[tuple[Any, str]] = [
    ({"attend": ["skip", "skip"]}, "queries, keys and values, three sequences; found 5x6, 5x6"),
    ({"attend": ["flatten", "skip", "skip"]}, "three sequences"),
    ({"attend": ["skip", {"linear": {"out": 4}}, "skip"]}, "queries are as wide as keys"),
    ({"attend": [{"queries": {"rows": 0}}, "skip", "skip"]}, "there is at least one query: 0"),
    (
        {"graph": {"nodes": [{"name": "a", "from": ["in"] * 3, "join": "attend", "heads": 4}]}},
        "heads share the channels of queries and of values; found 4 for 5x6, 5x6, 5x6",
    ),
    ({"graph": {"nodes": [{"name": "a", "from": ["in"] * 3, "join": "attend", "heads": "x"}]}}, "found 'x' for"),
]


@pytest.mark.parametrize(("spec", "says"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_asked_is_refused(spec: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        planned(spec, Signal((5, 6)))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_exported_it_gives_the_same(runtime: str, tmp_path: Path) -> None:
    built, x = network(planned([ASKING, "flatten"], Signal((5, 6)))).eval(), torch.randn(2, 5, 6)
    file = RUNTIMES[runtime]().export(built, {"x": x}, {"x": {0: "batch"}}, tmp_path)
    session, prepared = RUNTIMES[runtime]().open(file, 1), {"x": x[:1].numpy()}
    given = session(prepared)
    found = next(iter(given.values())) if isinstance(given, dict) else given[0]
    assert torch.allclose(torch.as_tensor(found).reshape(1, 12), built(x[:1]), atol=1e-4)
