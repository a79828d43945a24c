"""Recurrent networks as estimators of scikit-learn: its own checks, its searches, and sequences of all kinds."""

from __future__ import annotations

import pickle
import signal
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from tinygrad_rnn.estimators import SequenceClassifier, SequenceRegressor
from tinygrad_rnn.training import PlainDisplay

SMALL: dict[str, Any] = {"cell": "rnn", "hidden_size": 16, "learning_rate": 0.02, "random_state": 0}
CHECKED = (SequenceClassifier(max_iter=15, **SMALL), SequenceRegressor(max_iter=30, **SMALL))

# Checks that do not apply, and why. All others that scikit-learn has for a classifier or a regressor must pass.
SKIPPED = {
    "check_array_api_input": "asks for other array libraries, which scikit-learn allows by SCIPY_ARRAY_API",
    "check_classifier_data_not_an_array": "its second half gives a DataFrame, where pandas is installed",
    "check_regressor_data_not_an_array": "as for the classifier",
}


@pytest.mark.parametrize("estimator", CHECKED, ids=lambda estimator: type(estimator).__name__)
def test_the_checks_of_scikit_learn_pass(estimator: Any) -> None:
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    failed = [(result["check_name"], result["exception"]) for result in results if result["status"] == "failed"]
    skipped = {result["check_name"] for result in results if result["status"] == "skipped"}
    passed = {result["check_name"] for result in results if result["status"] == "passed"}
    assert not failed and skipped <= SKIPPED.keys()
    assert len(passed) > 30 and {"check_fit_idempotent", "check_estimators_pickle", "check_n_features_in"} <= passed


def steps_up(n: int, seed: int, features: int = 2) -> tuple[list[np.ndarray], np.ndarray]:
    """Random walks of many lengths, and whether the first feature ends above where it began."""
    rng = np.random.default_rng(seed)
    walks = [rng.standard_normal((length, features)).cumsum(axis=0) for length in rng.integers(4, 12, n)]
    return walks, np.array(["down", "up"])[[int(x[-1, 0] > x[0, 0]) for x in walks]]


def test_sequences_of_different_lengths_are_told_apart() -> None:
    X, y = steps_up(120, seed=0)
    model = SequenceClassifier("gru", 16, max_iter=25, learning_rate=0.02, random_state=0).fit(X, y)
    unseen, labels = steps_up(80, seed=1)
    assert model.classes_.tolist() == ["down", "up"] and model.n_features_in_ == 2
    assert model.score(unseen, labels) > 0.85
    assert len(model.loss_curve_) == model.n_iter_ == 25 and model.loss_curve_[-1] < model.loss_curve_[0] / 2
    probabilities = model.predict_proba(unseen)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    alone = np.concatenate([model.predict_proba([x]) for x in unseen[:5]])
    np.testing.assert_allclose(alone, probabilities[:5], rtol=1e-10)  # whatever stands beside it in a batch
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 (what scikit-learn's users do)
    assert (again.predict_proba(unseen) == probabilities).all()


def test_a_search_over_sequences_finds_what_is_better() -> None:
    X, y = steps_up(60, seed=2)
    search = GridSearchCV(SequenceClassifier(**SMALL), {"max_iter": [1, 20], "cell": ["rnn", "gru"]}, cv=2).fit(X, y)
    assert search.best_params_["max_iter"] == 20 and search.best_score_ > 0.6
    assert search.best_estimator_.predict(X).shape == (60,)


def test_in_a_pipeline_with_several_outputs() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(60, 5))
    y = np.stack([X.sum(axis=1), 100 + X[:, -1]], axis=1)
    model = make_pipeline(StandardScaler(), SequenceRegressor("gru", 16, max_iter=40, random_state=0))
    assert cross_val_score(model, X, y, cv=3).min() > 0.7
    assert model.fit(X, y).predict(X).shape == (60, 2)


@pytest.mark.parametrize("options", [{"bidirectional": True, "num_layers": 2, "dropout": 0.3}, {"dtype": "float32"}])
def test_options_reach_the_network(options: dict[str, Any]) -> None:
    X = np.random.default_rng(0).standard_normal((9, 4, 3))
    model = SequenceRegressor("lstm", 4, max_iter=2, random_state=0, **options).fit(X, X[:, -1, 0])
    layer = model.network_.layer
    assert isinstance(layer, tr.nn.LSTM) and not model.network_.training
    assert layer.bidirectional == model.bidirectional and layer.num_layers == model.num_layers
    assert {p.dtype.name for p in model.network_.parameters()} == {model.dtype}
    assert (clone(model).fit(X, X[:, -1, 0]).predict(X) == model.predict(X)).all()
    assert (clone(model).set_params(random_state=1).fit(X, X[:, -1, 0]).predict(X) != model.predict(X)).any()


def test_a_fit_draws_nothing_from_the_librarys_generator() -> None:
    tr.manual_seed(5)
    expected = tr.rand(3).tolist()
    tr.manual_seed(5)
    SequenceRegressor(max_iter=1, **SMALL).fit([[1, 2], [3, 4, 5]], [1.0, 2.0])
    assert tr.rand(3).tolist() == expected


TABLE, LABELS = [[1, 2, 3], [3, 2, 1]], [0, 1]


@pytest.mark.parametrize(
    ("options", "X", "y", "said"),
    [
        ({"cell": "lstn"}, TABLE, LABELS, r"cell is 'rnn', 'gru', 'lstm', not 'lstn'"),
        ({"dtype": "float16"}, TABLE, LABELS, r"dtype is 'float32' or 'float64', not 'float16'"),
        ({"max_iter": 0}, TABLE, LABELS, r"max_iter is a whole number of at least 1, not 0"),
        ({}, [[1, 2], [3]], [1, 1], r"at least 2 classes, and y has one class: .*1"),
        ({}, [[[1, 2]], [[3]]], LABELS, r"sequence 1 has 1 features, but .* expecting 2 features"),
        ({}, [[1, 2], []], LABELS, r"sequence 1: Found array with 0"),
        ({}, [[1, 2], [3, float("nan"), 4]], LABELS, r"sequence 1: Input contains NaN"),
        ({}, [np.ones(2), 3.0], LABELS, r"sequence 1: .*got scalar"),
        ({}, [[1, 2], [3]], [0, 1, 1], r"inconsistent numbers of samples: \[2, 3\]"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], X: Any, y: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SequenceClassifier(**{**SMALL, "max_iter": 1, **options}).fit(X, y)


def test_a_table_and_sequences_are_not_mixed_up() -> None:
    sequences = [[1, 2], [3, 4, 5]]
    of_rows = SequenceClassifier(max_iter=1, **SMALL).fit(TABLE, LABELS)
    of_sequences = SequenceClassifier(max_iter=1, **SMALL).fit(sequences, LABELS)
    with pytest.raises(ValueError, match="fitted to a table, whose rows are sequences of 3 steps"):
        of_rows.predict(sequences)
    of_pairs = SequenceClassifier(max_iter=1, **SMALL).fit([np.ones((2, 2)), np.zeros((3, 2))], LABELS)
    with pytest.raises(ValueError, match="sequence 0 has 1 features, but SequenceClassifier is expecting 2"):
        of_pairs.predict(TABLE)
    as_object = np.empty(2, object)
    as_object[:] = sequences
    cube = np.array(TABLE)[:, :, None]
    assert (of_sequences.predict_proba(as_object) == of_sequences.predict_proba(sequences)).all()
    assert (of_sequences.predict_proba(cube) == of_sequences.predict_proba(TABLE)).all()
    assert (of_sequences.predict_proba(cube) == of_sequences.predict_proba(cube.tolist())).all()


def test_a_signal_ends_more_than_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygrad_rnn import estimators

    loss = estimators._Fitting.loss

    def interrupted(self: Any, *args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return loss(self, *args)

    monkeypatch.setattr(estimators._Fitting, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SequenceClassifier(max_iter=50, **SMALL).fit(TABLE, LABELS)


def test_progress_is_shown_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    SequenceClassifier(max_iter=2, **SMALL).fit(TABLE, LABELS)
    assert not capsys.readouterr().out
    monkeypatch.setattr("tinygrad_rnn.estimators.display_for", lambda screen: PlainDisplay(0.0))
    SequenceClassifier(max_iter=2, verbose=1, **SMALL).fit(TABLE, LABELS)
    assert "step 1/2" in capsys.readouterr().out
