"""Documentation search without a download: the docstrings of installed packages, summary line -> the rest.

Sources are read with `ast` and never imported. Packages are split whole: none is in two parts.
"""

from __future__ import annotations

import ast
import gc
import importlib.util
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from archsmith.errors import BadInput
from archsmith.tasks.task import Part

Pair = tuple[str, str]

# All but pandas come with archsmith's own dependencies; pandas comes with the `datasets` extra and is used if there.
PACKAGES: Mapping[Part, Sequence[str]] = {
    "train": ("torch", "transformers", "sympy", "numpy", "pandas"),
    "validation": ("sklearn",),
    "holdout": ("scipy", "networkx"),
}
MOST: Mapping[Part, int] = {"validation": 500, "holdout": 2000}  # pairs; the train part has no bound
SKIPPED_FOLDERS = frozenset({"tests", "test", "testing", "externals", "vendored"})
SUMMARY_CHARACTERS = (15, 300)
BODY_CHARACTERS = (80, 1200)
DIRECTIVE = re.compile(r"^\s*(\.\. [\w:-]+::.*|[-=~^\"'*+#]{3,}|>>> .*|\.\.\. .*|```.*)$")
ROLE = re.compile(r":[\w:+.-]+:`~?([^`<]+?)(?:\s*<[^`>]*>)?`")


def docstring_pairs(packages: Mapping[Part, Sequence[str]] = PACKAGES) -> dict[Part, list[Pair]]:
    """(summary, rest) pairs by part, in the order of package, path and line; the same for the same installed versions.

    A summary or a rest that has occurred before, in any part, is left out: held-out packages are read first, so what is
    common is lost to train. Packages that are not installed are passed over. Raises `BadInput` for an empty part.
    """
    seen: set[str] = set()
    parts: dict[Part, list[Pair]] = {}
    order: tuple[Part, ...] = ("holdout", "validation", "train")
    for part in order:
        pairs: list[Pair] = []
        for package in packages.get(part, ()):
            for summary, rest in package_pairs(package):
                keys = {summary.casefold(), rest.casefold()}
                if not keys & seen:
                    seen |= keys
                    pairs.append((summary, rest))
        if not pairs:
            names = ", ".join(packages.get(part, ())) or "no package"
            raise BadInput(f"the {part} part needs an installed package with docstrings", names, "", "install one")
        most = MOST.get(part, len(pairs))
        step = max(len(pairs) / most, 1.0)  # evenly spaced, so that every module of the package is asked about
        parts[part] = [pairs[int(i * step)] for i in range(min(most, len(pairs)))]
    return parts


def package_pairs(package: str) -> Iterator[Pair]:
    """The pairs of one installed package, nothing where it is not installed."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        root = Path(location)
        for path in sorted(root.rglob("*.py")):
            folders = path.relative_to(root).parts[:-1]
            if not any(folder in SKIPPED_FOLDERS or folder.startswith("_") for folder in folders):
                yield from source_pairs(path.read_bytes())


def source_pairs(source: bytes) -> Iterator[Pair]:
    """The pairs of one Python source, in the order of its lines; nothing where it cannot be parsed."""
    if b'"""' not in source and b"'''" not in source:
        return
    tree = _parse(source)
    if tree is None:
        return
    for node in _public(tree):
        pair = clean_pair(ast.get_docstring(node) or "")
        if pair is not None:
            yield pair


def _parse(source: bytes) -> ast.Module | None:
    collecting = gc.isenabled()
    gc.disable()  # a tree has no cycles, and looking for them takes 40 % of the time
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    finally:
        if collecting:
            gc.enable()


def _public(node: ast.Module | ast.ClassDef) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Classes, functions and methods without a leading underscore; what is inside functions is not visited."""
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from _public(child)


def clean_pair(docstring: str) -> Pair | None:
    """The first paragraph and the rest, in plain words: no code, directives or markup; None where either is poor.

    >>> rest = "The order is `stable`: rows that compare equal keep the order that they had among each other."
    >>> clean_pair("Sort the rows\\nof a table." + "\\n\\n" + rest)[0]
    'Sort the rows of a table.'
    """
    head, _, tail = docstring.partition("\n\n")
    summary, rest = _plain(head), _plain(tail)
    if not SUMMARY_CHARACTERS[0] <= len(summary) <= SUMMARY_CHARACTERS[1] or len(summary.split()) < 3:
        return None
    if len(rest) < BODY_CHARACTERS[0]:
        return None
    return summary, rest[: BODY_CHARACTERS[1]]


def _plain(text: str) -> str:
    lines = [line for line in text.split("\n") if not DIRECTIVE.match(line)]
    return " ".join(ROLE.sub(r"\1", " ".join(lines)).replace("`", "").split())
