"""What docs/build.md says of modules is what there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from archsmith.build import SPACES
from archsmith.build.pieces import KINDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "build.md").read_text(encoding="utf-8")


def test_every_module_and_option_is_on_the_page() -> None:
    table = PAGE[PAGE.index("Modules, with their options") : PAGE.index("An encoder–decoder is")]
    words = set(re.findall(r"`(\w+)`", table))
    assert words >= set(KINDS)
    options = {name for make in KINDS.values() for name in list(inspect.signature(make).parameters)[1:]}
    assert words >= options and words <= {*KINDS, *options}


def test_every_known_space_is_on_the_page() -> None:
    table = PAGE[PAGE.index("Known spaces") :]
    assert set(re.findall(r"`([\w-]+)`", table)) >= set(SPACES)
