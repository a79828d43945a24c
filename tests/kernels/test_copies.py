"""The copies of weights: right after every way in which a weight changes, and gone with the weight."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.kernels import copies as module
from tinygrad_rnn.kernels.copies import transposed
from tinygrad_rnn.tensor.fused import fused_enabled

LAYERS: dict[str, Any] = {"RNN": tr.nn.RNN, "LSTM": tr.nn.LSTM, "GRU": tr.nn.GRU}
each_layer = pytest.mark.parametrize("name", LAYERS)


def test_one_contiguous_copy_for_as_long_as_the_array_lives() -> None:
    gc.collect()
    before = len(module._copies)
    W = np.arange(6.0).reshape(3, 2)
    V = transposed(W)
    assert V.flags.c_contiguous and (V == W.T).all()
    assert transposed(W) is V
    assert transposed(W[:]) is not V  # another array, though of the same memory
    del W, V
    assert len(module._copies) == before


@pytest.mark.parametrize("shape", [(400, 130), (401, 130), (60_001, 1), (1, 60_001), (0, 3), (3, 0)])
def test_a_large_array_is_copied_block_by_block(shape: tuple[int, int]) -> None:
    W = np.random.default_rng(0).random(shape)
    V = transposed(W)
    assert V.flags.c_contiguous and V.shape == shape[::-1] and (V == W.T).all()


def test_an_id_that_is_used_again_is_another_array() -> None:
    ids = set()
    for n in range(50):
        W = np.full((3, 2), float(n))
        ids.add(id(W))
        assert (transposed(W) == n).all()
        del W
    assert len(ids) < 50


def test_the_copy_of_an_array_in_a_cycle_goes_with_the_cycle() -> None:
    class Holder:
        pass

    gc.collect()
    before = len(module._copies)
    holder: Any = Holder()
    holder.me, holder.W = holder, np.ones((3, 2))
    transposed(holder.W)
    del holder
    gc.collect()
    assert len(module._copies) == before


def outputs(layer: Any, given: tr.Tensor) -> np.ndarray[Any, Any]:
    """What a layer puts out; with kernels switched off for the layer if told so."""
    y: np.ndarray[Any, Any] = layer(given)[0].numpy()
    return y


def same_as_plain(layer: Any, given: tr.Tensor) -> None:
    fused = outputs(layer, given)
    layer.fused = False
    np.testing.assert_allclose(fused, outputs(layer, given), rtol=1e-10, atol=1e-12)
    layer.fused = True


@each_layer
def test_a_weight_with_new_values_is_multiplied_by_those(name: str) -> None:
    rng = np.random.default_rng(0)
    layer = LAYERS[name](3, 4, dtype="float64")
    given = tr.Tensor(rng.standard_normal((7, 2, 3)))
    optimizer = tr.optim.Adam(layer.parameters(), lr=0.1)
    same_as_plain(layer, given)
    layer.weight_hh_l0.assign_(rng.uniform(-1, 1, layer.weight_hh_l0.shape))
    same_as_plain(layer, given)
    for _ in range(3):
        optimizer.zero_grad()
        layer(given)[0].sum().backward()
        optimizer.step()
        same_as_plain(layer, given)
    layer.load_state_dict({k: -v for k, v in layer.state_dict().items()})
    same_as_plain(layer, given)


@each_layer
def test_training_leaves_no_copies_behind(name: str) -> None:
    if not fused_enabled():
        pytest.skip("kernels are off")
    layer = LAYERS[name](3, 4, num_layers=2, bidirectional=True)
    optimizer = tr.optim.SGD(layer.parameters(), lr=0.1)
    gc.collect()
    before = len(module._copies)
    for _ in range(5):
        optimizer.zero_grad()
        layer(tr.ones(7, 2, 3))[0].sum().backward()
        optimizer.step()
    layer(tr.ones(7, 2, 3))
    gc.collect()
    assert len(module._copies) == before + 4  # of the weights of now
    del layer, optimizer
    gc.collect()
    assert len(module._copies) == before


@each_layer
def test_a_recording_copies_the_weights_of_each_moment(name: str) -> None:
    """A step with a forward before and one after its update: what is repeated must use two copies."""

    def trained(compiled: bool) -> list[Any]:
        tr.manual_seed(0)
        layer = LAYERS[name](3, 4)
        optimizer = tr.optim.SGD(layer.parameters(), lr=0.5)

        def step(given: tr.Tensor) -> tuple[tr.Tensor, tr.Tensor]:
            optimizer.zero_grad()
            loss = (layer(given)[0] ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss, (layer(given)[0] ** 2).sum().detach()

        run: Callable[..., Any] = tr.compile(step) if compiled else step
        rng = np.random.default_rng(1)
        results = [run(tr.Tensor(rng.standard_normal((7, 2, 3)).astype("float32"))) for _ in range(6)]
        return [v.item() for pair in results for v in pair]

    gc.collect()
    before = len(module._copies)
    assert trained(True) == trained(False)
    gc.collect()
    assert len(module._copies) == before


def test_threads_that_share_a_weight() -> None:
    layer = tr.nn.LSTM(3, 16)
    given = tr.ones(9, 2, 3)
    expected = outputs(layer, given)
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(50):
            for p in (layer.weight_hh_l0,):
                p.assign_(p.numpy())  # a new array of the same values, under the other threads
            if not (outputs(layer, given) == expected).all():
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
