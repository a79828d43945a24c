"""What `tinygrad-rnn doctor` says of a computer."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tinygrad_rnn.cli import doctor
from tinygrad_rnn.cli.main import main

ROOT = Path(__file__).parents[2]


def test_the_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for part in ("Python       3.", f"NumPy        {np.__version__}", "BLAS  ", "Threads  ", " GFLOP/s", "Memory  "):
        assert part in said
    assert "safetensors" in said and ("CuPy" in said or "GPU" in said)


@pytest.mark.parametrize(("load", "told"), [(0.1, False), (3.5, True)])
def test_a_busy_machine_is_told_about_threads(load: float, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(doctor, "_cores", lambda: 4)
    (line,) = doctor._busy()
    assert line.startswith(f"Load         {load} of 4 cores") and ("OPENBLAS_NUM_THREADS=1" in line) == told
    monkeypatch.delattr(os, "getloadavg")  # Windows
    assert not list(doctor._busy())


def variables(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said of variables on a machine where one of them halves the speed, and one doubles it."""

    def speed(given: Mapping[str, str], seconds: float = 0.0) -> float:
        return 100.0 / (1 + ("OPENBLAS_CORETYPE" in given)) * (1 + ("OMP_NUM_THREADS" in given))

    monkeypatch.setattr(doctor, "measure", speed)
    return list(doctor._variables(environment))


def test_variables_that_slow_the_blas_are_named_with_what_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    home = {"HOME": "/", "PATH": "/bin"}
    assert variables(home, monkeypatch)[1] == "Variables    none that changes the BLAS"
    slow = variables({**home, "OPENBLAS_CORETYPE": "Haswell"}, monkeypatch)
    assert slow[0] == "Products     50 GFLOP/s (float32)"
    assert "OPENBLAS_CORETYPE=Haswell: slows it: 2.0 times as fast without it (100 GFLOP/s); unset" in slow[1]
    both = variables({"OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "2", "MKL_DEBUG": "1"}, monkeypatch)
    assert "MKL_DEBUG=1: no matter" in both[1] and "OMP_NUM_THREADS=2: helps: 2.0 times as slow" in both[2]
    assert "OPENBLAS_CORETYPE=Haswell: slows it: 2.0" in both[3] and len(both) == 4


def test_a_machine_that_cannot_be_measured_is_still_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert "could not be measured" in next(doctor._variables({}))


@pytest.mark.parametrize(
    ("driver", "extra"), [(12040, "cuda12"), (13000, "cuda13"), (11080, "cuda12"), (14000, "cuda13")]
)
def test_the_exact_install_command_is_said(monkeypatch: pytest.MonkeyPatch, driver: int, extra: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(doctor, "_driver", lambda: driver)
    said = list(doctor._gpus())
    assert said[1].strip() == f"{sys.executable} -m pip install '{extras[extra][0]}'"
    monkeypatch.setattr(doctor, "_driver", lambda: None)
    assert "no NVIDIA driver" in next(doctor._gpus())
