"""Networks drawn as graphs: an arrow for each thing that is read, boxes that do not lie on each other."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from archsmith.build import SPACES, Signal, known_space, planned
from archsmith.build.genome import Genome, Link
from archsmith.build.plan import Part
from archsmith.errors import BadInput
from archsmith.report.drawn import drawn, drawn_genome
from archsmith.report.layout import Item, layered, text

GIVEN = {"classes": 10, "vocabulary": 200, "outputs": 24}
SIGNALS = (Signal((3, 32, 32)), Signal((24,), tokens=True), Signal((48, 7)))
EDGES = ("0->1", "0->2", "1->2", "0->3", "1->3", "2->3")


def cell(*ops: str) -> Part:
    point = dict(zip(EDGES, ops, strict=True))
    return planned(known_space("nb201").static(point, {"classes": 10}), Signal((3, 32, 32)))


def arrows(picture: str) -> int:
    return picture.count('class="head"')


@pytest.mark.parametrize("seed", range(5))
def test_no_box_lies_on_another_and_each_thing_read_has_its_arrow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = [Item("0", text([("in", "")]))]
    for n in range(1, 15):
        lines = [("x" * int(rng.integers(1, 20)), "")] * int(rng.integers(1, 4))
        items.append(Item(f"{n}", text(lines), tuple(f"{each}" for each in rng.integers(0, n, rng.integers(1, 4)))))
    box = layered(items)
    assert arrows(box.svg) == sum(len(item.reads) for item in items)
    places = [tuple(map(float, pair)) for pair in re.findall(r"translate\(([-\d.]+) ([-\d.]+)\)", box.svg)]
    for ((x, y), one), ((at, low), other) in combinations(zip(places, items, strict=True), 2):
        beside = x + one.box.width <= at + 0.2 or at + other.box.width <= x + 0.2
        assert beside or y + one.box.height <= low + 0.2 or low + other.box.height <= y + 0.2, (one.name, other.name)
        assert min(x, at) >= -0.1 and max(x + one.box.width, at + other.box.width) <= box.width + 0.1


def test_a_cell_is_drawn_once_with_its_arrows_and_what_repeats_with_how_often() -> None:
    picture = drawn(cell(*["nor_conv_3x3"] * 6))
    network, once = picture.split("<figcaption>")[1:]
    assert "Cell A" in once and network.count("× 5") == 3 and network.count(">A <") == 3
    assert arrows(once) == 12  # each of six edges into its module and out of it
    assert picture.count("<g ") == picture.count("</g>") and "64×8×8" in picture


def test_what_passes_its_input_on_is_an_arrow_and_what_nobody_reads_is_said() -> None:
    once = drawn(cell("avg_pool_3x3", "skip_connect", "none", "none", "none", "skip_connect")).split("<figcaption>")[2]
    assert arrows(once) == 4  # through the pool to 1, straight to 2 and on to 3
    assert once.count("not read") == 1


def test_what_passes_its_input_on_in_a_row_is_left_out() -> None:
    spec = ["skip", {"conv": {"out": 3}}, "skip", "batch_norm", {"residual": ["relu", "skip", "batch_norm"]}, "skip"]
    picture = drawn(planned(spec, Signal((3, 8, 8))))
    assert "skip" not in picture and arrows(picture) == 5
    assert ">skip " in drawn(planned(["skip"], Signal((3, 8, 8))))


def test_cells_that_differ_in_more_than_sizes_have_letters_of_their_own() -> None:
    declared = known_space("darts")
    point = declared.space.sample(np.random.default_rng(3))
    picture = drawn(planned(declared.static(point, GIVEN), Signal((3, 32, 32))))
    assert re.findall("<b>(.*?)</b>", picture) == ["The network", "Cell A", "Cell B", "Cell C"]
    network = picture.split("<figcaption>")[1]
    assert arrows(network) == 20  # two for each of eight cells; stem and head
    assert [len(re.findall(rf">cell\d+ <tspan class=\"soft\">{letter} ", network)) for letter in "ABC"] == [4, 2, 2]


@pytest.mark.parametrize("name", SPACES)
def test_a_network_of_every_space_is_drawn(name: str) -> None:
    blueprint, rng = known_space(name), np.random.default_rng(0)
    for signal in SIGNALS * 10:
        try:
            plan = planned(blueprint.static(blueprint.space.sample(rng), GIVEN), signal)
        except BadInput:  # it reads something else, or, of NAS-Bench-101, nothing reaches the output of its cell
            continue
        assert arrows(drawn(plan)) > 3
        return
    raise AssertionError(name)


def test_what_asks_is_told_apart_from_what_is_asked() -> None:
    """Arrows come in from the left: queries, keys, values, however boxes lie."""
    for how in ("add", "attend"):
        nodes = [
            {"name": "left", "from": ["in"], "of": "relu"}, {"name": "right", "from": ["in"], "of": "gelu"},
            {"name": "out", "from": ["right", "left", "right"], "join": how},
        ]  # fmt: skip
        picture = drawn(planned({"graph": {"nodes": nodes}}, Signal((8, 4))))
        assert ("queries, keys, values" in picture) == (how == "attend")
        ends = [float(x) for x in re.findall(r'class="head" d="M([\d.]+)', picture)][-3:]
        assert (ends == sorted(ends)) == (how == "attend") and min(ends) == ends[0 if how == "attend" else 1]


def test_a_genome_is_drawn_with_the_links_that_are_enabled() -> None:
    links = [Link(0, 0, 3, 1.0, enabled=False), Link(1, 1, 3, 1.0), Link(2, 0, 4, 1.0), Link(3, 4, 3, 1.0)]
    picture = drawn_genome(Genome(2, 1, tuple(links)))
    assert arrows(picture) == 3 and all(f">{name}<" in picture for name in ("in 0", "in 1", "always 1", "out 0", "4"))


def test_names_are_escaped_and_long_lines_are_told_in_full_on_pointing() -> None:
    box = text([("<a>", "b" * 80)])
    assert "&lt;a&gt;" in box.svg and "<a>" not in box.svg
    assert "…" in box.svg and f"<title>&lt;a&gt; {'b' * 80}</title>" in box.svg and box.width < 400
