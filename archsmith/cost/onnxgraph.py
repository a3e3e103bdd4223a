"""An exported ONNX graph as ONNX Runtime's CPU kernels run it fastest; what it computes stays the same.

Each function changes the graph in place, and leaves alone what does not have the form that it looks for.
B: batch, L: length, N: heads, H: width of a head.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

HEADS_FIRST = [0, 2, 1, 3]  # (B, L, N, H) <-> (B, N, L, H)


def tune(model: ir.Model) -> None:
    """All of them."""
    join_products(model)
    flatten_heads(model)
    keep_apart(model)


def keep_apart(model: ir.Model) -> None:
    """Write residual additions before a norm as `Sum`.

    ONNX Runtime fuses `Add` and the norm after it into a kernel that takes three times as long as the two.
    """
    for node in model.graph:
        if node.op_type == "Add" and any(
            use.node.op_type == "LayerNormalization" and use.idx == 0 for use in node.outputs[0].uses()
        ):
            node.op_type = "Sum"


def flatten_heads(model: ir.Model) -> None:
    """Give `Attention` its queries, keys and values as (B, L, N * H), as it takes them too, and not transposed."""
    for node in list(model.graph):
        if node.op_type != "Attention" or len(node.outputs) != 1 or len(node.inputs) > 4:
            continue
        flat = [_unsplit(value) for value in node.inputs[:3]]
        after = _only_user(node.outputs[0], "Transpose")
        merged = None if after is None else _only_user(after.outputs[0], "Reshape")
        if after is None or merged is None or _perm(after) != HEADS_FIRST or not all(flat):
            continue
        heads = [found[1] for found in flat if found]
        if heads[1] != heads[2] or not _merges_heads(after.outputs[0], merged.outputs[0]):
            continue
        for index, found in enumerate(flat):
            node.replace_input_with(index, found[0] if found else None)
        node.attributes["q_num_heads"] = ir.AttrInt64("q_num_heads", heads[0])
        node.attributes["kv_num_heads"] = ir.AttrInt64("kv_num_heads", heads[1])
        node.outputs[0].shape = merged.outputs[0].shape
        ir.convenience.replace_all_uses_with(merged.outputs[0], node.outputs[0], replace_graph_outputs=True)
        model.graph.remove([merged, after], safe=True)
    _remove_unused(model)


def _unsplit(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """(B, N, L, H) made from (B, L, N * H) -> the latter and N; None where it was not made so."""
    transpose = value.producer() if value is not None else None
    if transpose is None or transpose.op_type != "Transpose" or _perm(transpose) != HEADS_FIRST:
        return None
    split = transpose.inputs[0]
    reshape = split.producer() if split is not None else None
    if split is None or reshape is None or reshape.op_type != "Reshape" or split.shape is None:
        return None
    flat = reshape.inputs[0]
    if flat is None or not _merges_heads(split, flat) or not isinstance(split.shape[2], int):
        return None
    return flat, split.shape[2]


def _merges_heads(split: ir.Value, flat: ir.Value) -> bool:
    """Whether the shapes are (B, L, N, H) and (B, L, N * H), and no other division of the same numbers."""
    if split.shape is None or flat.shape is None or len(split.shape) != 4 or len(flat.shape) != 3:
        return False
    batch, length, heads, width = split.shape
    whole = flat.shape[2]
    counted = isinstance(heads, int) and isinstance(width, int) and isinstance(whole, int)
    return counted and heads * width == whole and [batch, length] == list(flat.shape)[:2]


def join_products(model: ir.Model) -> None:
    """Linear layers that read the same value, such as queries, keys and values, as one product that is split.

    A layer is a `MatMul` with a weight and an `Add` of a bias after it.
    """
    readers: dict[ir.Value, list[tuple[ir.Node, ir.Node]]] = {}
    for node in model.graph:
        add = _only_user(node.outputs[0], "Add") if node.op_type == "MatMul" else None
        source = node.inputs[0]
        if add is None or source is None:
            continue
        weight, bias = _array(node.inputs[1], 2), _array(_bias(add), 1)
        if weight is not None and bias is not None and len(bias) == weight.shape[1]:
            readers.setdefault(source, []).append((node, add))
    for source, layers in readers.items():
        if len(layers) > 1:
            _join(model, source, layers)
    _remove_unused(model)


def _join(model: ir.Model, source: ir.Value, layers: list[tuple[ir.Node, ir.Node]]) -> None:
    weights = [_array(product.inputs[1], 2) for product, _ in layers]
    biases = [_array(_bias(add), 1) for _, add in layers]
    name = layers[0][1].outputs[0].name
    weight = _constant(model, f"{name}.joined.weight", np.concatenate([w for w in weights if w is not None], axis=1))
    bias = _constant(model, f"{name}.joined.bias", np.concatenate([b for b in biases if b is not None]))
    sizes = _constant(model, f"{name}.joined.sizes", np.array([len(b) for b in biases if b is not None], np.int64))
    product = ir.node("MatMul", [source, weight])
    add = ir.node("Add", [product.outputs[0], bias])
    split = ir.node("Split", [add.outputs[0], sizes], {"axis": -1}, num_outputs=len(layers))
    for kind, node in (("product", product), ("sum", add)):
        node.outputs[0].name = f"{name}.joined.{kind}"
        node.outputs[0].type = layers[0][1].outputs[0].type
    model.graph.insert_before(layers[0][0], [product, add, split])
    for (_, old), new in zip(layers, split.outputs, strict=True):
        before = old.outputs[0]
        new.name, new.shape, new.type = f"{before.name}.part", before.shape, before.type
        ir.convenience.replace_all_uses_with(before, new, replace_graph_outputs=True)


def _constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    model.graph.register_initializer(value)
    return value


def _array(value: ir.Value | None, dimensions: int) -> np.ndarray | None:
    """The numbers of a weight of so many dimensions; None of anything else."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    array = np.asarray(value.const_value.numpy())
    return array if array.ndim == dimensions else None


def _bias(add: ir.Node) -> ir.Value | None:
    """The input of an addition that is a vector of constants."""
    return next((value for value in add.inputs if _array(value, 1) is not None), None)


def _only_user(value: ir.Value, kind: str) -> ir.Node | None:
    users = [use.node for use in value.uses()]
    alone = len(users) == 1 and users[0].op_type == kind and not value.is_graph_output()
    return users[0] if alone else None


def _perm(transpose: ir.Node) -> list[int]:
    return list(transpose.attributes["perm"].as_ints()) if "perm" in transpose.attributes else []


def _remove_unused(model: ir.Model) -> None:
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
