"""Laws of a run's files: what is written is read back equal, and what breaks the schema is named."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from archsmith.errors import BadInput
from archsmith.report.environment import observe
from archsmith.report.result import Holdout, Outcome, Result, Variant, read_result, write_result
from archsmith.report.story import Story, read_story, write_story

DOCUMENTED = Path(__file__).resolve().parents[2] / "docs" / "result.md"


def test_a_result_is_read_back_equal(result: Result, tmp_path: Path) -> None:
    written = write_result(result, tmp_path)
    assert read_result(tmp_path) == written == result
    assert written.folder == tmp_path
    assert "folder" not in json.loads((tmp_path / "result.json").read_text())


def test_a_bare_result_is_read_back_equal(bare: Result, tmp_path: Path) -> None:
    write_result(bare, tmp_path)
    assert read_result(tmp_path) == bare
    assert bare.speedup is None


def test_a_story_is_read_back_equal(story: Story, tmp_path: Path) -> None:
    write_story(story, tmp_path)
    assert read_story(tmp_path) == story


def test_the_schema_has_every_field_that_was_promised(result: Result, tmp_path: Path) -> None:
    write_result(result, tmp_path)
    found = json.loads((tmp_path / "result.json").read_text())
    promised = ["original", "best", "ladder", "front", "targets", "architecture", "holdout", "environment", "seconds"]
    assert set(promised) <= set(found)
    variant = ["quality", "latency_ms", "runtime", "precision", "parameters", "macs", "bytes", "path"]
    for one in (found["original"], found["best"], *found["ladder"], *found["front"]):
        assert set(variant) <= set(one)
    assert all(set(line) >= {"target", "value", "met"} for line in found["targets"])
    assert set(found["holdout"]) >= {"n", "difference", "interval"}


@pytest.mark.parametrize("kind", [Result, Variant, Outcome, Holdout])
def test_every_field_is_documented(kind: type[Any]) -> None:
    text = DOCUMENTED.read_text(encoding="utf-8")
    for field in fields(kind):
        if field.metadata.get("written", True):
            assert f"`{field.name}`" in text, f"{kind.__name__}.{field.name}"


BROKEN = [
    (("best", "quality"), "high", "result.json.best.quality", "a number"),
    (("best", "parameters"), 1.5, "result.json.best.parameters", "an integer"),
    (("best", "latency_interval"), [1.0], "result.json.best.latency_interval", "2 values"),
    (("ladder",), {}, "result.json.ladder", "a list"),
    (("targets", 0, "met"), "yes", "result.json.targets[0].met", "true or false"),
    (("seconds", "trace"), None, "result.json.seconds.trace", "a number"),
    (("environment",), [], "result.json.environment", "an object"),
    (("holdout", "extra"), 1, "result.json.holdout", "no field 'extra'"),
    (("schema",), 99, "result.json", "schema 1"),
]


@pytest.mark.parametrize(("place", "value", "named", "law"), BROKEN)
def test_what_breaks_the_schema_is_named(
    result: Result, tmp_path: Path, place: tuple[str | int, ...], value: object, named: str, law: str
) -> None:
    write_result(result, tmp_path)
    whole = json.loads((tmp_path / "result.json").read_text())
    at: Any = whole
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    (tmp_path / "result.json").write_text(json.dumps(whole))
    with pytest.raises(BadInput) as error:
        read_result(tmp_path)
    assert named in str(error.value) and law in str(error.value)


@pytest.mark.parametrize("text", ["", "{", '{"task": "x"}', "[]", "null"])
def test_half_a_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(BadInput, match=r"result\.json"):
        read_result(tmp_path)


def test_a_run_without_a_result_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="archsmith resume"):
        read_result(tmp_path)


def test_what_is_not_finite_is_never_written(result: Result, tmp_path: Path) -> None:
    write_result(result, tmp_path)
    with pytest.raises(ValueError, match="finite"):
        write_result(replace(result, seconds={"trace": math.nan}), tmp_path)
    assert read_result(tmp_path) == result
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_that_refuses_is_one_line_and_leaves_nothing(result: Result, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="writable"):
        write_result(result, tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_save_copies_what_ships_and_never_over_files(result: Result, tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    left = replace(result.ladder[0], path="original/onnxruntime/model.onnx")  # the original's files stay in the run
    placed = write_result(replace(result, ladder=(left, *result.ladder[1:])), tmp_path / "run")
    goal = placed.save(tmp_path / "shipped")
    paths = {variant.path for variant in (placed.best, *placed.ladder[1:]) if variant.path}
    saved = read_result(goal)
    assert paths and {variant.path for variant in (saved.best, *saved.ladder) if variant.path} == {
        path.removeprefix("model/") if path != "model" else "." for path in paths
    }
    assert sorted(path.name for path in goal.iterdir()) == ["config.json", "result.json"]
    with pytest.raises(BadInput, match="empty folder"):
        placed.save(goal)
    with pytest.raises(BadInput, match="read_result"):
        result.save(tmp_path / "elsewhere")


CPUS = [
    ("model name : Xeon\nflags : avx2 avx512f avx512_bf16 amx_tile amx_bf16\n", {"avx2", "avx512", "bf16", "amx"}),
    ("model name : EPYC\nflags : avx2\n", {"avx2"}),
    ("processor : 0\n", set()),
]


@pytest.mark.parametrize(("text", "there"), CPUS)
def test_the_instructions_that_matter_are_read(tmp_path: Path, text: str, there: set[str]) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    seen = observe(threads=2, cpuinfo=tmp_path / "cpuinfo")
    assert {name for name, present in seen.flags.items() if present} == there
    assert seen.threads == 2 and {"torch", "transformers", "onnxruntime"} <= set(seen.versions)


def test_without_cpuinfo_nothing_is_claimed(tmp_path: Path) -> None:
    assert not any(observe(threads=1, cpuinfo=tmp_path / "absent").flags.values())
