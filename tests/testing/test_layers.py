"""check_gradients tells the layers that people write apart: sixty and more right ones pass, as many wrong ones do not.

In development each was checked with twenty seeds, of its inputs and of the kit.
"""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.testing.right_layers import RIGHT
from tests.testing.wrong_layers import SECOND, WRITES, WRONG
from tinygrad_rnn.testing import LawError, check_gradients

SEED = 0


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_layer_passes(name):
    tr.manual_seed(SEED)
    f, *inputs = RIGHT[name](np.random.default_rng(SEED))
    check_gradients(f, *inputs, seed=SEED)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_layer_does_not(name):
    tr.manual_seed(SEED)
    f, *inputs = WRONG[name](np.random.default_rng(SEED))
    with pytest.raises(ValueError if name in WRITES else LawError):
        check_gradients(f, *inputs, order=2 if name in SECOND else 1, seed=SEED)


def test_there_are_sixty_of_each():
    assert len(RIGHT) >= 60 and len(WRONG) >= 60 and set(WRONG) > SECOND | WRITES


@pytest.mark.parametrize("name", sorted(SECOND))
def test_what_is_wrong_in_the_second_derivative_alone_passes_the_first(name):
    f, *inputs = WRONG[name](np.random.default_rng(SEED))
    check_gradients(f, *inputs)
