"""Laws of the command line: quick help, one line an error, and the exit code that says which kind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from archsmith.cli import LOG, app, edge, main
from archsmith.errors import BadInput, BudgetNotReachable
from archsmith.report.environment import observe
from archsmith.report.result import Outcome, Result, Variant, write_result
from archsmith.report.story import Story, write_story
from archsmith.study import directory

COMMANDS = ("optimize", "trim", "inspect", "measure", "report", "resume", "demo")
OPTIONS = ["--task", "--data", "--validation", "--holdout", "--text", "--label", "--metric", "--target", "--runtime"]
OPTIONS += ["--threads", "--batch", "--length", "--minutes", "--seed", "--out", "--allow-code", "--json", "--quiet"]


def ran(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    code = exit_.value.code
    out, err = capsys.readouterr()
    return (code if isinstance(code, int) else 0), out, err


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    original = Variant("original", 90.0, 20.0, "pytorch", "fp32", parameters=10, macs=100, bytes=40, path="model")
    best = Variant("all together", 89.5, 4.0, "openvino", "int8", parameters=5, macs=50, bytes=10, path="model/int8")
    result = Result(
        task="text-classification",
        metric="accuracy",
        original=original,
        best=best,
        ladder=(original, best),
        front=(best,),
        targets=(Outcome("latency<=3ms", 4.0, False, floor=3.5),),
        architecture={},
        holdout=None,
        environment=observe(threads=1),
        seconds={"measure": 1.0},
    )
    write_story(Story(title="small"), folder)
    write_result(result, folder)
    return folder


@pytest.fixture
def context() -> typer.Context:
    """A context as the commands get it, without --traceback."""
    return typer.Context(typer.main.get_command(app), obj=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = ran(capsys, [command, "--help"])
    assert code == 0 and command in out


def test_optimize_takes_every_option_that_was_promised(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = ran(capsys, ["optimize", "--help"])
    assert [option for option in OPTIONS if option not in out] == []


def test_help_imports_nothing_heavy() -> None:
    heavy = "'torch', 'transformers', 'numpy', 'plotly'"
    code = f"import sys, archsmith.cli; print([name for name in ({heavy}) if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


MISTAKES = [
    ["optimise"],
    ["optimize"],
    ["optimize", "m", "--task", "text-classification"],
    ["optimize", "m", "--task", "t", "--data", "d.tsv", "--minutes", "0"],
    ["optimize", "m", "--task", "t", "--data", "d.tsv", "--threads", "0"],
    ["optimize", "m", "--task", "t", "--data", "d.tsv", "--threads", "two"],
    ["optimize", "m", "--nonsense"],
    ["report"],
    ["report", "no/such/run"],
    ["measure"],
]


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, out, err = ran(capsys, arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1


def test_report_writes_the_page_and_says_where(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    code, out, err = ran(capsys, ["report", str(run)])
    assert (code, out.strip(), err) == (0, str(run / "report.html"), "")
    assert "<h1>small</h1>" in (run / "report.html").read_text(encoding="utf-8")


def test_a_broken_result_is_one_line(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    whole = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(whole | {"metric": 3}))
    code, _, err = ran(capsys, ["report", str(run)])
    assert code == 2 and "result.json.metric" in err and err.count("\n") == 1


def ended(context: typer.Context, run: Path | None, error: BaseException) -> int:
    """The exit code with which a command ends whose job raises."""
    with pytest.raises(typer.Exit) as exit_, edge(context, run):
        raise error
    return exit_.value.exit_code


def test_an_unreachable_budget_shows_the_ladder_the_target_and_the_floor(
    capsys: pytest.CaptureFixture[str], context: typer.Context, run: Path
) -> None:
    assert ended(context, run, BudgetNotReachable("latency<=3ms cannot be met")) == 3
    out, err = capsys.readouterr()
    assert "all together" in out and "latency<=3ms: not met, 4 (1 off); the floor is 3.5" in out
    assert err == "error: latency<=3ms cannot be met\n"


def test_an_unreachable_budget_is_json_where_json_was_asked(
    capsys: pytest.CaptureFixture[str], context: typer.Context, run: Path
) -> None:
    context.params["as_json"] = True
    assert ended(context, run, BudgetNotReachable("latency<=3ms cannot be met")) == 3
    assert json.loads(capsys.readouterr().out)["targets"][0]["met"] is False


def test_ctrl_c_says_how_to_go_on(capsys: pytest.CaptureFixture[str], context: typer.Context, run: Path) -> None:
    assert ended(context, run, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == f"stopped; `archsmith resume {run}` goes on\n"
    assert ended(context, None, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_a_bug_is_one_line_and_its_traceback_is_kept(
    capsys: pytest.CaptureFixture[str], context: typer.Context, run: Path
) -> None:
    assert ended(context, run, RuntimeError("two\nlines")) == 1
    err = capsys.readouterr().err
    assert err == f"this is a bug in archsmith: RuntimeError: two lines; the traceback is in {run / 'archsmith.log'}\n"
    assert "Traceback" in (run / "archsmith.log").read_text()
    assert ended(context, None, RuntimeError("x")) == 1
    assert "--traceback" in capsys.readouterr().err
    context.obj = True
    assert ended(context, None, RuntimeError("x")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_log_has_one_name() -> None:
    assert directory.LOG == LOG


def test_bad_input_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str], context: typer.Context) -> None:
    assert ended(context, None, BadInput("a law", "a\nvalue", "here", "do this")) == 2
    assert capsys.readouterr().err == "error: a law; found a value at here. Do this.\n"
