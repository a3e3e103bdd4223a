"""What is done to an exported graph: it computes the same, and only what has the form is changed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from archsmith.cost.onnxgraph import flatten_heads, join_products, keep_apart, tune

HEAD = '<ir_version: 10, opset_import: ["" : 23]>'


def model(body: str, weights: dict[str, tuple[int, ...]], inputs: str = "float[B,L,8] x") -> onnx.ModelProto:
    """A graph with random weights of these shapes; `body` are nodes that make `y`."""
    rng = np.random.default_rng(0)
    made = onnx.parser.parse_model(f"{HEAD} g ({inputs}) => (float[B,L,d] y) {{ {body} }}")
    made.graph.initializer.extend(
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in weights.items()
    )
    shapes = {
        "split4": [0, 0, 2, 4],
        "join": [0, 0, 8],
        "whole": [0, -1, 8],
        "tokens": [-1, 8],
        "back": [2, -1, 8],
        "chunk": [-1, 1, 2, 4],
    }
    made.graph.initializer.extend(
        numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in shapes.items() if name in body
    )
    inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(made)
    return inferred


def run(made: onnx.ModelProto, length: int = 5) -> np.ndarray:
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((2, length, 8)).astype(np.float32)
    output: np.ndarray = session.run(None, {"x": x})[0]
    return output


def tuned(made: onnx.ModelProto, *steps: object) -> tuple[onnx.ModelProto, Counter[str]]:
    """The graph after the steps, with its numbers of nodes; it must compute what it did."""
    graph = ir.from_proto(made)
    for step in steps:
        step(graph)  # type: ignore[operator]
    found = ir.to_proto(graph)
    onnx.checker.check_model(found)
    for length in (1, 5):
        np.testing.assert_allclose(run(found, length), run(made, length), rtol=1e-5, atol=1e-5)
    return found, Counter(node.op_type for node in found.graph.node)


ATTENTION = """
    qm = MatMul(x, wq) qa = Add(qm, bq) km = MatMul(x, wk) ka = Add(bk, km) vm = MatMul(x, wv) va = Add(vm, bv)
    q4 = Reshape(qa, split4) k4 = Reshape(ka, split4) v4 = Reshape(va, split4)
    q = Transpose<perm = [0, 2, 1, 3]>(q4) k = Transpose<perm = [0, 2, 1, 3]>(k4) v = Transpose<perm = [0, 2, 1, 3]>(v4)
    a = Attention(q, k, v) t = Transpose<perm = [0, 2, 1, 3]>(a) m = Reshape(t, join)
    o = MatMul(m, wo) s = Add(o, x) y = LayerNormalization(s, scale)
"""
WEIGHTS = dict.fromkeys(("wq", "wk", "wv", "wo"), (8, 8)) | dict.fromkeys(("bq", "bk", "bv", "scale"), (8,))


def test_a_block_of_attention_becomes_few_nodes() -> None:
    _, kinds = tuned(model(ATTENTION, WEIGHTS), tune)
    assert kinds == {"MatMul": 2, "Add": 1, "Split": 1, "Attention": 1, "Sum": 1, "LayerNormalization": 1}


def test_heads_are_told_by_their_number() -> None:
    found, kinds = tuned(model(ATTENTION, WEIGHTS), flatten_heads)
    attention = next(node for node in found.graph.node if node.op_type == "Attention")
    assert {a.name: a.i for a in attention.attribute} == {"q_num_heads": 2, "kv_num_heads": 2}
    assert kinds["Transpose"] == kinds["Reshape"] == 0


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("p = MatMul(x, w) a = Add(p, b) q = MatMul(x, v) c = Add(q, p) y = Add(a, c)", {}),  # a product read twice
        ("p = MatMul(x, w) a = Add(p, one) q = MatMul(x, v) c = Add(q, one) y = Add(a, c)", {"one": (1,)}),  # spread
        ("p = MatMul(x, w) a = Add(p, b) z = Relu(x) q = MatMul(z, v) c = Add(q, b) y = Add(a, c)", {}),  # two inputs
        ("p = MatMul(x, w) q = MatMul(x, v) y = Add(p, q)", {}),  # no bias
    ],
)
def test_other_products_stay_as_they_are(body: str, weights: dict[str, tuple[int, ...]]) -> None:
    made = model(body, {"w": (8, 8), "v": (8, 8), "b": (8,)} | weights)
    _, kinds = tuned(made, join_products)
    assert kinds["MatMul"] == 2
    assert kinds["Split"] == 0


def test_products_of_different_widths_are_joined() -> None:
    body = "p = MatMul(x, w) a = Add(p, b) q = MatMul(x, v) c = Add(q, d) y = Concat<axis = 2>(a, c)"
    _, kinds = tuned(model(body, {"w": (8, 3), "b": (3,), "v": (8, 6), "d": (6,)}), join_products)
    assert kinds == {"MatMul": 1, "Add": 1, "Split": 1, "Concat": 1}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("v = Transpose<perm = [0, 2, 1, 3]>(v4)", "v5 = Transpose<perm = [0, 2, 1, 3]>(v4) v = Relu(v5)"),
        ("m = Reshape(t, join)", "r = Relu(t) m = Reshape(r, join)"),
    ],
)
def test_heads_that_something_else_comes_between_stay(old: str, new: str) -> None:
    _, kinds = tuned(model(ATTENTION.replace(old, new), WEIGHTS), flatten_heads)
    assert kinds["Transpose"] == 4


def test_heads_that_are_merged_with_the_batch_stay() -> None:
    """As GPT-2's export has it: its linear layers see (B * L, N * H)."""
    body = ATTENTION.replace("m = Reshape(t, join)", "m = Reshape(t, tokens)")
    body = body.replace("o = MatMul(m, wo)", "p = MatMul(m, wo) o = Reshape(p, back)")
    _, kinds = tuned(model(body, WEIGHTS), tune)
    assert kinds["Transpose"] == 4


def test_a_sequence_in_chunks_stays() -> None:
    body = ATTENTION.replace("split4", "chunk").replace("join", "back")
    _, kinds = tuned(model(body, WEIGHTS), flatten_heads)
    assert kinds["Transpose"] == 4


def test_dimensions_in_another_order_are_not_heads() -> None:
    body = ATTENTION
    for name in "qkv":
        body = body.replace(f"[0, 2, 1, 3]>({name}4)", f"[0, 1, 2, 3]>({name}4)")
    body = body.replace("join", "whole")
    _, kinds = tuned(model(body, WEIGHTS), flatten_heads)
    assert kinds["Transpose"] == 4


def test_only_additions_before_a_norm_are_sums() -> None:
    body = "a = Add(x, b) r = Add(a, x) n = LayerNormalization(r, scale) y = Add(n, b)"
    _, kinds = tuned(model(body, {"b": (8,), "scale": (8,)}), keep_apart)
    assert (kinds["Sum"], kinds["Add"]) == (1, 2)
