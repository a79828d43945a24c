"""The coefficients of the compiled tanh: `python -m benchmarks.tanh_fit` prints them, and how wrong they are."""

from __future__ import annotations

import numpy as np

LIMIT, ABOVE, BELOW = 7.9, 6, 4  # tanh(x) = x P(x²) / Q(x²) for |x| <= LIMIT, with so many coefficients


def fit(rounds: int = 200) -> tuple[np.ndarray, np.ndarray, float]:
    """P and Q (with Q(0) = 1), and the largest relative error.

    Least squares for P - Q tanh(x)/x, divided by the Q of the round before so that it is the error that is small
    (Loeb), and weighted by the errors of that round so that they become equal (Lawson).
    """
    x = LIMIT * 0.5 * (1 - np.cos(np.pi * (np.arange(4000) + 0.5) / 4000))
    x = np.concatenate([x, np.linspace(1e-3, 1, 500)])
    s, target = (x / LIMIT) ** 2, np.tanh(x) / x
    above, below = np.vander(s, ABOVE, increasing=True), np.vander(s, BELOW, increasing=True)
    weights, q = np.ones_like(x), np.ones_like(x)
    best: tuple[float, np.ndarray] = (np.inf, np.zeros(0))
    for _ in range(rounds):
        scale = weights / (target * abs(q))
        system = np.concatenate([above, -target[:, None] * below[:, 1:]], axis=1) * scale[:, None]
        found = np.linalg.lstsq(system, target * scale)[0]
        q = 1 + below[:, 1:] @ found[ABOVE:]
        error = abs(above @ found[:ABOVE] / q / target - 1)
        best = min(best, (float(error.max()), found), key=lambda pair: pair[0])
        weights = weights * (error / error.max() + 1e-3) ** 0.3
        weights /= weights.max()
    error, found = best
    p = found[:ABOVE] / LIMIT ** (2 * np.arange(ABOVE))
    return p, np.concatenate([[1.0], found[ABOVE:]]) / LIMIT ** (2 * np.arange(BELOW)), float(error)


def main() -> None:
    p, q, error = fit()
    print(f"relative error {error:.1e}")
    for name, coefficients in (("P", p), ("Q", q[1:])):
        print(f"{name} = ({', '.join(f'{c:.9e}' for c in coefficients)})")


if __name__ == "__main__":
    main()
