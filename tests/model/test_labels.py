"""Laws of labels: regrouping and its inverse, joining and splitting, equating."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsmith.model.labels import (
    Atom,
    Mismatch,
    equate,
    freeze,
    fresh,
    join,
    leaves,
    positions,
    regroup,
    resolve,
    segments,
    size,
    units,
)

SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@given(SHAPES)
def test_a_view_and_its_inverse_are_the_identity(shape):
    flat = fresh(math.prod(shape))
    split = regroup([flat], shape)
    assert [size(label) for label in split] == shape
    back = regroup(split, [math.prod(shape)])[0]
    assert resolve(back) == resolve(flat)
    assert [resolve(label) for label in regroup([back], shape)] == [resolve(label) for label in split]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_a_concatenation_splits_into_what_was_joined(sizes):
    parts = [fresh(n) for n in sizes]
    assert [resolve(piece) for piece in segments(join(parts), sizes)] == [resolve(part) for part in parts]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_equal_sums_cut_at_other_places_refine_one_another(left, right):
    total = max(sum(left), sum(right)) + 1
    one, other = fresh(total), fresh(total)
    segments(one, [*left, total - sum(left)])
    segments(other, [*right, total - sum(right)])
    equate(one, other)
    assert leaves(one) == leaves(other)


@given(SHAPES)
def test_units_number_the_positions_as_numpy_does(shape):
    labels = [fresh(n) for n in shape]
    found = units(tuple(atom for label in labels for atom in label))
    for dim, label in enumerate(labels):
        if shape[dim] > 1:
            expected = np.indices(shape)[dim].ravel()
            np.testing.assert_array_equal(found[label[0]], expected)


def test_equal_labels_share_what_is_learned_later():
    weight, bias, hidden = fresh(12), fresh(12), fresh(12)
    equate(weight, bias), equate(bias, hidden)
    regroup([hidden], [3, 4])
    assert [atom.size for atom in resolve(weight)] == [3, 4]
    freeze(weight, "why")
    assert all(atom.reason == "why" for atom in resolve(hidden))


def test_a_fused_projection_has_one_head_at_three_places():
    fused = fresh(24)  # query, key, value of 2 heads x 4
    query, key, value = segments(fused, [8, 8, 8])
    heads = [regroup([part], [2, 4])[0] for part in (query, key, value)]
    equate(heads[0], heads[1]), equate(heads[0], heads[2])
    atom = resolve(heads[0])[0]
    index = positions(units(fused)[atom], 2)
    assert index.tolist() == [[0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19], [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23]]


def test_a_concatenation_viewed_as_heads_has_heads_in_every_part():
    whole = join([fresh(8), fresh(4)])
    heads, width = regroup([whole], [3, 4])
    assert [size(part) for part in resolve(heads)[0].parts] == [2, 1]
    assert [atom.size for atom in resolve(width)] == [4]


def test_freezing_reaches_the_parts_and_later_equals():
    parts = [fresh(2), fresh(3)]
    whole, other = join(parts), fresh(5)
    freeze(other, "input")
    equate(whole, other)
    assert [atom.reason for atom in leaves(whole)] == ["input", "input"]


def test_one_atom_twice_in_a_dimension_is_frozen():
    atom = fresh(3)
    units(atom + atom)
    assert atom[0].frozen


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: equate(fresh(4), fresh(5)),
        lambda: equate(fresh(6) + fresh(1), fresh(4) + fresh(2)),
        lambda: regroup([fresh(5)], [2, 3]),
        lambda: regroup([fresh(4) + fresh(3)], [3, 4]),
        lambda: segments(fresh(5), [2, 2]),
        lambda: segments(fresh(2) + fresh(3), [2, 4]),
        lambda: positions(np.array([0, 0, 1]), 2),
    ],
)
def test_what_does_not_fit_is_a_mismatch(wrong):
    with pytest.raises(Mismatch):
        wrong()


def test_an_atom_knows_when_it_is_frozen():
    assert not Atom(3).frozen and Atom(3, "input").frozen
