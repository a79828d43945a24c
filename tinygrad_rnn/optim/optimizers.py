"""The rules: SGD, RMSprop, Adam, AdamW. Each is a few lines over flat arrays; names and results are PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tinygrad_rnn.kernels.cuda import has_cuda_kernels
from tinygrad_rnn.kernels.cuda.training import adam
from tinygrad_rnn.kernels.stages import numba_stages
from tinygrad_rnn.optim.optimizer import Optimizer
from tinygrad_rnn.scalars import number
from tinygrad_rnn.tensor.backend import Array, namespace


class SGD(Optimizer):
    """Gradient descent: p ← p - lr g. With momentum μ, g is replaced by v ← μ v + g (Nesterov: by g + μ v).

    `weight_decay` λ adds λ p to g first. Sutskever et al. (2013) for the momentum as it is written here.

    Raises `ValueError` for an option out of range.

    >>> import tinygrad_rnn as tr
    >>> p = tr.nn.Parameter([1.0])
    >>> optimiser = tr.optim.SGD([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimiser.step()
    >>> p.tolist()
    [0.800000011920929]
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        *,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(parameters, options)

    @property
    def moments(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if any(group["momentum"] for group in self.param_groups) else ()

    def check(self, options: Mapping[str, Any]) -> None:
        super().check(options)
        if not 0 <= number("SGD: momentum", options["momentum"]) <= 1:
            raise ValueError(f"SGD: momentum must lie in [0, 1], got {options['momentum']!r}")
        if options["nesterov"] and not options["momentum"]:
            raise ValueError("SGD: nesterov needs a momentum above 0")

    def update(self, p: Array, g: Array, moments: dict[str, Array], step: int, options: Mapping[str, Any]) -> Array:
        if options["weight_decay"]:
            g += options["weight_decay"] * p
        if mu := options["momentum"]:
            v = moments["momentum_buffer"]
            v *= mu
            v += g
            g = g + mu * v if options["nesterov"] else v
        lr: float = options["lr"]
        return p - lr * g


class RMSprop(Optimizer):
    """RMSprop of Hinton (2012, lecture 6e of Neural Networks for Machine Learning), as PyTorch has it:

        v ← α v + (1 - α) g²,   p ← p - lr g / (√v + ε)

    `centered` divides by √(v - m²) + ε instead, with m ← α m + (1 - α) g: Graves (2013, arXiv:1308.0850). With
    `momentum` μ the step is that of b ← μ b + g / (...), p ← p - lr b. `weight_decay` λ adds λ p to g first.

    Raises `ValueError` for an option out of range.

    >>> import tinygrad_rnn as tr
    >>> p = tr.nn.Parameter([1.0])
    >>> optimiser = tr.optim.RMSprop([p], lr=0.01)
    >>> (p * p).sum().backward()
    >>> optimiser.step()
    >>> round(p.item(), 6)
    0.9
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, {**options, "momentum": momentum, "centered": centered})

    @property
    def moments(self) -> tuple[str, ...]:
        names = {"momentum": "momentum_buffer", "centered": "grad_avg"}
        return ("square_avg", *(name for k, name in names.items() if any(group[k] for group in self.param_groups)))

    def check(self, options: Mapping[str, Any]) -> None:
        super().check(options)
        for key in ("alpha", "momentum"):
            if not 0 <= number(f"RMSprop: {key}", options[key]) <= 1:
                raise ValueError(f"RMSprop: {key} must lie in [0, 1], got {options[key]!r}")

    def update(self, p: Array, g: Array, moments: dict[str, Array], step: int, options: Mapping[str, Any]) -> Array:
        xp = namespace(p)
        alpha, v = options["alpha"], moments["square_avg"]
        if options["weight_decay"]:
            g += options["weight_decay"] * p
        spare = g * g
        spare *= 1 - alpha
        v *= alpha
        v += spare
        if options["centered"]:
            m = moments["grad_avg"]
            m *= alpha
            m += (1 - alpha) * g
            xp.subtract(v, m * m, out=spare)
            xp.maximum(spare, 0, out=spare)  # a variance, which rounding may take below 0
            xp.sqrt(spare, out=spare)
        else:
            xp.sqrt(v, out=spare)
        spare += options["eps"]
        xp.divide(g, spare, out=spare)
        if options["momentum"]:
            b = moments["momentum_buffer"]
            b *= options["momentum"]
            b += spare
            spare = b
        lr: float = options["lr"]
        return p - lr * spare


class Adam(Optimizer):
    """Adam of Kingma and Ba (2015), algorithm 1:

        m ← β₁ m + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²
        p ← p - lr m̂ / (√v̂ + ε),   m̂ = m / (1 - β₁ᵗ),   v̂ = v / (1 - β₂ᵗ)

    `weight_decay` λ adds λ p to g first; see `AdamW` for the decoupled one.

    Raises `ValueError` for an option out of range.

    >>> import tinygrad_rnn as tr
    >>> p = tr.nn.Parameter([1.0])
    >>> optimiser = tr.optim.Adam([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimiser.step()
    >>> round(p.item(), 6)
    0.9
    """

    decoupled = False

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, options)

    @property
    def moments(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def check(self, options: Mapping[str, Any]) -> None:
        super().check(options)
        betas = options["betas"]
        name = f"{type(self).__name__}: betas"
        if not isinstance(betas, list | tuple) or len(betas) != 2 or not all(0 <= number(name, b) < 1 for b in betas):
            raise ValueError(f"{type(self).__name__}: betas must be two numbers in [0, 1), got {betas!r}")

    def update(self, p: Array, g: Array, moments: dict[str, Array], step: int, options: Mapping[str, Any]) -> Array:
        xp = namespace(p)
        lr, decay = options["lr"], options["weight_decay"]
        beta1, beta2 = options["betas"]
        m, v = moments["exp_avg"], moments["exp_avg_sq"]
        stages = numba_stages(p, g, m, v)
        if stages or has_cuda_kernels(p, g, m, v):
            numbers = self.numbers(step, options)
            if not stages:
                return adam(p, g, m, v, numbers, options.get("there"))
            new = xp.empty(p.shape, dtype=p.dtype)
            stages.adam(p, g, m, v, new, xp.asarray(numbers, dtype=p.dtype))
            return new
        if decay and not self.decoupled:
            g += decay * p
        spare = g * g
        m *= beta1
        g *= 1 - beta1
        m += g
        v *= beta2
        spare *= 1 - beta2
        v += spare
        root = math.sqrt(1 - beta2**step)
        xp.sqrt(v, out=spare)
        spare += options["eps"] * root
        xp.divide(m, spare, out=spare)
        spare *= -lr / (1 - beta1**step) * root  # √v̂ + ε = (√v + ε root) / root: one pass over memory less
        spare += p * (1 - lr * decay) if decay and self.decoupled else p
        return spare

    def numbers(self, step: int, options: Mapping[str, Any]) -> list[float]:
        """What the kernels are given: keep1, take1, keep2, take2, root, eps, rate, coupled, decoupled."""
        lr, decay = options["lr"], options["weight_decay"]
        beta1, beta2 = options["betas"]
        found = [beta1, 1 - beta1, beta2, 1 - beta2, 1 / math.sqrt(1 - beta2**step), options["eps"]]
        return [*found, -lr / (1 - beta1**step), *((0, 1 - lr * decay) if self.decoupled else (decay, 1))]

    def in_graph(self, graph: Any, dtype: Any, now: Callable[[], tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        return {"there": graph.of_host(lambda: self.numbers(*now()), 9, dtype)}


class AdamW(Adam):
    """Adam with decoupled weight decay, of Loshchilov and Hutter (2019): p ← (1 - lr λ) p, then Adam's step.

    Raises `ValueError` for an option out of range.

    >>> import tinygrad_rnn as tr
    >>> tr.optim.AdamW([tr.nn.Parameter([1.0])]).param_groups[0]["weight_decay"]
    0.01
    """

    decoupled = True

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)
