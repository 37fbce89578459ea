"""Opening model files: sound ones load, and nothing in a hostile one is ever executed."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, QuantileTransformer

from selfheal.domain.model.file import check_size, load_trusted
from selfheal.kit.errors import ModelRefusedError
from tests import hostile_models
from tests.hostile_models import HOSTILE_FILES, HostileFile
from tests.toy_use_case import contract

MAX_BYTES = 40_000_000


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Exists once code of a model file has run."""
    return tmp_path / "canary"


@pytest.fixture(scope="module")
def sound() -> tuple[Any, bytes]:
    """A fitted pipeline of the toy use case and its file."""
    inputs = np.random.default_rng(1).random((200, len(contract.feature_names)))
    pipeline = contract.build_estimator(0).fit(inputs, inputs[:, 0] > 0.5)
    return pipeline, skops.io.dumps(pipeline)


def test_a_sound_file_loads_and_scores_as_what_was_saved(sound: tuple[Any, bytes]) -> None:
    pipeline, data = sound
    rows = np.random.default_rng(2).random((50, len(contract.feature_names)))
    loaded = load_trusted(data, "model.skops", MAX_BYTES)
    np.testing.assert_array_equal(loaded.predict_proba(rows), pipeline.predict_proba(rows))


@pytest.mark.parametrize(
    "model",
    [
        CalibratedClassifierCV(LogisticRegression()),
        GaussianNB(),
        LinearDiscriminantAnalysis(),
        MLPClassifier((4,), max_iter=2),
        StackingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], cv=2),
        make_pipeline(KBinsDiscretizer(3), LogisticRegression()),
        make_pipeline(QuantileTransformer(n_quantiles=20), SGDClassifier(loss="log_loss")),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_scikit_learn_builds_of_plain_data_loads_and_scores_as_before(model: Any) -> None:
    inputs = np.random.default_rng(1).random((200, 4))
    fitted = model.fit(inputs, inputs[:, 0] > 0.5)
    loaded = load_trusted(skops.io.dumps(fitted), "model.skops", MAX_BYTES)
    np.testing.assert_array_equal(loaded.predict_proba(inputs), fitted.predict_proba(inputs))


@pytest.mark.parametrize(("make", "reason"), HOSTILE_FILES.items(), ids=lambda case: getattr(case, "__name__", ""))
def test_a_hostile_file_is_refused_and_nothing_in_it_runs(canary: Path, make: HostileFile, reason: str) -> None:
    with pytest.raises(ModelRefusedError, match=reason):
        load_trusted(make(canary), "model.skops", MAX_BYTES)
    assert not canary.exists()


@pytest.mark.parametrize(
    "make",
    [
        hostile_models.system_as_constructor,
        hostile_models.popen_as_object,
        hostile_models.operator_call,
    ],
    ids=lambda make: make.__name__,
)
def test_the_traps_would_work_if_their_types_were_trusted(canary: Path, make: HostileFile) -> None:
    """The files above are worth something only if they do what they say."""
    data = make(canary)
    started = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    if hasattr(started, "solver"):
        started.solver.wait()
    assert canary.exists()


def test_the_pickles_would_work_in_the_hands_of_pickle(canary: Path) -> None:
    pickle.loads(hostile_models.raw_pickle(canary))
    assert canary.exists()


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_file_that_is_cut_short_is_refused(sound: tuple[Any, bytes], cut: int) -> None:
    with pytest.raises(ModelRefusedError, match=r"model\.skops does not load"):
        load_trusted(sound[1][:cut], "model.skops", MAX_BYTES)


def test_what_a_file_may_unpack_to_is_the_limit_and_no_byte_more(sound: tuple[Any, bytes]) -> None:
    data = sound[1]
    with pytest.raises(ModelRefusedError) as caught:
        load_trusted(data, "model.skops", 1_000)
    unpacked = re.search(r"unpacks to ([0-9,]+) bytes; 1,000 are allowed \(MAX_MODEL_MB\)", str(caught.value))
    assert unpacked is not None
    load_trusted(data, "model.skops", int(unpacked[1].replace(",", "")))
    with pytest.raises(ModelRefusedError, match="unpacks to"):
        load_trusted(data, "model.skops", int(unpacked[1].replace(",", "")) - 1)


def test_a_file_that_is_too_large_is_refused_before_it_is_read() -> None:
    check_size(1_000, "model.skops", 1_000)
    with pytest.raises(ModelRefusedError, match=r"model\.skops has 1,001 bytes; MAX_MODEL_MB allows 1,000"):
        check_size(1_001, "model.skops", 1_000)


def test_a_type_is_trusted_if_the_contract_says_so_and_only_that_one() -> None:
    inputs = np.random.default_rng(3).random((100, 3))
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(inputs, inputs[:, 0] > 0.5)
    data = skops.io.dumps(forest)
    with pytest.raises(ModelRefusedError, match=r"not trusted: sklearn\.tree\._tree\.Tree"):
        load_trusted(data, "model.skops", MAX_BYTES, ["builtins.eval"])
    loaded = load_trusted(data, "model.skops", MAX_BYTES, ["sklearn.tree._tree.Tree"])
    np.testing.assert_array_equal(loaded.predict_proba(inputs), forest.predict_proba(inputs))
