"""A run that the tests of the command share."""

from __future__ import annotations

import pytest

from tests.cli.command import SMALL, TEXT, Trained, command


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A folder with `text.txt` and the run `run`, and what the command said."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    done = command("train", "--text", "text.txt", "--steps", 60, "--out", "run", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done
