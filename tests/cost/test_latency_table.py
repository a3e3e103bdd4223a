"""The latency model: exact where latency is what it assumes, monotone always, plain data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.cost import Curve, LatencyModel, Probe, fit_latency
from archsmith.errors import BadInput


def true_ms(heads: tuple[float, ...], ffn: tuple[float, ...], residual: float = 1.0) -> float:
    """A latency of the assumed form: base, layers, heads, feed-forward, each constant plus residual width."""
    return (
        0.4
        + 0.3 * residual
        + len(heads) * (0.2 + 0.1 * residual)
        + sum(heads) * (0.05 + 0.15 * residual)
        + sum(ffn) * (0.0002 + 0.002 * residual)
    )


def probe(heads: tuple[float, ...], ffn: tuple[float, ...], residual: float = 1.0) -> Probe:
    widths = {"heads": heads, "ffn": ffn, "layer": (1.0,) * len(heads)}
    return Probe(widths, true_ms(heads, ffn, residual), residual)


def alike(layers: int, heads: float, ffn: float, residual: float = 1.0) -> Probe:
    return probe((heads,) * layers, (ffn,) * layers, residual)


FIVE = [alike(6, 12, 1536), alike(1, 12, 1536), alike(6, 2, 1536), alike(6, 12, 128), alike(6, 2, 128)]
NARROW = [alike(6, 12, 1536, 0.4), alike(1, 12, 1536, 0.4), alike(6, 2, 1536, 0.4), alike(6, 12, 128, 0.4)]


def test_five_probes_predict_every_mixture() -> None:
    model = fit_latency(FIVE)
    rng = np.random.default_rng(0)
    for _ in range(30):
        layers = int(rng.integers(1, 7))
        heads = tuple(rng.integers(2, 13, layers).astype(float))
        ffn = tuple(rng.integers(1, 13, layers) * 128.0)
        expected = true_ms(heads, ffn)
        assert model.predict(probe(heads, ffn).widths) == pytest.approx(expected, rel=0.01)


def test_nine_probes_predict_other_residual_widths() -> None:
    model = fit_latency([*FIVE, *NARROW])
    for residual in (0.3, 0.5, 0.75, 1.0):
        mixed = probe((3.0, 12.0, 7.0), (512.0, 1536.0, 128.0), residual)
        assert model.predict(mixed.widths, residual) == pytest.approx(mixed.ms, rel=0.02)


def test_a_bend_is_followed_where_a_probe_shows_it() -> None:
    def bent(width: float) -> float:
        return 1.0 + (0.1 * width if width <= 50 else 5.0 + 0.2 * (width - 50))

    probes = [Probe({"ffn": (w,) * n}, 0.5 + n * bent(w)) for n, w in [(4, 10), (1, 10), (4, 50), (4, 100), (1, 100)]]
    model = fit_latency(probes)
    for width in (10, 30, 50, 75, 100):
        assert model.predict({"ffn": (width, width)}) == pytest.approx(0.5 + 2 * bent(width), rel=0.08)


def test_noise_of_one_percent_costs_about_one_percent() -> None:
    rng = np.random.default_rng(5)
    noisy = [Probe(p.widths, p.ms * (1 + 0.01 * rng.standard_normal()), p.residual) for p in [*FIVE, *NARROW]]
    model = fit_latency(noisy)
    errors = []
    for _ in range(50):
        layers = int(rng.integers(2, 7))
        mixed = probe(tuple(rng.integers(2, 13, layers) * 1.0), tuple(rng.integers(1, 13, layers) * 128.0))
        errors.append(abs(model.predict(mixed.widths) / mixed.ms - 1))
    assert np.median(errors) < 0.015 and max(errors) < 0.05
    assert 0 < model.typical_error < 0.3


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 50)), min_size=1),
    st.floats(0.1, 12),
    st.floats(0.1, 12),
)
@settings(max_examples=60, deadline=None)
def test_more_width_is_never_predicted_faster(
    rows: list[tuple[int, int, int, float]], one: float, other: float
) -> None:
    probes = [Probe({"heads": (float(h),) * n, "ffn": (float(f),) * n}, ms) for n, h, f, ms in rows]
    model = fit_latency(probes)
    low, high = sorted((one, other))
    assert model.predict({"heads": (low,)}) <= model.predict({"heads": (high,)}) + 1e-9
    assert 0 <= model.predict({"ffn": ()}) <= model.predict({"ffn": (low,)}) + 1e-9


def test_prediction_is_the_sum_of_base_and_blocks() -> None:
    model = fit_latency([*FIVE, *NARROW])
    blocks = model.block_ms("heads", 5, 0.5) + model.block_ms("ffn", 300, 0.5) + model.block_ms("layer", 1, 0.5)
    assert model.predict(probe((5,), (300,)).widths, 0.5) == pytest.approx(model.base[0] + model.base[1] / 2 + blocks)


def test_a_skipped_block_costs_nothing() -> None:
    assert Curve((1.0, 12.0), (0.5, 3.0), (0.0, 0.0)).at(0) == 0.0


def test_json_gives_the_same_model_back() -> None:
    model = fit_latency([*FIVE, *NARROW], {"runtime": "openvino", "batch": 1})
    again = LatencyModel.from_json(json.loads(json.dumps(model.to_json())))
    assert again == model
    assert again.setting["runtime"] == "openvino"


def test_a_slower_machine_scales_everything() -> None:
    model = fit_latency(FIVE)
    widths = alike(3, 7, 900).widths
    assert model.scaled(2.5).predict(widths) == pytest.approx(2.5 * model.predict(widths))


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (lambda: fit_latency([]), "at least one timed network"),
        (lambda: fit_latency([Probe({}, 0.0)]), "more than 0 ms"),
        (lambda: fit_latency([Probe({}, float("nan"))]), "more than 0 ms"),
        (lambda: LatencyModel.from_json({"base": [1]}), "a latency model is JSON"),
        (lambda: LatencyModel((0, 0), {}).predict({"heads": (1,)}), "knows the groups"),
    ],
)
def test_bad_input_names_the_law(broken: object, law: str) -> None:
    with pytest.raises(BadInput, match=law):
        broken()  # type: ignore[operator]
