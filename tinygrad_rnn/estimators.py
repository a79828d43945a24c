"""Recurrent networks as estimators of scikit-learn: for its pipelines, its cross-validation and its searches.

scikit-learn (the extra `data`) is imported here and nowhere else in the package; its own checks of estimators pass, and
`tests/test_estimators.py` says which are skipped, and why. A fit runs on one thread: its products are small, and what
uses more cores is the search around it (`n_jobs`).
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from tinygrad_rnn import nn, optim
from tinygrad_rnn.data.batches import Batches, pad_sequences
from tinygrad_rnn.scalars import as_integer
from tinygrad_rnn.screen import console
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.mode import no_grad
from tinygrad_rnn.tensor.random import use_generator
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.training.display import Silent, display_for
from tinygrad_rnn.training.loop import Budget, train

__all__ = ["SequenceClassifier", "SequenceRegressor"]

Values = npt.NDArray[Any]

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
DTYPES = ("float32", "float64")
TOGETHER = 256  # sequences in one call of the network


class _Network(nn.Module):
    """A recurrent network, and a linear layer on the last state of its last layer, in both directions."""

    def __init__(self, layer: Any, width: int, outputs: int) -> None:
        self.layer, self.head = layer, nn.Linear(width, outputs)

    def forward(self, x: Any, lengths: Any) -> Any:
        _, state = self.layer(x, lengths=lengths)
        last = state[0] if isinstance(state, tuple) else state
        ends = [last[-2], last[-1]] if self.layer.bidirectional else [last[-1]]
        return self.head(ops.concatenate(ends, axis=-1))


class _Fitting:
    """What `train` asks of a task: batches of about equally long sequences, and their loss."""

    goal, unit = "loss", "sequences"

    def __init__(self, network: _Network, loss: Any, sequences: Sequence[Values], targets: Values, batches: Batches):
        self.network, self.of, self.batches = network, loss, batches
        self.sequences, self.targets = sequences, targets
        self.losses: list[float] = []

    def batch(self, step: int) -> tuple[tuple[Any, ...], int]:
        chosen = self.batches[step]
        x, lengths = pad_sequences([self.sequences[k] for k in chosen])
        return (x, lengths, self.targets[chosen]), len(chosen)

    def loss(self, x: Any, lengths: Any, targets: Any) -> Any:
        return self.of(self.network(Tensor(x), lengths), targets)

    def describe(self, loss: float) -> dict[str, float]:
        self.losses.append(loss)
        return {}

    def evaluate(self) -> dict[str, float]:
        return {}


class _Sequences(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What both estimators are: parameters, what goes in, training, and what the network says."""

    rows_: bool
    n_features_in_: int

    def __init__(
        self,
        cell: str = "lstm",
        hidden_size: int = 32,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        learning_rate: float = 0.01,
        batch_size: int = 32,
        max_iter: int = 100,
        weight_decay: float = 0.0,
        clip: float = 1.0,
        dtype: str = "float64",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.weight_decay = weight_decay
        self.clip = clip
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # --- what goes in ----------------------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        """Raise ValueError for a parameter that is none of ours; the layers and the optimiser check the others."""
        if self.cell not in CELLS:
            raise ValueError(f"cell is {', '.join(map(repr, CELLS))}, not {self.cell!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {' or '.join(map(repr, DTYPES))}, not {self.dtype!r}")
        for name in ("hidden_size", "num_layers", "batch_size", "max_iter"):
            value = as_integer(getattr(self, name))
            if value is None or value < 1:
                raise ValueError(f"{name} is a whole number of at least 1, not {getattr(self, name)!r}")

    def _sequences(self, X: Any, fit: bool) -> list[Values]:
        """X as arrays (T_i, features) of our dtype; what is not as it was at `fit` is a ValueError."""
        if _is_ragged(X):
            found = [_sequence(k, x) for k, x in enumerate(X)]
        elif getattr(X, "ndim", 2) == 3:
            found = [*check_array(X, allow_nd=True, dtype="numeric")]
        elif not fit and not self.rows_:  # sequences that happen to be equally long
            found = [*check_array(X, dtype="numeric")[:, :, None]]
        else:
            rows = validate_data(self, X, reset=fit, dtype="numeric")
            self.rows_ = True
            return [row[:, None].astype(self.dtype) for row in rows]
        return [x.astype(self.dtype) for x in self._alike(found, fit)]

    def _alike(self, found: list[Values], fit: bool) -> list[Values]:
        """Sequences that all have as many features as those of `fit`."""
        if not found:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        if fit:
            self.rows_, self.n_features_in_ = False, found[0].shape[1]
        elif self.rows_:
            raise ValueError(
                f"{type(self).__name__} was fitted to a table, whose rows are sequences of {self.n_features_in_} "
                "steps, and X is a list or an array of sequences: fit it to such a one"
            )
        for k, x in enumerate(found):
            if x.shape[1] != self.n_features_in_:
                raise ValueError(
                    f"sequence {k} has {x.shape[1]} features, but {type(self).__name__} is expecting "
                    f"{self.n_features_in_} features as input"
                )
        return found

    # --- training, and asking --------------------------------------------------------------------------------------

    def _fit(self, sequences: list[Values], targets: Values, outputs: int, loss: Any) -> None:
        """Train a new network; what the library draws for others is not touched."""
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        steps = np.concatenate(sequences)
        self.mean_, self.scale_ = steps.mean(axis=0), steps.std(axis=0)
        self.scale_[self.scale_ == 0] = 1
        batches = Batches([len(x) for x in sequences], min(self.batch_size, len(sequences)), seed)
        budget = Budget(steps=self.max_iter * batches.epoch_length)
        with use_generator(np.random.default_rng(seed)), threadpool_limits(1):
            network = self._network(steps.shape[1], outputs)
            task = _Fitting(network, loss, [self._scaled(x) for x in sequences], targets, batches)
            parameters = [*network.named_parameters()]
            optimizer = optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
            shown = display_for(console()) if self.verbose else Silent()
            outcome = train(task, optimizer, parameters, budget, clip=self.clip, evaluations=0, display=shown)
        if outcome.stopped_by is not None:  # Ctrl-C ends a search as well, and not one fit of it
            signal.raise_signal(outcome.stopped_by)
        self.network_ = network.eval()
        self.n_iter_ = self.max_iter
        self.loss_curve_ = np.reshape(task.losses, (self.max_iter, batches.epoch_length)).mean(axis=1).tolist()

    def _network(self, features: int, outputs: int) -> _Network:
        layer = CELLS[self.cell](
            features,
            self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
        )
        return _Network(layer, self.hidden_size * (1 + self.bidirectional), outputs).to(self.dtype)

    def _scaled(self, x: Values) -> Values:
        scaled: Values = (x - self.mean_) / self.scale_
        return scaled

    def _outputs(self, X: Any) -> Values:
        """What the network says of each sequence, (n, outputs)."""
        check_is_fitted(self, "network_")
        sequences = [self._scaled(x) for x in self._sequences(X, fit=False)]
        order = np.argsort([len(x) for x in sequences], kind="stable")
        with no_grad(), threadpool_limits(1):
            found = []
            for start in range(0, len(order), TOGETHER):
                x, lengths = pad_sequences([sequences[k] for k in order[start : start + TOGETHER]])
                found.append(self.network_(Tensor(x), lengths).numpy())
        outputs: Values = np.concatenate(found)[np.argsort(order)]
        return outputs


class SequenceClassifier(ClassifierMixin, _Sequences):  # type: ignore[misc]  # scikit-learn has no types
    """A recurrent network that says of which class a sequence is.

    `X` is a list of sequences, (T_i, features) or (T_i,) each, an array (n, T, features), or a table (n, T), whose rows
    are sequences of T numbers: what is fitted to a table takes rows of that length only. A feature is standardised by
    its mean and deviation over all steps of all sequences. `y` (n,) holds labels of any kind.

    Parameters:
        cell: "rnn", "gru" or "lstm".
        hidden_size, num_layers, bidirectional, dropout: of the recurrent layer; its last state goes into a linear one.
        learning_rate, weight_decay: of AdamW; the rate warms up, then falls along half a cosine.
        batch_size: sequences in a step.
        max_iter: epochs.
        clip: the norm that gradients are clipped to.
        dtype: "float64", or "float32", which is faster.
        random_state: a seed, or a RandomState of NumPy; the same seed gives the same network.
        verbose: 1 shows the progress.

    After `fit`: `classes_`, `n_features_in_`, `n_iter_`, `loss_curve_` (a loss an epoch), and `network_`, a
    `tr.nn.Module`. Raises ValueError for what does not fit, as scikit-learn's estimators do.

    >>> from tinygrad_rnn.estimators import SequenceClassifier
    >>> rises, falls = [[1, 2], [0, 3, 5], [2, 3, 4]], [[2, 1], [5, 3, 0], [4, 3, 2]]
    >>> model = SequenceClassifier("gru", 8, random_state=0).fit(rises + falls, ["up"] * 3 + ["down"] * 3)
    >>> model.predict([[1, 3, 4, 6], [7, 3]]).tolist()
    ['up', 'down']
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new network on sequences and their labels."""
        self._check_parameters()
        sequences = self._sequences(X, fit=True)
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_consistent_length(sequences, y)
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"a classifier needs at least 2 classes, and y has one class: {self.classes_[0]!r}")
        self._fit(sequences, targets, len(self.classes_), nn.functional.cross_entropy)
        return self

    def predict_proba(self, X: Any) -> Values:
        """The probability of each class, (n, classes), in the order of `classes_`."""
        probabilities: Values = ops.softmax(Tensor(self._outputs(X)), axis=-1).numpy()
        return probabilities

    def predict(self, X: Any) -> Values:
        """The most probable class of each sequence, (n,)."""
        check_is_fitted(self, "network_")
        labels: Values = self.classes_[self._outputs(X).argmax(axis=1)]
        return labels


class SequenceRegressor(RegressorMixin, _Sequences):  # type: ignore[misc]  # scikit-learn has no types
    """A recurrent network that says of a sequence a number, or several.

    `X` and the parameters are those of `SequenceClassifier`. `y` is (n,) or (n, outputs); it is standardised, and the
    mean squared error of that is made small.

    >>> import numpy as np
    >>> from tinygrad_rnn.estimators import SequenceRegressor
    >>> X = np.random.default_rng(0).uniform(size=(40, 5))
    >>> model = SequenceRegressor("gru", 16, max_iter=60, random_state=0).fit(X, X.sum(axis=1))
    >>> model.score(X, X.sum(axis=1)) > 0.9
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new network on sequences and their numbers."""
        self._check_parameters()
        sequences = self._sequences(X, fit=True)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        y = check_array(y, ensure_2d=False, dtype="numeric", input_name="y").astype(self.dtype)
        check_consistent_length(sequences, y)
        self.one_output_ = y.ndim == 1
        y = y.reshape(len(y), -1)
        self.y_mean_, self.y_scale_ = y.mean(axis=0), y.std(axis=0)
        self.y_scale_[self.y_scale_ == 0] = 1
        self._fit(sequences, (y - self.y_mean_) / self.y_scale_, y.shape[1], nn.functional.mse_loss)
        return self

    def predict(self, X: Any) -> Values:
        """The numbers of each sequence, in the shape that `y` had."""
        found: Values = self._outputs(X) * self.y_scale_ + self.y_mean_
        return found[:, 0] if self.one_output_ else found


def _is_ragged(X: Any) -> bool:
    """Whether X is a list of sequences, and no table."""
    if isinstance(X, np.ndarray) and X.dtype != object:
        return False
    if not (isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.ndim == 1)):
        return False
    if any(getattr(x, "ndim", 0) for x in X):
        return True
    lists = [x for x in X if isinstance(x, list | tuple)]
    return len({len(x) for x in lists}) > 1 or any(isinstance(x[0], list | tuple) for x in lists if x)


def _sequence(k: int, x: Any) -> Values:
    """Sequence number `k` of a list as an array (T, features)."""
    try:
        found: Values = check_array(x, ensure_2d=False, dtype="numeric")
    except (TypeError, ValueError) as error:
        raise ValueError(f"sequence {k}: {error}") from None
    return found[:, None] if found.ndim == 1 else found
