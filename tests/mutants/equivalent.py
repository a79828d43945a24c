"""Mutants that survive because they compute the same: why, and which (file, what stood there and what stands there)."""

from __future__ import annotations

EQUIVALENT: dict[str, list[str]] = {}
