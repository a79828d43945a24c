"""docs/use-a-model.md: what it does with PyTorch and onnxruntime, where they are installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.test_docs import blocks

PAGE = Path(__file__).parents[2] / "docs" / "use-a-model.md"


def test_the_page_runs_with_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = {"py": ("torch",), "py onnxruntime": ("onnx", "onnxruntime")}
    run = {language for language, needed in packages.items() if all(map(find_spec, needed))}
    if not run:
        pytest.skip("needs PyTorch, or onnx and onnxruntime")
    lines: list[str] = []
    for language, first, text in blocks(PAGE):
        assert language in {"python", "output", *packages}
        if language in {"python", *run}:
            lines += [""] * (first - 1 - len(lines)) + text
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(lines), str(PAGE), "exec"), {})
