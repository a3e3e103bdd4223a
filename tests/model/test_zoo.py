"""Every graph of the zoo: its free widths are found, no other is, and a cut of all of them computes what it must."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import zoo_images  # noqa: F401  (its graphs enter the zoo)
import zoo_tokens  # noqa: F401
from examined import sorted_free, widths
from masking import cut_equals_masked
from zoo import ZOO

from archsmith.model import examine

torch.set_num_threads(1)
# A norm or a mean over what is cut sees fewer units than a mask leaves, and what is masked has no direction: the plain
# reference of these does not hold.
AVERAGED = {"layer norm", "weight norm", "rms norm by hand", "stream of its own"}
AVERAGED |= {"encoder layer of torch", "decoder layer of torch"}


@cache
def examined(name):
    torch.manual_seed(0)
    model = ZOO[name].make()
    return model, examine(model, ZOO[name].inputs, np.random.default_rng(0))


@pytest.mark.parametrize("name", ZOO)
def test_the_free_widths_are_found_and_no_other(name):
    _, anatomy = examined(name)
    assert widths(anatomy) == " ".join(sorted_free(ZOO[name].free))


@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name].free and name not in AVERAGED])
def test_a_cut_of_all_widths_equals_the_mask(name):
    model, anatomy = examined(name)
    assert cut_equals_masked(model, ZOO[name].inputs, anatomy, np.random.default_rng(1)) < 1e-4


def test_the_zoo_is_large_and_half_of_it_says_no():
    assert len(ZOO) >= 60 and sum(not animal.free for animal in ZOO.values()) > 12
