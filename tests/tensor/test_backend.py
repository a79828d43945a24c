"""What the array library is asked for."""

from __future__ import annotations

import pytest

import tinygrad_rnn as tr


def test_devices_are_checked():
    with pytest.raises(ValueError, match=r'"cpu", "cuda" or "cuda:N"'):
        tr.zeros(2, device="gpu")
