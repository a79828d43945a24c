"""einsum: every form of its subscripts, values by loops over indices and gradients by numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.testing import check_gradients
from tinygrad_rnn.testing.strategies import seeds


def by_loops(inputs, output, *xs):
    """The definition: a sum over every assignment of the letters."""
    letters = sorted(set("".join(inputs)))
    lengths = {c: x.shape[i] for s, x in zip(inputs, xs, strict=True) for i, c in enumerate(s)}
    y = np.zeros([lengths[c] for c in output])
    for values in itertools.product(*(range(lengths[c]) for c in letters)):
        at = dict(zip(letters, values, strict=True))
        term = 1.0
        for s, x in zip(inputs, xs, strict=True):
            term = term * x[tuple(at[c] for c in s)]
        y[tuple(at[c] for c in output)] += term
    return y


@given(data=st.data(), seed=seeds())
def test_any_contraction(data, seed):
    """Random subscripts of one to three operands: sums, outer products, traces and diagonals."""
    inputs = data.draw(st.lists(st.text("abcd", max_size=3), min_size=1, max_size=3))
    letters = sorted(set("".join(inputs)))
    kept = data.draw(st.lists(st.sampled_from(letters), unique=True, max_size=3)) if letters else []
    lengths = {c: data.draw(st.sampled_from((2, 3, 1, 0))) for c in letters}
    rng = np.random.default_rng(seed)
    xs = [rng.standard_normal([lengths[c] for c in s]) for s in inputs]
    subscripts = f"{','.join(inputs)}->{''.join(kept)}"
    ours = tr.einsum(subscripts, *map(tr.Tensor, xs))
    expected = by_loops(inputs, kept, *xs)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-12)
    check_gradients(lambda *xs: tr.einsum(subscripts, *xs), *xs, order=2, analytic=True)


FORMS = {
    "explicit product": ("ij,jk->ik", (2, 3), (3, 4)),
    "implicit product": ("ij,jk", (2, 3), (3, 4)),
    "implicit order is alphabetical": ("ba", (2, 3)),
    "implicit trace": ("ii", (3, 3)),
    "implicit with a repeated letter": ("ii,ij", (3, 3), (3, 2)),
    "transpose": ("ij->ji", (2, 3)),
    "sum of all": ("ij->", (2, 3)),
    "diagonal": ("ii->i", (3, 3)),
    "batch of diagonals": ("bii->bi", (2, 3, 3)),
    "diagonal of three": ("iii->i", (3, 3, 3)),
    "trace times": ("ii,j->j", (3, 3), (2,)),
    "batch product": ("bij,bjk->bik", (2, 3, 4), (2, 4, 2)),
    "outer product": ("i,j->ji", (2,), (3,)),
    "three operands": ("ij,jk,kl->il", (2, 3), (3, 2), (2, 4)),
    "three operands, implicit": ("ij,jk,kl", (2, 3), (3, 2), (2, 4)),
    "bilinear": ("bi,oij,bj->bo", (2, 3), (4, 3, 2), (2, 2)),
    "a letter of one operand only": ("ij,k->i", (2, 3), (4,)),
    "ellipsis": ("...i->...", (2, 3, 4)),
    "ellipsis, implicit": ("...ij,...jk", (2, 3, 4), (2, 4, 2)),
    "ellipses that broadcast": ("...i,...i->...", (2, 1, 3), (4, 3)),
    "ellipsis in one operand": ("...ij,j->...i", (2, 3, 4), (4,)),
    "ellipsis of no axes": ("...i,i->...", (3,), (3,)),
    "ellipsis last": ("i...->...i", (2, 3)),
    "ellipsis summed away": ("...i,...i->i", (2, 3), (2, 3)),
    "scalars": (",->", (), ()),
    "spaces": (" i j , j k -> i k ", (2, 3), (3, 4)),
    "upper case": ("Ab,bC->AC", (2, 3), (3, 4)),
    "length one broadcasts": ("ij,ij->ij", (2, 1), (2, 3)),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form(name):
    subscripts, *shapes = FORMS[name]
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal(shape) for shape in shapes]
    try:
        expected = np.einsum(subscripts, *xs)
    except ValueError:  # what NumPy refuses, we refuse
        with pytest.raises(ValueError):
            tr.einsum(subscripts, *map(tr.Tensor, xs))
        return
    np.testing.assert_allclose(tr.einsum(subscripts, *map(tr.Tensor, xs)).numpy(), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(tr.einsum(subscripts, *xs), expected, rtol=1e-12, atol=1e-13)
    check_gradients(lambda *xs: tr.einsum(subscripts, *xs), *xs, order=2, analytic=True)


def test_the_same_tensor_twice():
    x = np.random.default_rng(0).standard_normal((3, 3))
    check_gradients(lambda x: tr.einsum("ij,ji,ik->k", x, x, x), x, order=2, analytic=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_dtype_is_kept(dtype):
    a, b = (tr.Tensor(np.ones((2, 2), dtype), requires_grad=True) for _ in range(2))
    y = tr.einsum("ij,jk->k", a, b)
    y.sum().backward()
    assert y.dtype == a.grad.dtype == b.grad.dtype == dtype


def test_constants_get_no_gradient():
    a, b = tr.Tensor(np.ones((2, 2)), requires_grad=True), tr.Tensor(np.ones((2, 2)))
    tr.einsum("ij,jk->ik", a, b).sum().backward()
    assert a.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert b.grad is None


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (4, 5)]),
        ("ij->k", [(2, 3)]),
        ("ij,jk->ik", [(2, 3)]),
        ("ijk->i", [(2, 3)]),
        ("i->ii", [(2,)]),
        ("i1->i", [(2, 3)]),
    ],
)
def test_wrong_subscripts_are_refused(subscripts, shapes):
    xs = [tr.Tensor(np.ones(shape), requires_grad=True) for shape in shapes]
    with pytest.raises(ValueError):
        tr.einsum(subscripts, *xs)
