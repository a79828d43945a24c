"""The oldest versions that pyproject.toml allows of what a user installs: `python -m tests.lowest` prints them."""

from __future__ import annotations

import tomllib
from pathlib import Path


def lowest() -> list[str]:
    """The dependencies, and those of pictures, each at its lower bound."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    return [name.replace(">=", "==") for name in (*project["dependencies"], *project["optional-dependencies"]["viz"])]


if __name__ == "__main__":
    print(*lowest())
