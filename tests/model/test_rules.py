"""One law for every operator rule: permuting the units of an atom in the inputs permutes them in the output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from archsmith.model.labels import leaves, positions, units
from archsmith.model.rules import RULES
from archsmith.model.trace import Trace

torch.set_num_threads(1)

# name: (function of tensors, shapes, number of atoms that must stay free)
CASES = {
    "add broadcast": (lambda a, b: a + b, [(2, 3, 4), (4,)], 3),
    "add in place": (lambda a, b: a.clone().add_(b), [(3, 4), (3, 4)], 2),
    "where": (lambda a, b: torch.where(a > 0, a, b), [(3, 4), (3, 1)], 2),
    "view splits": (lambda a: a.view(2, 3, 4) * 2, [(2, 12)], 3),
    "view merges": (lambda a: a.reshape(2, 12), [(2, 3, 4)], 3),
    "transpose": (lambda a: a.transpose(-1, -2), [(2, 3, 4)], 3),
    "permute": (lambda a: a.permute(2, 0, 1), [(2, 3, 4)], 3),
    "t": (lambda a: a.t(), [(3, 4)], 2),
    "unsqueeze squeeze": (lambda a: a.unsqueeze(1).expand(3, 5, 4).mean(1).unsqueeze(-1).squeeze(-1), [(3, 4)], 2),
    "repeat": (lambda a: a.repeat(2, 3), [(2, 4)], 2),
    "slice": (lambda a: a[:, 1:4] + a[:, 4:], [(3, 7)], 2),
    "slice in steps": (lambda a: a[:, ::2] * a[:, 1::2], [(3, 8)], 2),
    "slice in uneven steps": (lambda a: a[:, ::3], [(3, 8)], 1),
    "split": (lambda a: a.split([2, 3, 2], -1)[1], [(3, 7)], 4),
    "chunk pairs": (lambda a: torch.mul(*a.chunk(2, -1)), [(3, 8)], 2),
    "unbind": (lambda a: a.unbind(0)[1], [(3, 4)], 1),
    "cat": (lambda a, b: torch.cat([a, b], 1), [(3, 4), (3, 5)], 3),
    "rotate halves": (lambda a: a + torch.cat([-a[:, 3:], a[:, :3]], 1), [(3, 6)], 2),
    "stack": (lambda a, b: torch.stack([a, b], 1), [(3, 4), (3, 4)], 2),
    "mean": (lambda a: a.mean((0, 2)), [(2, 3, 4)], 3),
    "variance": (lambda a: a.var(-1, keepdim=True), [(3, 4)], 2),
    "maximum": (lambda a: a.amax(-1), [(3, 4)], 2),
    "which maximum": (lambda a: a.max(-1), [(3, 4)], 1),
    "norm": (lambda a: torch.linalg.vector_norm(a, dim=-1), [(3, 4)], 2),
    "mm": (lambda a, b: a @ b, [(3, 4), (4, 5)], 3),
    "bmm": (lambda a, b: torch.bmm(a, b), [(2, 3, 4), (2, 4, 5)], 4),
    "linear": (lambda a, w, b: F.linear(a, w, b), [(2, 3, 4), (5, 4), (5,)], 4),
    "convolution": (lambda a, w, b: F.conv2d(a, w, b), [(2, 4, 5, 5), (6, 4, 3, 3), (6,)], 3),
    "depthwise": (lambda a, w: F.conv1d(a, w, groups=4), [(2, 4, 5), (4, 1, 3)], 2),
    "depthwise with multiplier": (lambda a, w: F.conv1d(a, w, groups=4), [(2, 4, 5), (8, 1, 3)], 2),
    "grouped": (lambda a, w: F.conv1d(a, w, groups=2), [(2, 4, 5), (6, 2, 3)], 4),
    "transposed in groups": (lambda a, w: F.conv_transpose1d(a, w, groups=2), [(2, 4, 5), (4, 3, 3)], 4),
    "transposed": (lambda a, w: F.conv_transpose1d(a, w), [(2, 4, 5), (4, 6, 3)], 3),
    "layer norm": (lambda a, w, b: F.layer_norm(a, (4,), w, b), [(2, 3, 4), (4,), (4,)], 3),
    "rms norm": (lambda a, w: F.rms_norm(a, (4,), w), [(2, 3, 4), (4,)], 3),
    "batch norm": (lambda a, m, v: F.batch_norm(a, m, v.abs()), [(2, 3, 4), (3,), (3,)], 3),
    "group norm": (lambda a: F.group_norm(a, 2), [(2, 4, 5)], 2),
    "glu": (lambda a: F.glu(a, -1), [(3, 8)], 2),
    "softmax": (lambda a: a.softmax(-1), [(3, 4)], 1),
    "cumsum": (lambda a: a.cumsum(1), [(3, 4)], 1),
    "topk": (lambda a: a.topk(2, 1)[0], [(3, 4)], 1),
    "attention": (F.scaled_dot_product_attention, [(2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4)], 6),
    "grouped attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        [(2, 6, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4)],
        7,
    ),
    "embedding": (lambda w: F.embedding(torch.tensor([[1, 2], [0, 2]]), w), [(4, 5)], 1),
    "bag": (lambda w: F.embedding_bag(torch.tensor([[1, 2], [0, 2]]), w)[0], [(4, 5)], 1),
    "index": (lambda a: a[:, torch.tensor([0, 2, 1])], [(3, 4)], 1),
    "index of neighbours": (lambda a: a[:, [1, 2]] * a[:, [-1]], [(3, 4)], 2),
    "index put": (lambda a, b: a.clone().index_put_((torch.tensor([0, 2]),), b), [(3, 4), (2, 4)], 1),
    "grouped product": (
        lambda a, w: torch._grouped_mm(a, w, offs=torch.tensor([2, 6], dtype=torch.int32)),
        [(6, 4), (2, 4, 8)],
        2,
    ),
    "histogram": (lambda a: torch.histc(a, 3), [(4,)], 0),
    "index select": (lambda a: a.index_select(1, torch.tensor([0, 2])), [(3, 4)], 1),
    "gather": (lambda a: a.gather(1, torch.tensor([[0, 1], [1, 2], [3, 0]])), [(3, 4)], 0),
    "pad": (lambda a: F.pad(a, (1, 2)), [(3, 4)], 1),
    "pool": (lambda a: F.max_pool2d(a, 2), [(2, 3, 4, 4)], 2),
    "average pool": (lambda a: F.adaptive_avg_pool2d(a, 2), [(2, 3, 4, 4)], 2),
    "flatten after pool": (lambda a: F.adaptive_avg_pool2d(a, 1).flatten(1), [(2, 3, 4, 4)], 2),
    "ramp": (lambda a: a + torch.arange(4.0), [(3, 4)], 1),
    "no rule": (lambda a: torch.linalg.qr(a)[1], [(3, 3)], 0),
}


@pytest.mark.parametrize("case", CASES)
def test_permuting_a_free_atom_commutes_with_the_operator(case):
    function, shapes, expected = CASES[case]
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64).abs() for shape in shapes]
    if case in {"ramp", "batch norm", "grouped product"}:
        tensors = [tensor.float() for tensor in tensors]
    mode = Trace({f"input{i}": tensor for i, tensor in enumerate(tensors)})
    with torch.no_grad(), mode:
        outputs = [out for out in tree_leaves(function(*tensors)) if isinstance(out, torch.Tensor)]
    labels_in = [mode.book[tensor] for tensor in tensors]
    labels_out = [mode.book[out] for out in outputs]
    atoms = {a for labels in labels_in for label in labels for a in leaves(label) if not a.frozen}
    assert len(atoms) >= expected
    for atom in atoms:
        order = np.roll(np.arange(atom.size), 1)
        permuted = [shuffled(t, labels, atom, order) for t, labels in zip(tensors, labels_in, strict=True)]
        after = [out for out in tree_leaves(function(*permuted)) if isinstance(out, torch.Tensor)]
        for out, again, labels in zip(outputs, after, labels_out, strict=True):
            torch.testing.assert_close(again, shuffled(out, labels, atom, order))


def shuffled(tensor, labels, atom, order):
    for dim, label in enumerate(labels):
        unit = units(label).get(atom)
        if unit is not None:
            index = positions(unit, atom.size)
            source = np.arange(tensor.shape[dim])
            source[index] = index[order]
            tensor = tensor.index_select(dim, torch.from_numpy(source))
    return tensor


def test_every_rule_is_a_function_of_book_and_call():
    assert len(RULES) > 90 and all(callable(rule) for rule in RULES.values())
