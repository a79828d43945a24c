"""Names of PyTorch that are asked for here: each error says ours, what it says exists, and no other error changes."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.pytorch import CALLS, OURS

PAGE = Path(__file__).parents[1] / "docs" / "pytorch.md"
OWNERS: dict[str, Any] = {
    "Tensor": tr.ones(2, 3),
    "Module": tr.nn.Linear(2, 3),
    "schedule": tr.optim.StepLR(tr.optim.SGD([tr.nn.Parameter([1.0])], lr=0.1), 1),
    "tr": tr,
    "nn": tr.nn,
    "nn.functional": tr.nn.functional,
    "nn.init": tr.nn.init,
    "optim": tr.optim,
}
ROWS = [(where, name, hint) for where, names in OURS.items() for name, hint in names.items()]


def test_an_error_about_a_name_of_pytorch_says_ours() -> None:
    assert OWNERS.keys() == OURS.keys()
    for where, name, hint in ROWS:
        with pytest.raises(AttributeError) as caught:
            getattr(OWNERS[where], name)
        assert f"no attribute {name!r}: PyTorch's `{name}` is {hint}" in str(caught.value)
        assert not hasattr(OWNERS[where], name) and getattr(OWNERS[where], name, 3) == 3


def test_what_it_says_exists() -> None:
    subjects = {"x": tr.ones(2, 3), "model": OWNERS["Module"]}
    looked_up = 0
    for _, _, hint in ROWS:
        for code in re.findall("`([^`]+)`", hint):
            for root, path in re.findall(r"\b(tr|x|model)((?:\.\w+)+)", code):
                where = tr if root == "tr" else subjects[root]
                if root != "model" or path != ".name":  # the name that a user chooses
                    reduce(getattr, path[1:].split("."), where)
                    looked_up += 1
    assert looked_up > 80


def test_the_names_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    theirs = {
        "Tensor": torch.Tensor,
        "Module": torch.nn.Module,
        "schedule": torch.optim.lr_scheduler.LRScheduler,
        "tr": torch,
        "nn": torch.nn,
        "nn.functional": torch.nn.functional,
        "nn.init": torch.nn.init,
        "optim": torch.optim,
    }
    for where, name, _ in ROWS:
        assert hasattr(theirs[where], name) or (where == "tr" and hasattr(torch.Tensor, name)), (where, name)


def test_the_page_has_every_method_and_every_module_of_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert not [name for _, name, _ in ROWS if not re.search(rf"[`.]{name}\b", text)]


def test_other_names_are_told_as_python_tells_them() -> None:
    for where, owner in OWNERS.items():
        with pytest.raises(AttributeError, match=f"has no attribute 'weigth_{where[0]}'$") as caught:
            getattr(owner, f"weigth_{where[0]}")
        assert caught.value.name == f"weigth_{where[0]}"
    with pytest.raises(AttributeError, match=r"'Tensor' object has no attribute '_private'$"):
        getattr(tr.ones(2), "_private")  # noqa: B009 (mypy knows that it is not there)


def test_a_property_that_fails_says_what_failed_in_it() -> None:
    class Model(tr.nn.Module):
        @property
        def cuda(self) -> Any:
            return self.weights.total

        @property
        def width(self) -> Any:
            return tr.ones(2).numel()

    with pytest.raises(AttributeError, match=r"'Model' object has no attribute 'weights'$"):
        _ = Model().cuda
    with pytest.raises(AttributeError, match=r"PyTorch's `numel` is `x.size`"):
        _ = Model().width


def sized(x: Any) -> Any:
    return x.reshape(x.size(0), -1)


def summed(x: Any) -> Any:
    return x.sum(dim=1)


def kept(x: Any) -> Any:
    return tr.max(x, axis=0, keepdim=True)


def forgotten(x: Any) -> Any:
    weight = tr.nn.Parameter([1.0])
    tr.optim.SGD([weight], lr=0.1).zero_grad(set_to_none=True)
    return x


@pytest.mark.parametrize(("f", "said"), [*zip((sized, summed, kept, forgotten), CALLS, strict=True)])
def test_a_call_of_pytorch_in_a_forward_gets_a_note(f: Any, said: tuple[str, str, str]) -> None:
    with pytest.raises(TypeError, match=re.escape(said[0])) as caught:
        tr.nn.Sequential(tr.nn.Linear(3, 2), tr.nn.Sequential(f))(tr.ones(2, 3))
    assert [note for note in caught.value.__notes__ if "PyTorch" in note or "zero_grad" in note] == [said[2]]


def test_no_other_call_of_a_number_gets_one() -> None:
    def wrong(x: Any) -> Any:
        return x.ndim(0)

    with pytest.raises(TypeError, match="'int' object is not callable") as caught:
        tr.nn.Sequential(wrong)(tr.ones(2))
    assert not [note for note in getattr(caught.value, "__notes__", ()) if "PyTorch" in note]


@pytest.mark.parametrize("name", ["max", "min"])
def test_the_larger_of_two_tensors_has_a_name_of_its_own(name: str) -> None:
    a, b = tr.Tensor([1.0, 5.0]), tr.Tensor([2.0, 3.0])
    with pytest.raises(TypeError, match=rf"of two tensors: tr\.{name}imum\(a, b\)"):
        getattr(tr, name)(a, b)
    with pytest.raises(TypeError, match=r"takes plain values, not a Tensor.*only\)$"):
        tr.sum(a, b)
