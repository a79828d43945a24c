"""What stands around ops and layers, on a GPU: ways in, ids, dropout, losses, optimisers, clipping, decoding.

Where a device is, `make gpu-check` runs these; elsewhere they run on the stand-in for CuPy, in `tests/standin`.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.ma
import pytest

import tinygrad_rnn as tr
from tests.cli.command import SMALL, TEXT
from tests.reference import assert_close
from tinygrad_rnn import nn
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.data import Vocabulary
from tinygrad_rnn.decoding import beam_search, generate, greedy_search, one_step
from tinygrad_rnn.errors import BackendMismatchError, NonFiniteError, OutOfMemoryError
from tinygrad_rnn.language.model import CharModel, CharModelConfig
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.training.metrics import accuracy, perplexity

pytestmark = pytest.mark.gpu
BOTH = ("cpu", "cuda")


def there(data: Any, **options: Any) -> tr.Tensor:
    return tr.Tensor(data, device="cuda", **options)


# --- ways in: what has no place goes where the tensor is, what is elsewhere is refused ----------------------


def test_a_gradient_that_is_set_is_on_the_device() -> None:
    x = there([1.0, 2.0], requires_grad=True)
    x.grad = [3.0, 4.0]  # type: ignore[assignment]
    assert x.grad is not None and x.grad.device == "cuda:0" and x.grad.tolist() == [3, 4]
    for elsewhere in (np.ones(2, np.float32), tr.ones(2)):
        with pytest.raises(BackendMismatchError, match=r"a gradient on cpu for a tensor on cuda:0: move it with"):
            x.grad = elsewhere  # type: ignore[assignment]
    assert x.grad.tolist() == [3, 4]


def test_backward_takes_a_list() -> None:
    x = there([1.0, 2.0], requires_grad=True)
    (x * x).backward([1.0, 10.0])
    assert x.grad is not None and x.grad.tolist() == [2, 40]
    with pytest.raises(BackendMismatchError, match="gradient on cpu"):
        (x * x).backward(np.ones(2, np.float32))


def test_numbers_of_the_device_make_tensors_of_the_device() -> None:
    a, b = there(1.5), there([2.5, 3.5]).sum()
    for made in (tr.Tensor([a, b]), tr.Tensor([a, 6.0]), tr.Tensor([a._array, b._array])):
        assert made.device == "cuda:0" and made.tolist() == [1.5, 6]
    assert tr.Tensor([[a], [b]]).shape == (2, 1)
    assert tr.full((2,), b, device="cuda").tolist() == tr.full((2,), b).tolist() == [6, 6]


def test_assign_copies_from_anywhere() -> None:
    x = there([1.0, 2.0])
    for value in ([3.0, 4.0], np.array([3.0, 4.0]), tr.Tensor([3.0, 4.0]), there([3.0, 4.0])):
        x.assign_([0.0, 0.0])
        x.assign_(value)
        assert x.device == "cuda:0" and x.tolist() == [3, 4]


def test_metrics_of_the_device() -> None:
    ids, raw = there([1, 2, 3]), there([1, 2, 0])._array
    assert accuracy(ids, raw) == accuracy(raw, ids) == accuracy(list(ids), [1, 2, 0]) == pytest.approx(2 / 3)
    assert perplexity([there(0.0), there(0.0)]) == perplexity(there([0.0])._array) == 1


# --- ids ----------------------------------------------------------------------------------------------------


def test_numbers_of_the_device_are_indices() -> None:
    x, i = there([[1.0, 2.0], [3.0, 4.0]]), there(1)
    assert x[i].tolist() == x[i._array].tolist() == x[1].tolist()
    assert x[i:].tolist() == x[i._array :].tolist() == [[3, 4]]
    assert x[..., i].tolist() == x[i._array - 1 :, i].tolist() == [2, 4]
    with pytest.raises(IndexError, match=r"2 is out of (bounds|range)"):
        x[there(2)]
    with pytest.raises(TypeError, match="index"):
        x[there(0.5)._array]


IDS: dict[str, tuple[Callable[[tr.Tensor], Any], str]] = {
    "take": (lambda ids: tr.take(there(np.eye(3)), ids), r"index 7 is out of range for axis 0 of size 3"),
    "getitem": (lambda ids: there(np.eye(3))[ids], r"index 7 is out of range for axis 0 of size 3"),
    "along": (lambda ids: tr.take_along_axis(there(np.eye(3)[:1]), ids[None]), r"index 7 is out of range for axis 1"),
    "embedding": (lambda ids: nn.Embedding(3, 2).to("cuda")(ids), r"Embedding: id 7 \(element 1\) is out of range"),
    "loss": (lambda ids: F.cross_entropy(there(np.zeros((2, 3))), ids), r"cross_entropy: target 7 \(element 1\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", IDS)
def test_an_id_out_of_range_is_named_when_a_number_is_read(case: str) -> None:
    f, said = IDS[case]
    y = f(there([1, 7]))  # nobody waits here
    with pytest.raises((IndexError, ValueError), match=said):
        y.numpy()
    assert f(there([1, 2])).numpy().size  # and that was it
    if case not in ("embedding", "loss"):
        negative, positive = f(there([-1, -3])).numpy(), f(there([2, 0])).numpy()
        assert np.array_equal(negative, positive)


def test_ids_of_the_host_are_checked_at_once() -> None:
    with pytest.raises(IndexError, match="index 7"):
        tr.take(there(np.eye(3)), [1, 7])
    with pytest.raises(ValueError, match="id 7"):
        nn.Embedding(3, 2).to("cuda")([1, 7])


def test_an_id_is_named_even_if_nothing_is_read_for_long() -> None:
    from tinygrad_rnn.tensor.device import MOST

    x = there(np.eye(3))
    tr.take(x, there([7]))
    with pytest.raises(IndexError, match="index 7"):
        for _ in range(MOST):
            tr.take(x, there([1]))


def test_ids_on_the_device_do_not_index_the_host() -> None:
    for index in (there([1]), there([True, False])):
        with pytest.raises(BackendMismatchError, match="cpu"):
            tr.zeros(2)[index]


# --- the same bits each time --------------------------------------------------------------------------------


def test_sums_over_repeated_ids_have_the_same_bits_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "stages", object())  # numba's, which are for the host
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((2000, 4)) * 10.0 ** rng.integers(-6, 6, (2000, 1))).astype(np.float32)
    ids, runs = rng.integers(0, 3, 2000), []
    for _ in range(3):
        x = there(np.zeros((3, 4), np.float32), requires_grad=True)
        (tr.take(x, there(ids)) * there(values)).sum().backward()
        assert x.grad is not None
        runs.append(x.grad.numpy())
    assert runs[0].tobytes() == runs[1].tobytes() == runs[2].tobytes()
    exact = np.zeros((3, 4))
    np.add.at(exact, ids, values.astype(np.float64))
    assert_close(runs[0], exact, 1e-6)


def test_dropout_follows_the_seed_and_scales() -> None:
    x, masks = tr.ones(200, 50, device="cuda"), []
    for _ in range(2):
        tr.manual_seed(5)
        masks += [F.dropout(x, 0.25).numpy() for _ in range(2)]
    assert np.array_equal(masks[0], masks[2]) and np.array_equal(masks[1], masks[3])
    assert set(np.unique(masks[0])) == {np.float32(0), np.float32(1 / 0.75)}
    for mask in masks[:2]:  # 10,000 draws: four standard deviations
        assert abs((mask == 0).mean() - 0.25) < 4 * (0.25 * 0.75 / 1e4) ** 0.5
    assert abs(np.mean((masks[0] == 0) & (masks[1] == 0)) - 0.25**2) < 0.01


# --- numbers ------------------------------------------------------------------------------------------------


def test_integers_to_a_negative_power_are_refused() -> None:
    n = there([1, 2])
    with pytest.raises(ValueError, match="Integers to negative integer powers are not allowed"):
        n**-1
    for power in (lambda: n ** there([1, -1]), lambda: 2 ** there([-1])):
        with pytest.raises(ValueError, match="Integers to negative integer powers are not allowed"):
            power().numpy()
    assert (n**2).tolist() == (n ** there([2, 2])).tolist() == [1, 4]
    assert (there([1.0, 2.0]) ** -1).tolist() == [1, 0.5]
    assert (n**-1.0).tolist() == [1, 0.5]


# --- training -----------------------------------------------------------------------------------------------


LOSSES: dict[str, Callable[[tr.Tensor, str], Any]] = {
    "cross_entropy": lambda x, d: F.cross_entropy(x, tr.Tensor([0, -100, 2], device=d), label_smoothing=0.1),
    "of ids from the host": lambda x, d: F.cross_entropy(x, [0, 1, 2], mask=np.array([True, False, True])),
    "nll_loss": lambda x, d: F.nll_loss(tr.log_softmax(x), [0, 1, 2], reduction="sum"),
    "mse_loss": lambda x, d: F.mse_loss(x, tr.ones(3, 4, device=d), mask=[True, False, True]),
    "l1_loss": lambda x, d: F.l1_loss(x, tr.ones(3, 4, device=d)),
    "huber_loss": lambda x, d: F.huber_loss(x, tr.ones(3, 4, device=d)),
    "binary": lambda x, d: F.binary_cross_entropy_with_logits(x, tr.ones(3, 4, device=d)),
    "ctc_loss": lambda x, d: F.ctc_loss(tr.log_softmax(x), [1], 3, 1),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_those_of_the_host(loss: str) -> None:
    values, found = np.random.default_rng(1).standard_normal((3, 4)), []
    for device in BOTH:
        x = tr.Tensor(values, device=device, requires_grad=True)
        y = LOSSES[loss](x, device)
        y.backward()
        assert x.grad is not None and y.device == x.grad.device == x.device
        found.append((y.numpy(), x.grad.numpy()))
    for a, b in zip(*found, strict=True):
        assert_close(b, a, 1e-12)


class Tagger(nn.Module):
    def __init__(self, kind: str) -> None:
        self.embed = nn.Embedding(7, 4, padding_idx=0, dtype="float64")
        self.rnn = getattr(nn, kind)(4, 5, num_layers=2, bidirectional=True, dtype="float64")
        self.norm = nn.LayerNorm(10, dtype="float64")
        self.out = nn.Linear(10, 7, dtype="float64")

    def forward(self, ids: Any, lengths: Any) -> Any:
        return self.out(self.norm(self.rnn(self.embed(ids), lengths=lengths)[0]))


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: tr.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "RMSprop": lambda p: tr.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "Adam": lambda p: tr.optim.Adam(p, lr=0.01),
    "AdamW": lambda p: tr.optim.AdamW(p, lr=0.01),
}


@pytest.mark.parametrize(("name", "kind"), list(zip(OPTIMIZERS, ("RNN", "LSTM", "GRU", "LSTM"), strict=True)))
def test_training_is_that_of_the_host_and_moves_between_devices(name: str, kind: str) -> None:
    """Five steps on the host; and two there, the state saved and loaded on the host, and three there again."""
    here, make = Tagger(kind), OPTIMIZERS[name]
    start = here.state_dict()
    ids = np.random.default_rng(0).integers(0, 7, (6, 3))

    def train(model: Tagger, optimizer: Any, device: str, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            logits = model(tr.Tensor(ids[:-1], device=device), [5, 2, 4])
            loss = F.cross_entropy(logits, tr.Tensor(ids[1:], device=device), ignore_index=0)
            loss.backward()
            losses.append(tr.optim.clip_grad_norm_(model.named_parameters(), 0.05))
            optimizer.step()
            losses.append(loss.item())
        return losses

    there = Tagger(kind)
    there.load_state_dict(start)
    there.to("cuda")
    optimizers = [make(model.named_parameters()) for model in (here, there)]
    expected = train(here, optimizers[0], "cpu", 5)
    found = train(there, optimizers[1], "cuda", 2)
    saved = copy.deepcopy(optimizers[1].state_dict())
    back = Tagger(kind)
    back.load_state_dict(there.state_dict())
    again = make(back.named_parameters())
    again.load_state_dict(saved)
    assert train(back, again, "cpu", 1) == pytest.approx(expected[4:6], rel=1e-10)
    found += train(there, optimizers[1], "cuda", 3)
    assert found == pytest.approx(expected, rel=1e-10)
    for p, q in zip(here.parameters(), there.parameters(), strict=True):
        assert q.device == "cuda:0"
        assert_close(q.numpy(), p.numpy(), 1e-9)


def test_clipping_of_values_and_of_what_cannot_be_squared() -> None:
    p = nn.Parameter([3.0, 4.0], device="cuda")
    for scale in (1.0, 1e30, 1e-30):
        p.grad = [3.0 * scale, 4.0 * scale]  # type: ignore[assignment]
        assert tr.optim.clip_grad_norm_([p], 1e-20) == pytest.approx(5 * scale)
    p.grad = [3.0, 4.0]  # type: ignore[assignment]
    tr.optim.clip_grad_value_([p], 3.5)
    assert p.grad is not None and p.grad.tolist() == [3, 3.5]
    p.grad = [1.0, float("nan")]  # type: ignore[assignment]
    with pytest.raises(NonFiniteError, match="parameter w holds"):
        tr.optim.clip_grad_norm_([("w", p)], 1.0)


# --- memory -------------------------------------------------------------------------------------------------


@pytest.fixture
def pool() -> Iterator[Any]:
    """The memory of the device, which a test limits."""
    import cupy

    pool = cupy.get_default_memory_pool()
    before = pool.get_limit()
    yield pool
    pool.set_limit(before)


# what is there beside what the smaller step leaves: the larger one needs 3.6 MB forth, and 5.1 back
@pytest.mark.parametrize(("more", "where"), [(2_000_000, "lstm"), (4_500_000, "the backward of")])
def test_a_smaller_step_succeeds_where_memory_runs_out(pool: Any, more: int, where: str) -> None:
    model = nn.LSTM(64, 64, generator=np.random.default_rng(0)).to("cuda")

    def step(batch: int) -> float:
        model.zero_grad()
        loss = tr.square(model(tr.ones(20, batch, 64, device="cuda"))[0]).mean()
        loss.backward()
        return loss.item()

    expected = step(4)
    gc.collect()
    pool.free_all_blocks()
    before = pool.used_bytes()
    pool.set_limit(pool.total_bytes() + more)
    said = rf"^not enough memory for {where}.*iB asked for, .*iB of .*iB free on cuda:0: choose a smaller batch"
    with pytest.raises(OutOfMemoryError, match=said):
        step(64)
    assert pool.used_bytes() <= before + 100_000  # nothing holds the graph
    assert step(4) == expected
    with pytest.raises(OutOfMemoryError, match=r"^not enough memory for a copy of shape \(4000000,\): 15.3 MiB asked"):
        there(np.ones(4_000_000, np.float32))


# --- decoding -----------------------------------------------------------------------------------------------


def test_texts_are_those_of_the_host() -> None:
    vocabulary, found = Vocabulary.of("abcdef"), []
    model = CharModel(CharModelConfig(vocabulary=6, embedding=4, hidden=5)).eval()
    for device in BOTH:
        step = one_step(model.to(device))
        raw = lambda ids, state, step=step: (lambda y, s: (y._array, s))(*step(ids, state))
        with tr.no_grad():
            texts: list[Any] = [list(generate(model, vocabulary, "ab", 9))]
            texts += [greedy_search(f, None, 1, 0, count=2, length=5) for f in (step, raw)]
            texts.append([ids for ids, _ in beam_search(raw, None, 1, 0, width=3, length=5)])
        found.append(texts)
    assert found[0] == found[1]


# --- the command ---------------------------------------------------------------------------------------------


def test_a_run_on_the_device_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    options = ["--text", "text.txt", *SMALL, "--schedule", "plateau", "--dropout", "0.1", "--device", "cuda"]
    assert main(["train", *options, "--out", "whole", "--steps", "4", "--save-every", "2"]) == 0
    assert main(["train", *options, "--out", "two", "--steps", "2"]) == 0
    assert main(["train", "--resume", "two", "--steps", "4"]) == 0
    ends = [next(Path(run, "checkpoints").glob("last-000004-*")).read_bytes() for run in ("whole", "two")]
    assert ends[0] == ends[1]
    assert main(["train", "--resume", "two", "--steps", "5", "--device", "cpu"]) == 0
    assert main(["generate", "whole", "--length", "9"]) == main(["evaluate", "whole", "--text", "text.txt"]) == 0


# --- one device ---------------------------------------------------------------------------------------------


def test_another_device_is_refused_and_can_be_chosen() -> None:
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    with pytest.raises(ValueError, match=rf"'cuda:{count}' does not exist: this machine has {count} GPU"):
        tr.zeros(2, device=f"cuda:{count}")
    if count < 2:
        pytest.skip("one device")
    with pytest.raises(BackendMismatchError, match=r"computes on cuda:0, and on one GPU only; choose it first"):
        tr.zeros(2, device="cuda:1")
    with cupy.cuda.Device(1):
        x = tr.Tensor([[1.0, 2.0]], device="cuda", requires_grad=True)
        (x @ x.T + x[0, [0, 0]]).sum().backward()
        assert x.device == x.grad.device == "cuda:1" and x.grad.tolist() == [[6, 8]]  # type: ignore[union-attr]
        assert x.to("cpu").to("cuda").device == tr.zeros(2, device="cuda:1").device == "cuda:1"
        with pytest.raises(BackendMismatchError, match="computes on cuda:1"):
            tr.zeros(2, device="cuda:0")
