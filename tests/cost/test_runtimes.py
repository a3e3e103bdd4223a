"""One suite that every runtime passes: what it exports computes what PyTorch computes, at any batch and length."""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from archsmith.cost import RUNTIMES, Artifact, OnnxRuntime, OpenVINO, PyTorch, Runtime, agree, arrays, resize
from archsmith.cost.cpu import lacks_bf16
from archsmith.cost.memory import serving_peak
from archsmith.errors import BadInput

DYNAMIC = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
SHAPES = ((1, 11), (1, 1), (3, 2), (2, 64), (5, 40))


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 5)

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(pixel_values))
        return logits


FUSED: dict[str, Callable[[], nn.Module]] = {
    "one key head for many": lambda: transformers.FalconForCausalLM(
        transformers.FalconConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    ),
    "experts": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=96,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=4,
        )
    ),
}


@pytest.mark.parametrize("name", FUSED)
def test_what_the_converter_does_not_know_is_exported_in_plain_products(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = FUSED[name]().eval()
    before = model.config.to_dict() | {"attention": model.config._attn_implementation}  # type: ignore[union-attr,operator]
    ids = torch.randint(3, 90, (2, 11))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    runtime = OnnxRuntime()
    artifact = runtime.export(Logits(model), inputs, DYNAMIC, tmp_path)
    session = runtime.open(artifact)
    assert agree(Logits(model), session, [inputs, {k: v[:1, :7] for k, v in inputs.items()}]) < 1e-5
    after = model.config.to_dict() | {"attention": model.config._attn_implementation}  # type: ignore[union-attr,operator]
    assert after == before


def usable(name: str) -> Runtime:
    runtime = RUNTIMES[name]()
    reason = runtime.available()
    if reason is not None:
        pytest.skip(reason)
    return runtime


@pytest.fixture(scope="module")
def bert(tiny: Callable[..., Any]) -> tuple[nn.Module, Mapping[str, Tensor]]:
    model, inputs = tiny("bert", num_hidden_layers=1)
    return Logits(model).eval(), inputs


@pytest.fixture(scope="module", params=list(RUNTIMES))
def exported(
    request: pytest.FixtureRequest, bert: tuple[nn.Module, Mapping[str, Tensor]], tmp_path_factory: Any
) -> tuple[Runtime, Artifact]:
    """Exported from an example of batch 1: sizes of one must not be baked in."""
    runtime = usable(request.param)
    wrapped, inputs = bert
    one = {name: tensor[:1] for name, tensor in inputs.items()}
    return runtime, runtime.export(wrapped, one, DYNAMIC, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_export_agrees_with_pytorch_at_every_shape(
    shape: tuple[int, int], exported: tuple[Runtime, Artifact], bert: tuple[nn.Module, Mapping[str, Tensor]]
) -> None:
    runtime, artifact = exported
    wrapped, inputs = bert
    example = resize(inputs, DYNAMIC, dict(zip(("batch", "length"), shape, strict=True)))
    assert artifact.precision == "fp32" and artifact.fixed is None and artifact.runtime == runtime.name
    assert agree(wrapped, runtime.open(artifact), [example]) < 1e-4


def test_padding_is_masked_in_the_export(
    exported: tuple[Runtime, Artifact], bert: tuple[nn.Module, Mapping[str, Tensor]]
) -> None:
    runtime, artifact = exported
    wrapped, inputs = bert
    example = {name: tensor.clone() for name, tensor in inputs.items()}
    example["attention_mask"][0, 6:] = 0
    session = runtime.open(artifact)
    assert agree(wrapped, session, [example]) < 1e-4
    assert np.abs(session(arrays(example))[0] - session(arrays(inputs))[0]).max() > 1e-4


def test_a_fixed_shape_computes_the_same(
    exported: tuple[Runtime, Artifact], bert: tuple[nn.Module, Mapping[str, Tensor]]
) -> None:
    runtime, artifact = exported
    wrapped, inputs = bert
    example = resize(inputs, DYNAMIC, {"batch": 2, "length": 16})
    assert agree(wrapped, runtime.open(replace(artifact, fixed=(2, 16))), [example]) < 1e-4


def test_inputs_that_the_file_does_not_take_are_ignored_by_file_runtimes(
    exported: tuple[Runtime, Artifact], bert: tuple[nn.Module, Mapping[str, Tensor]]
) -> None:
    runtime, artifact = exported
    if runtime.name == "pytorch":
        pytest.skip("a module takes its own keywords only")
    given = arrays(bert[1])
    more = {**given, "token_type_ids": np.zeros_like(given["input_ids"])}
    assert np.array_equal(runtime.open(artifact)(more), runtime.open(artifact)(given))


@pytest.mark.parametrize("name", list(RUNTIMES))
def test_images_keep_their_size_and_open_only_the_batch(name: str, tmp_path: Path) -> None:
    runtime = usable(name)
    wrapped, pixels = Pixels().eval(), torch.randn(1, 3, 8, 8)
    artifact = runtime.export(wrapped, {"pixel_values": pixels}, {"pixel_values": {0: "batch"}}, tmp_path)
    examples = [{"pixel_values": torch.randn(batch, 3, 8, 8)} for batch in (1, 2, 7)]
    assert agree(wrapped, runtime.open(artifact), examples) < 1e-4


class Whole(nn.Module):
    """Takes all of an input, by a slice that does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        last = x[:, -1]
        out: Tensor = (x - last[:, None]).flatten(1) + last.repeat(1, x.shape[1])
        return out


class Next(nn.Module):
    """Gives a number for every token but the first."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 9)

    def forward(self, input_ids: Tensor) -> Tensor:
        log_p = self.table(input_ids)[:, :-1].log_softmax(-1)
        out: Tensor = log_p.gather(-1, input_ids[:, 1:, None])[..., 0]
        return out


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_inputs_keep_their_names_and_a_row_may_be_one_shorter_than_its_input(name: str, tmp_path: Path) -> None:
    runtime = usable(name)
    x, ids = torch.randn(2, 5, 3), torch.randint(9, (2, 7))
    artifact = runtime.export(Whole(), {"x": x}, {"x": {0: "batch"}}, tmp_path / "whole")
    assert agree(Whole(), runtime.open(artifact), [{"x": x}, {"x": x[:1]}]) < 1e-5
    module = Next().eval()
    artifact = runtime.export(module, {"input_ids": ids}, {"input_ids": DYNAMIC["input_ids"]}, tmp_path / "next")
    assert agree(module, runtime.open(artifact), [{"input_ids": ids}, {"input_ids": ids[:1, :4]}]) < 1e-5


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_file_that_is_not_one_is_refused(name: str, tmp_path: Path) -> None:
    runtime = usable(name)
    broken = tmp_path / ("model.onnx" if name == "onnxruntime" else "model.xml")
    broken.write_bytes(b"not a model")
    with pytest.raises(BadInput, match="read"):
        runtime.open(Artifact(name, "fp32", broken))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_what_cannot_be_exported_is_refused_with_a_way_out(name: str, tmp_path: Path) -> None:
    class Refuses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    with pytest.raises(BadInput, match="Use the runtime pytorch"):
        usable(name).export(Refuses(), {"x": torch.zeros(2, 3)}, {"x": {0: "batch"}}, tmp_path)


def test_pytorch_needs_a_live_module_or_a_loader(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no live module and no loader"):
        PyTorch().open(Artifact("pytorch", "fp32", tmp_path))
    loaded = PyTorch(load=lambda folder: Pixels()).open(Artifact("pytorch", "fp32", tmp_path))
    assert loaded({"pixel_values": np.zeros((2, 3, 8, 8), np.float32)}).shape == (2, 5)


def test_pytorch_bf16_leaves_the_module_in_fp32(tmp_path: Path) -> None:
    wrapped, pixels = Pixels().eval(), {"pixel_values": torch.randn(2, 3, 8, 8)}
    runtime = PyTorch()
    artifact = runtime.export(wrapped, pixels, {}, tmp_path)
    lowered = runtime.open(replace(artifact, precision="bf16"))
    assert 0 < agree(wrapped, lowered, [pixels]) < 0.05
    assert {p.dtype for p in wrapped.parameters()} == {torch.float32}
    with pytest.raises(BadInput, match="fp32 or bf16"):
        runtime.open(replace(artifact, precision="int8"))


def test_a_session_puts_the_number_of_threads_back(tmp_path: Path) -> None:
    runtime, before = PyTorch(), torch.get_num_threads()
    wrapped = Pixels().eval()
    artifact = runtime.export(wrapped, {}, {}, tmp_path)
    runtime.open(artifact, threads=before + 1)({"pixel_values": np.zeros((1, 3, 8, 8), np.float32)})
    assert torch.get_num_threads() == before


def test_bf16_is_offered_only_where_the_cpu_computes_in_it(tmp_path: Path) -> None:
    runtime = OpenVINO()
    if runtime.available() is not None:
        pytest.skip(str(runtime.available()))
    from archsmith.cost.openvino import compile_artifact, runtime_precisions

    artifact = runtime.export(
        Pixels().eval(), {"pixel_values": torch.zeros(2, 3, 8, 8)}, {"pixel_values": {0: "batch"}}, tmp_path
    )
    nodes: Counter[str] = runtime_precisions(compile_artifact(replace(artifact, precision="bf16")))
    assert nodes["f32"] + nodes["bf16"] > 0
    reason = runtime.precisions()["bf16"]
    assert (reason is None) == bool(nodes["bf16"])
    assert PyTorch().precisions()["bf16"] == lacks_bf16()
    assert "bf16" in str(OnnxRuntime().precisions()["bf16"])


@pytest.mark.parametrize(("name", "package"), [("openvino", "openvino"), ("onnxruntime", "onnxruntime")])
def test_an_absent_package_is_a_reason_not_a_crash(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(module: str, *rest: Any, **named: Any) -> Any:
        if module.split(".")[0] == package:
            raise ImportError(f"No module named {package!r}")
        return real(module, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert package in str(RUNTIMES[name]().available())


def test_a_served_file_reports_its_memory(bert: tuple[nn.Module, Mapping[str, Tensor]], tmp_path: Path) -> None:
    wrapped, inputs = bert
    artifact = usable("onnxruntime").export(wrapped, inputs, DYNAMIC, tmp_path)
    held = np.ones(10**9, dtype=np.uint8)  # what this process holds is none of the other's
    assert 1e6 < serving_peak(artifact, arrays(inputs)) < 5e8 and held[-1] == 1
    with pytest.raises(BadInput, match="process of its own"):
        serving_peak(replace(artifact, path=tmp_path / "none.onnx"), arrays(inputs))


def test_a_deviation_is_found_where_there_is_one() -> None:
    wrapped, example = nn.Identity(), {"input": torch.ones(2, 2)}
    cases: list[tuple[np.ndarray, float]] = [
        (np.ones((2, 2)), 0.0),
        (np.full((2, 2), 1.25), 0.25),
        (np.array([[1, 1], [1, np.nan]]), float("inf")),
        (np.ones((2, 3)), float("inf")),
    ]
    for output, expected in cases:
        assert agree(wrapped, lambda _, output=output: output, [example]) == expected


def test_attention_is_one_node_and_no_addition_is_fused_into_a_norm(
    bert: tuple[nn.Module, Mapping[str, Tensor]], tmp_path: Path
) -> None:
    """ONNX Runtime's kernel for `Add` with a norm takes three times as long as the two apart."""
    import onnx
    import onnxruntime

    wrapped, inputs = bert
    artifact = OnnxRuntime().export(wrapped, inputs, DYNAMIC, tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as-run.onnx")
    onnxruntime.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])
    run = Counter(node.op_type for node in onnx.load(str(tmp_path / "as-run.onnx")).graph.node)
    assert run["Attention"] == 1
    assert run["SkipLayerNormalization"] == run["Softmax"] == 0
    assert run["LayerNormalization"] == 3  # of the embeddings, of attention, of the feed-forward block


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_decoders_agree_at_other_shapes(family: str, tiny: Callable[..., Any], tmp_path: Path) -> None:
    """GPT-2 merges heads with the batch; Qwen2 has rotary positions and shares keys among heads."""
    made = tiny(family, num_hidden_layers=1)
    wrapped = Main(made.model).eval()
    inputs = {name: made.inputs[name] for name in DYNAMIC}
    artifact = OnnxRuntime().export(wrapped, inputs, DYNAMIC, tmp_path)
    session = OnnxRuntime().open(artifact)
    shapes = [{"batch": batch, "length": length} for batch, length in SHAPES]
    assert agree(wrapped, session, [resize(inputs, DYNAMIC, shape) for shape in shapes]) < 1e-4


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("family", ["distilbert", "roberta", "deberta-v2", "modernbert", "mpnet"])
def test_encoders_agree_at_other_shapes_and_with_padding(
    family: str, name: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """Relative positions, local attention, positions counted from the mask: none may be baked in by the export."""
    layers = "n_layers" if family == "distilbert" else "num_hidden_layers"
    made = tiny(family, **{layers: 1}, max_position_embeddings=80)
    wrapped, inputs = Main(made.model).eval(), {key: made.inputs[key] for key in DYNAMIC}
    session = usable(name).open(usable(name).export(wrapped, inputs, DYNAMIC, tmp_path))
    shapes = [{"batch": batch, "length": length} for batch, length in SHAPES]
    padded = {key: tensor.clone() for key, tensor in inputs.items()}
    padded["attention_mask"][0, 6:] = 0
    assert agree(wrapped, session, [padded, *(resize(inputs, DYNAMIC, shape) for shape in shapes)]) < 1e-4


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_vision_transformer_agrees_at_other_batches(name: str, tiny: Callable[..., Any], tmp_path: Path) -> None:
    class Image(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Tensor) -> Tensor:
            logits: Tensor = self.model(pixel_values=pixel_values).logits
            return logits

    made = tiny("vit", num_hidden_layers=1)
    wrapped, runtime = Image(made.model).eval(), usable(name)
    session = runtime.open(runtime.export(wrapped, made.inputs, {"pixel_values": {0: "batch"}}, tmp_path))
    examples = [{"pixel_values": torch.randn(batch, 3, 16, 16)} for batch in (1, 2, 5)]
    assert agree(wrapped, session, examples) < 1e-4


def test_an_encoder_with_its_decoder_agrees_at_other_lengths(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """T5: relative positions in both halves, and attention across lengths of their own.

    In OpenVINO alone: torch.export guards that the two lengths differ, and gives up on them as open dimensions.
    """

    class Both(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
            logits: Tensor = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                decoder_input_ids=decoder_input_ids,
                use_cache=False,
            ).logits
            return logits

    made = tiny("t5", num_layers=1)
    dynamic = {**DYNAMIC, "decoder_input_ids": {0: "batch", 1: "target"}}
    wrapped, runtime = Both(made.model).eval(), usable("openvino")
    session = runtime.open(runtime.export(wrapped, made.inputs, dynamic, tmp_path))
    shapes = [
        {"batch": b, "length": length, "target": target} for b, length, target in ((1, 9, 1), (3, 2, 7), (2, 40, 5))
    ]
    assert agree(wrapped, session, [resize(made.inputs, dynamic, shape) for shape in shapes]) < 1e-4


class Main(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask)[0]
        return output
