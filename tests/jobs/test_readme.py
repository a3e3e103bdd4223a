"""Laws of the pages for users: links lead somewhere, code compiles, and commands and options exist."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import typer

from archsmith.cli import app

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_a_page_compiles(page: Path) -> None:
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        compile(code, page.name, "exec")


@pytest.mark.parametrize("page", ["space", "search", "study", "build"])
def test_a_page_that_teaches_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / f"{page}.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, object] = {"__name__": page}
    for code in blocks:
        exec(compile(code, page, "exec"), names)


def test_every_command_and_option_in_the_readme_exists() -> None:
    blocks = "".join(re.findall(r"```\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL))
    lines = [line.split() for line in blocks.replace("\\\n", " ").splitlines() if line.startswith("archsmith ")]
    assert lines
    for _, command, *words in lines:
        options = {name for parameter in COMMANDS[command].params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_the_example_of_the_readme_runs(
    kind_bert: Path, texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands, in a folder that has `my-model` and `train.tsv`; only its minutes are fewer."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(kind_bert, "my-model")
    shutil.copy(texts["train"], "train.tsv")
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) <= 14 and "minutes=20" in code
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(code.replace("minutes=20", "minutes=0.2"), "README.md", "exec"), names)
    assert (tmp_path / "smaller-model" / "model.safetensors").exists()
    assert (tmp_path / "runs" / "a" / "report.html").exists()
