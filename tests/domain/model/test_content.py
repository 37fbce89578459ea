"""Two model files say the same or not, whenever and in whatever process they were written."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from io import BytesIO

import numpy as np
import scipy.sparse
import skops.io

from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.model.content import Content, canonical_content, differences
from tests.processes import REPOSITORY
from tests.toy_use_case import contract
from tests.traffic import toy_rows

FIT = """
import skops.io, sys
from tests.domain.model.test_content import fitted
sys.stdout.buffer.write(skops.io.dumps(fitted()))
"""


def fitted(c: float = 1.0) -> object:
    rows = toy_rows(300)
    x = contract.feature_frame(rows).to_numpy()
    return contract.build_estimator(0).set_params(classify__C=c).fit(x, rows[TRUE_LABEL])


def test_the_same_fit_in_another_process_is_the_same_content_in_other_bytes() -> None:
    here = skops.io.dumps(fitted())
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    there = subprocess.run([sys.executable, "-c", FIT], capture_output=True, check=True, env=environment).stdout
    assert here != there, "object ids and times differ"
    assert differences(canonical_content(here), canonical_content(there)) == []


def test_a_changed_parameter_or_coefficient_is_named() -> None:
    model = fitted()
    before = canonical_content(skops.io.dumps(model))
    coefficients = model.steps[-1][1].coef_  # type: ignore[attr-defined]
    coefficients[0, 1] = np.nextafter(coefficients[0, 1], 9.0)
    (found,) = differences(before, canonical_content(skops.io.dumps(model)))
    assert "coef_" in found, "one bit is enough"
    paths = differences(before, canonical_content(skops.io.dumps(fitted(0.5))))
    assert any(".C." in path and "1.0" in path and "0.5" in path for path in paths)


def test_a_tolerance_forgives_rounding_and_nothing_else() -> None:
    model = fitted()
    before = canonical_content(skops.io.dumps(model))
    last = model.steps[-1][1]  # type: ignore[attr-defined]
    last.coef_[0, 1] = np.nextafter(last.coef_[0, 1], 9.0)
    last.tol = float(np.nextafter(last.tol, 9.0))
    rounded = canonical_content(skops.io.dumps(model))
    assert len(differences(before, rounded)) == 2
    assert differences(before, rounded, 1e-9) == []
    last.coef_[0, 1] += 1e-6
    last.n_iter_[0] += 1
    found = differences(before, canonical_content(skops.io.dumps(model)), 1e-9)
    assert ["coef_" in found[0], "n_iter_" in found[1], len(found)] == [True, True, 2]
    assert differences(before, canonical_content(skops.io.dumps(fitted(0.5))), 1e-9)


def test_what_one_has_and_the_other_has_not_is_a_difference() -> None:
    assert differences(Content({"a": "1"}, {}), Content({}, {}), 1e-6) == ["a: 1 and nothing"]


def test_sparse_matrices_are_compared_by_their_content() -> None:
    """They are zips within the zip, with times of their own."""
    matrix = scipy.sparse.csr_matrix(np.eye(3))
    one = skops.io.dumps(matrix)
    (name,) = [name for name in zipfile.ZipFile(BytesIO(one)).namelist() if name.endswith("npz")]
    aged = BytesIO()
    with zipfile.ZipFile(BytesIO(one)) as old, zipfile.ZipFile(aged, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry == name:
                inner = BytesIO()
                with zipfile.ZipFile(BytesIO(data)) as source, zipfile.ZipFile(inner, "w") as target:
                    for member in source.namelist():
                        target.writestr(zipfile.ZipInfo(member, (1999, 1, 1, 0, 0, 0)), source.read(member))
                data = inner.getvalue()
            new.writestr(entry, data)
    assert differences(canonical_content(one), canonical_content(aged.getvalue())) == []
    other = canonical_content(skops.io.dumps(scipy.sparse.csr_matrix(2 * np.eye(3))))
    assert differences(canonical_content(one), other)
