"""The oldest versions that pyproject.toml allows of what a user installs: `python -m tests.lowest` prints them.

And the tools that the tests cannot do without; what else they need, such as scikit-learn, asks for newer ones.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

TOOLS = ("array-api-strict", "hypothesis", "pytest", "pytest-xdist")


def lowest() -> list[str]:
    """The dependencies, and those of pictures, each at its lower bound, and the tools as they are pinned."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    tools = [tool for tool in extras["test"] if tool.partition("==")[0] in TOOLS]
    least = [name.replace(">=", "==") for name in (*project["dependencies"], *extras["viz"])]
    return [*least, *tools, "pyparsing==3.1.4"]  # later ones warn of how the oldest matplotlib calls them


if __name__ == "__main__":
    print(*lowest())
