"""What is typed wrong after any option of any example: one line that names the option, and nothing is written."""

from __future__ import annotations

import argparse
import importlib
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import examples.common.experiment as frame
from examples.__main__ import HERE, names
from examples.common.use import add_options
from tinygrad_rnn.cli.options import Numbers, device, path

pytest.importorskip("matplotlib")


class Found(Exception):
    """Not an error: what a script hands to `experiment`."""


@pytest.fixture(scope="module")
def scripts() -> dict[str, dict[str, Any]]:
    """What each script hands to `experiment`, besides its `main`."""
    found: dict[str, dict[str, Any]] = {}

    def experiment(main: Any, **keywords: Any) -> None:
        found[name] = keywords
        raise Found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(frame, "experiment", experiment)
        for name in names():
            with pytest.raises(Found):
                runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
    return found


def actions(keywords: dict[str, Any]) -> Iterator[argparse.Action]:
    """The options of a script that take a value."""
    parser, own = frame._parser("example", "", keywords["steps"], keywords["quick"])
    frame._add_data(own, *(keywords.get(key, "") for key in ("data", "encoded", "fetch")))
    keywords.get("options", bool)(parser)
    keywords.get("data_options", bool)(own)
    if "use" in keywords:
        add_options(parser.add_argument_group(), keywords["use"])
    yield from (action for action in parser._actions if action.nargs != 0)


BAD_NUMBERS = ("nan", "inf", "-inf", "-1e5", "1e999", "1.5", "0x10", "x", "", " ", "9" * 30, "-" + "9" * 30, "9" * 5000)


def bad_values(action: argparse.Action) -> list[str]:
    """What is no value of this option."""
    if action.choices:
        return ["", "x"]
    if isinstance(action.type, Numbers):
        low, high = action.type.low, action.type.high
        bad = BAD_NUMBERS if action.type.kind is int else [value for value in BAD_NUMBERS if value != "1.5"]
        return [str(low - 1), str(high + 1), *bad] + ["0"] * (low > 0)
    if action.type is path:
        return [""]
    if action.type is device:
        return ["", "tpu", "cuda:x", "cuda:-1"]
    assert action.type is None, f"{action.option_strings[0]} takes whatever {action.type} takes: give it a range"
    return []


@pytest.mark.parametrize("name", names())
def test_numbers_out_of_range_are_one_line(
    name: str,
    scripts: dict[str, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(f"examples.{name}").main
    tried = 0
    for action in actions(scripts[name]):
        flag = action.option_strings[0]
        for value in bad_values(action):
            tried += 1
            assert frame.experiment(main, **scripts[name], argv=[flag, value]) == 2, (flag, value)
            shown = capsys.readouterr()
            assert shown.err.startswith(f"{name}: argument {flag}: ") and shown.err.count("\n") == 1, shown.err
            assert value.strip() in shown.err and not shown.out
            assert frame.experiment(main, **scripts[name], argv=[f"{flag}={value}"]) == 2, (flag, value)
            assert capsys.readouterr() == shown
    assert tried > 40
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argv", [["--stepps", "3"], ["yours.csv"], ["--steps"], ["--quick=3"], ["--quick", "-3"]])
def test_what_is_no_option_is_one_line(
    argv: list[str], scripts: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    main = importlib.import_module("examples.forecast").main
    assert frame.experiment(main, **scripts["forecast"], argv=argv) == 2
    shown = capsys.readouterr().err
    assert argv[0].partition("=")[0] in shown and shown.count("\n") == 1
    assert shown.endswith(" (see python -m examples.forecast --help)\n")


@pytest.mark.parametrize("name", names())
def test_help(name: str, scripts: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        frame.experiment(importlib.import_module(f"examples.{name}").main, **scripts[name], argv=["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(action.option_strings[0] in shown for action in actions(scripts[name]))


@pytest.mark.parametrize("name", names())
def test_a_script_names_no_option_that_it_does_not_have(name: str, scripts: dict[str, dict[str, Any]]) -> None:
    flags = {"--quick", "--fetch"} | {action.option_strings[0] for action in actions(scripts[name])}
    if not scripts[name].get("fetch"):
        flags.remove("--fetch")
    assert set(re.findall(r"--[a-z-]+", (HERE / f"{name}.py").read_text(encoding="utf-8"))) <= flags


def test_what_advises_to_give_data_has_that_option(scripts: dict[str, dict[str, Any]]) -> None:
    """The frame does where a data set cannot be fetched; a hint of the library names an option that there is."""
    assert all(keywords["data"] for keywords in scripts.values() if keywords.get("fetch"))
    assert all(keywords["data"] for keywords in scripts.values() if keywords.get("encoded"))
    of_text = {name for name, keywords in scripts.items() if keywords.get("encoded")}
    assert of_text == {"char_lm", "forecast", "sentiment", "translate"}


@pytest.mark.parametrize("name", ["char_lm", "forecast", "sentiment", "translate"])
def test_another_encoding_is_advised_by_its_option(
    name: str, scripts: dict[str, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "latin"
    file.write_bytes("caf\xe9\tlabel".encode("latin-1"))
    main, given = (
        importlib.import_module(f"examples.{name}").main,
        ["--data", str(file), "--out", str(tmp_path / "out")],
    )
    given += ["--column", "label"] * (name == "forecast")
    assert frame.experiment(main, **scripts[name], argv=given) == 2
    assert "choose another encoding (--encoding), such as latin-1" in capsys.readouterr().err
    assert frame.experiment(main, **scripts[name], argv=[*given, "--encoding", "latin-1"]) == 2
    assert "another encoding" not in capsys.readouterr().err  # but that there is too little of it
    assert [path.name for path in tmp_path.iterdir()] == ["latin"]
