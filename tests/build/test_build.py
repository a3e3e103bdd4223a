"""The language of declared networks: what becomes a choice, what is refused, and what is said then."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.build import Declared, Signal, network, planned
from archsmith.build.layers import Bag, texts_with
from archsmith.errors import BadInput
from archsmith.space import Choice, Condition

PICTURE, TOKENS = Signal((3, 16, 16)), Signal((12,), tokens=True)
OP = {"pick": "$op", "of": {"conv": {"conv": {"out": "in"}}, "skip": "skip"}}


def test_the_example_of_the_page_is_a_space_and_its_points_networks() -> None:
    declared = Declared.from_json(
        {
            "choices": {"depth": [1, 2, 3], "width": [16, 32], "op": ["plain", "separable"]},
            "network": [
                {"conv": {"out": "$width", "kernel": 3}},
                "relu",
                {"repeat": "$depth", "name": "layer", "of": {"residual": [
                    {"pick": "$op", "of": {"plain": {"conv": {"out": "in"}}, "separable": {"separable": {"out": "in"}}}
                     }, "batch_norm"]}},
                "mean",
                {"linear": {"out": "$classes"}},
            ],
        }
    )  # fmt: skip
    assert dict(declared.space.choices) == {
        "width": Choice([16, 32]),
        "depth": Choice([1, 2, 3]),
        "layer0.op": Choice(["plain", "separable"]),
        "layer1.op": Choice(["plain", "separable"], Condition("depth", [2, 3])),
        "layer2.op": Choice(["plain", "separable"], Condition("depth", [3])),
    }
    assert declared.needs == {"classes"} and declared.space.size == 2 * (2 + 4 + 8)
    for point in declared.space.points():
        plan = planned(declared.static(point, {"classes": 4}), PICTURE)
        assert network(plan)(torch.randn(2, 3, 16, 16)).shape == (2, 4)


def test_a_choice_in_copies_without_a_name_is_one_choice() -> None:
    shared = Declared({"depth": [1, 2], "op": ["conv", "skip"]}, [{"repeat": "$depth", "of": OP}])
    assert dict(shared.space.choices) == {"depth": Choice([1, 2]), "op": Choice(["conv", "skip"])}
    assert shared.static({"depth": 2, "op": "skip"}, {}) == [[{"picked": ["skip", "skip"]}] * 2]


def test_a_choice_below_a_pick_is_active_where_it_counts() -> None:
    kernel = {"conv": {"out": "in", "kernel": "$kernel"}}
    choices = {"op": ["conv", "wide", "skip"], "kernel": [3, 5]}
    wide = [kernel, kernel]
    declared = Declared(choices, {"pick": "$op", "of": {"conv": kernel, "wide": wide, "skip": "skip"}})
    assert declared.space.choices["kernel"].when == Condition("op", ["conv", "wide"])
    both = Declared(choices, [kernel, {"pick": "$op", "of": {"conv": kernel, "wide": wide, "skip": "skip"}}])
    assert both.space.choices["kernel"].when is None


def test_an_absolute_name_is_the_choice_outside() -> None:
    layer = [{"linear": {"out": "$/width"}}, {"linear": {"out": "$width"}}, {"linear": {"out": "in*$width"}}]
    declared = Declared({"width": [4, 8]}, {"scope": "block", "of": layer})
    assert list(declared.space.choices) == ["width", "block.width"]
    static = declared.static({"width": 4, "block.width": 8}, {})
    assert static == [{"linear": {"out": 4}}, {"linear": {"out": 8}}, {"linear": {"out": "in*8"}}]
    assert planned(static, Signal((5,))).gives == Signal((64,))


@pytest.mark.parametrize("join", [None, "add"])
@pytest.mark.parametrize("kind", ["residual", "add", "concat"])
def test_a_node_may_hold_a_join_of_its_own(kind: str, join: str | None) -> None:
    part: Any = {"conv": {"out": "in"}}
    node = {"name": "a", "from": ["in"], "of": {kind: part if kind == "residual" else [part, "skip"]}}
    plan = planned({"graph": {"nodes": [node | ({"join": join} if join else {})]}}, PICTURE)
    assert network(plan)(torch.randn(2, 3, 16, 16)).shape == (2, *plan.gives.shape)


def test_constraints_are_those_of_the_choices() -> None:
    forbidden = {"kind": "forbidden", "values": {"a": 3, "b": 3}}
    data = {"choices": {"a": [3, 5], "b": [3, 5]}, "constraints": [forbidden],
            "network": [{"conv": {"out": "in", "kernel": "$a"}}, {"conv": {"out": "in", "kernel": "$b"}}]}  # fmt: skip
    assert len(list(Declared.from_json(data).space.points())) == 3


WRONG: list[Any] = [
    {"choices": ["a"], "network": []},
    {"choices": {"a": "abc"}, "network": [{"conv": {"out": "$a"}}]},
    {"choices": {"a": 3}, "network": []},
    {"choices": {"a": [1, 2]}, "network": {"pick": "$a"}},
    {"choices": {"a": [1, 2]}, "network": {"pick": "$a", "of": ["relu", "skip"]}},
    {"choices": {"a": [1, 2]}, "network": {"pick": "$a*2", "of": {"2": "relu", "4": "skip"}}},
    {"choices": {}, "network": {"repeat": "$b", "of": "relu"}},
    {"choices": {}, "network": {"repeat": "three", "of": "relu"}},
    {"choices": {}, "network": {"repeat": None, "of": "relu"}},
    {"choices": {}, "network": {"repeat": 2}},
    {"choices": {"d": ["x", "y"]}, "network": {"repeat": "$d", "of": "relu"}},
    {"choices": {"d": [-1, 2]}, "network": {"repeat": "$d", "of": "relu"}},
    {"choices": {"d": [True, False]}, "network": {"repeat": "$d", "of": "relu"}},
    {"choices": {"d": [1, 2]}, "network": {"repeat": "$d*2", "of": "relu"}},
    {"choices": {"d": [1, 2]}, "constraints": [{"kind": "odd"}], "network": {"repeat": "$d", "of": "relu"}},
]


@pytest.mark.parametrize("data", WRONG, ids=range(len(WRONG)))
def test_what_is_no_space_is_refused_in_words(data: Any) -> None:
    with pytest.raises(BadInput):
        Declared.from_json(data)


REFUSED: list[tuple[Any, Signal, str]] = [
    ([{"conv": {"out": 8}}, {"linear": {"out": 4}}], PICTURE, "put flatten or mean before it at network/1"),
    ([{"conv": {"out": 8, "kernel": 5, "size": 3}}], PICTURE, "conv takes out, kernel, stride"),
    (["convolution"], PICTURE, "There are: attention"),
    ([{"max_pool": {"kernel": 2, "stride": 2}}] * 3 + [{"patches": {"size": 4, "out": 8}}], PICTURE, "network/3"),
    ({"add": [{"conv": {"out": 8}}, "skip"]}, PICTURE, "8x16x16, 3x16x16"),
    ({"concat": [{"conv": {"out": 8, "stride": 2}}, "skip"]}, PICTURE, "differ in channels alone"),
    ([{"linear": {"out": 3}}], TOKENS, "first go through an embedding"),
    ([{"embedding": {"rows": 9, "out": 8}}, {"attention": {"heads": 3}}], TOKENS, "8 channels cannot be shared by 3"),
    ([{"embedding": {"rows": 9, "out": 8}}], PICTURE, "an embedding reads tokens"),
    ([{"ngrams": {"rows": 9, "out": 8}}], PICTURE, "n-grams are of tokens"),
    ([{"ngrams": {"rows": 9, "out": 8, "lengths": [1]}}], TOKENS, "n-grams have two tokens or more"),
    ([{"ngrams": {"rows": 65_537, "out": 8}}], TOKENS, "a table that is hashed into has"),
    ([{"bag": {"rows": 9, "out": 8}}], PICTURE, "a bag is of tokens"),
    ([{"bag": {"rows": 9, "out": 8, "longest": 0}}], TOKENS, "runs of one token or more"),
    ([{"bag": {"rows": 2_097_152, "out": 8}}], TOKENS, "a table that is hashed into has"),
    ([{"conv": {"out": 8}, "relu": {}}], PICTURE, "an object of one module"),
    ({"graph": {"nodes": [{"name": "a", "from": ["b"]}]}}, PICTURE, "reads from nodes before it; found b"),
    ({"conv": {"out": "out*2"}}, PICTURE, 'a width is a number, "in"'),
    ([{"conv": {"out": 0}}], PICTURE, "a width is at least 1, not 0"),
    ([{"conv": {"out": 8, "groups": 2}}], PICTURE, "divisible by groups"),
    ([{"conv": {"out": 8, "kernel": 4}}], PICTURE, "is odd"),
    ([{"resize": {"size": 8, "share": 0.5}}], PICTURE, "a size or a share of its own"),
    (["resize"], PICTURE, "a size or a share of its own"),
    ([{"conv": 8}], PICTURE, "options of conv are an object"),
    ({"add": []}, PICTURE, "network: add has a list|add has a list of parts"),
    ({"graph": None}, PICTURE, 'a graph has "nodes"'),
    ({"graph": {"nodes": [{"name": "a"}]}}, PICTURE, 'a graph has "nodes"'),
    ({"graph": {"nodes": [{"name": "a", "from": []}]}}, PICTURE, "reads from something"),
    ({"graph": {"nodes": [{"name": "a", "from": ["in", "in"], "of": ["relu"], "join": "add"}]}}, PICTURE, "1 for 2"),
    ({"graph": {"nodes": [{"name": "a", "from": ["in", "in"], "join": "foo"}]}}, PICTURE, "are: add, attend, concat"),
    ([{"embedding": {"rows": 9, "out": 8}}, {"conv": {"out": 8, "stride": 2}}], TOKENS, "number of places stays"),
    ([{"embedding": {"rows": 9, "out": 8}}, "max_pool"], TOKENS, "cannot tell padding from text"),
    ({"multiply": [{"linear": {"out": 3}}, "skip"]}, Signal((5, 4)), "added or multiplied give the same shape"),
    ([{"embedding": {"rows": 9, "out": 8}}, "flatten"], TOKENS, "which leave padding out"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "signal", "says"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_run_is_known_before_it_is_made(spec: Any, signal: Signal, says: str) -> None:
    with pytest.raises(BadInput, match=says) as raised:
        planned(spec, signal)
    assert "\n" not in str(raised.value) and "network" in str(raised.value)


def test_a_declaration_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(BadInput, match=r"\$depth is not"):
        Declared({"depth": [1, 2]}, ["relu"])
    with pytest.raises(BadInput, match="a part for each of its values"):
        Declared({"op": ["conv", "pool"]}, OP)
    with pytest.raises(BadInput, match="Declare widht under choices, or give it"):
        Declared({}, {"linear": {"out": "$widht"}}).static({}, {"classes": 3})
    with pytest.raises(BadInput, match='an object of "choices" and "network"'):
        Declared.from_json(["relu"])


def test_a_picture_is_resized_to_a_size_or_to_a_share_of_its_own() -> None:
    across = torch.arange(12.0).expand(1, 1, 8, 12)
    sized, shared, same = (
        network(planned({"resize": options}, Signal((1, 8, 12))))(across)
        for options in ({"size": 4}, {"share": 0.5}, {"share": 1.0})
    )
    assert sized.shape == (1, 1, 4, 4) and shared.shape == (1, 1, 4, 6) and torch.equal(same, across)
    assert torch.allclose(shared, torch.arange(0.5, 12, 2).expand(1, 1, 4, 6))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
def test_windows_of_a_series_are_those_of_a_picture_whose_rows_are_alike(kind: str, kernel: int, stride: int) -> None:
    part = {kind: {"kernel": kernel, "stride": stride}}
    series, picture = (planned(part, signal) for signal in (Signal((11, 6)), Signal((6, 11, 11))))
    x = torch.randn(2, 11, 6, generator=torch.Generator().manual_seed(0))
    out, expected = network(series)(x), network(picture)(x.mT[:, :, None].expand(2, 6, 11, 11))
    assert tuple(out.shape[1:]) == series.gives.shape and torch.allclose(out, expected[:, :, 0].mT, atol=1e-6)


def test_a_series_is_made_longer_by_a_transposed_convolution() -> None:
    plan = planned({"transposed": {"out": 4, "kernel": 3}}, Signal((11, 6)))
    built, x = network(plan), torch.randn(2, 11, 6)
    (weight,) = built.parameters()
    assert plan.gives == Signal((23, 4))
    assert torch.allclose(built(x), torch.nn.functional.conv_transpose1d(x.mT, weight, stride=2).mT, atol=1e-6)


def test_what_is_multiplied_is_a_gate() -> None:
    gate: Any = {"multiply": ["skip", [{"linear": {"out": "in"}}, "sigmoid"]]}
    built = network(planned(gate, Signal((5, 4))), seed=0)
    (weight, bias), x = built.parameters(), torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(built(x), x * (x @ weight.mT + bias).sigmoid(), atol=1e-6)
    node = {"name": "a", "from": ["in", "in0"], "of": ["skip", "tanh"], "join": "multiply"}
    assert torch.allclose(network(planned({"graph": {"nodes": [node]}}, Signal((5, 4))))(x), x * x.tanh())


def test_padding_changes_nothing() -> None:
    """Each way of seeing a text: what stands in padded places does not matter."""
    recurrent = [{"lstm": {"out": 4, "both": True, "depth": 2}}, {"gru": {"out": 8}}]
    ops: list[Any] = [{"attention": {"heads": 2}}, {"conv": {"out": 8}}, "layer_norm", *recurrent]
    for end in ("mean", "max", "attentive", "last"):
        plan = planned([{"embedding": {"rows": 20, "out": 8}}, *ops, end], TOKENS)
        built = network(plan).eval()
        ids = torch.randint(1, 20, (3, 12), generator=torch.Generator().manual_seed(0))
        mask = (torch.arange(12) < torch.tensor([[12], [7], [4]])).long()
        other = torch.where(mask == 1, ids, torch.randint(1, 20, (3, 12), generator=torch.Generator().manual_seed(1)))
        with torch.no_grad():
            assert torch.allclose(built(ids, mask), built(other, mask), atol=1e-6), end
            assert torch.allclose(built(ids[1:2, :7], mask[1:2, :7]), built(ids, mask)[1:2], atol=1e-6), end
            assert torch.allclose(built(ids[:1]), built(ids[:1], mask[:1]), atol=1e-6), end
            assert not torch.allclose(built(ids), built(other), atol=1e-3), end


@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_what_is_causal_sees_nothing_later(kind: str) -> None:
    options = {
        "conv": {"out": 6, "kernel": 3, "dilation": 2, "causal": True},
        "attention": {"heads": 2, "causal": True},
    }
    built = network(planned({kind: options[kind]}, Signal((10, 6)))).eval()
    x = torch.randn(1, 10, 6, generator=torch.Generator().manual_seed(0))
    y = x.clone()
    y[:, 6:] += 1
    with torch.no_grad():
        for mask in (None, torch.ones(1, 10)):
            assert torch.allclose(built(x, mask)[:, :6], built(y, mask)[:, :6], atol=1e-6)
            assert not torch.allclose(built(x, mask)[:, 6:], built(y, mask)[:, 6:], atol=1e-3)


LAYERS = st.recursive(
    st.sampled_from(
        [
            "relu", "batch_norm", "skip", {"conv": {"out": "in*2", "kernel": 1}}, {"conv": {"out": 4, "stride": 2}},
            {"depthwise": {"kernel": 3}}, {"max_pool": {"kernel": 2, "stride": 2}}, {"avg_pool": {"kernel": 3}},
            "squeeze_excite", {"separable": {"out": "in"}}, {"transposed": {"out": 3}}, {"resample": {"out": 6}},
        ]
    ),
    lambda parts: st.lists(parts, min_size=1, max_size=3)
    | parts.map(lambda part: {"residual": part})
    | st.lists(parts, min_size=1, max_size=3).map(lambda each: {"concat": each})
    | st.lists(parts, min_size=1, max_size=2).map(lambda each: {"add": each}),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(LAYERS)
def test_what_is_planned_runs_and_what_is_not_says_where(spec: Any) -> None:
    json.dumps(spec)
    try:
        plan = planned(spec, Signal((3, 8, 8)))
    except BadInput as refusal:
        assert "network" in str(refusal)
        return
    out = network(plan).eval()(torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 8, 8))).float())
    assert tuple(out.shape[1:]) == plan.gives.shape


def test_runs_of_tokens_are_told_apart_and_end_where_the_text_ends() -> None:
    built = network(planned({"ngrams": {"rows": 65_536, "out": 4, "lengths": [2, 3]}}, TOKENS), seed=1).eval()
    ids = torch.tensor([[5, 6, 7, 5, 6, 0], [9, 5, 6, 7, 8, 3]])
    mask = (ids != 0).long()
    with torch.no_grad():
        out = built(ids, mask)
        longer = built(torch.cat([ids, torch.zeros(2, 4, dtype=torch.long)], 1), torch.nn.functional.pad(mask, (0, 4)))
    pairs, triples = out[..., :4], out[..., 4:]
    assert out.shape == (2, 6, 8)
    assert torch.equal(pairs[0, 0], pairs[0, 3]) and torch.equal(pairs[0, 0], pairs[1, 1])  # 5 6 wherever it is
    assert torch.equal(triples[0, 0], triples[1, 1]) and not torch.equal(triples[0, 0], triples[1, 0])
    ends = [(0, 4, pairs), (0, 5, pairs), (0, 3, triples), (1, 5, pairs), (1, 4, triples)]
    assert all(not part[row, place].any() for row, place, part in ends)
    assert pairs[0, 2].any() and triples[0, 2].any() and pairs[1, 4].any()
    assert torch.equal(longer[:, :6], out) and not longer[:, 6:].any()


def test_a_bag_weighs_runs_as_tf_idf_does() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["abcef", "bcda", "cdbeg", "gfac"]  # each run once in a text: weights are those of places
    ids = torch.zeros(4, 6, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor([ord(letter) - 90 for letter in text])
    built = network(planned({"bag": {"rows": 131_072, "out": 400, "longest": 2}}, TOKENS), seed=1)
    layer = next(part for part in built.modules() if isinstance(part, Bag))
    untrained = built.eval()(ids, (ids != 0).long())
    layer.know(*texts_with([(ids[:3], ids[:3] != 0), (ids[3:], ids[3:] != 0)], 2, 131_072))
    assert layer.texts == 4
    out = built(ids, (ids != 0).long())
    assert not torch.allclose(out, untrained, atol=1e-4)
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 2)).fit_transform(texts).toarray()
    # Random vectors of many numbers stand at right angles, so products of texts are those of their weights.
    ours = (out - layer.bias).detach().double().numpy() / layer.LOUD / 0.02
    assert np.allclose(ours @ ours.T / 400, vectors @ vectors.T, atol=0.25)
    weights = np.diag(ours @ ours.T / 400)
    assert np.allclose(weights, 1, atol=0.3)
    unseen = torch.full((1, 6), 77)
    assert torch.equal(built(unseen, torch.ones(1, 6, dtype=torch.long))[0], layer.bias)
    assert torch.allclose(built(torch.nn.functional.pad(ids, (0, 5)), None), out, atol=1e-6)
