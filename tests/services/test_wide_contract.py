"""A contract of many inputs is read and rehearsed like any other."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from selfheal.adapters.datasets import Dataset, load_csv
from selfheal.domain.contract import TRUE_LABEL, Feature, Label, ModelContract
from selfheal.services.contract_rehearsal import check_contract, column_summary
from selfheal.settings import load_settings

N_INPUTS, N_ROWS = 130, 500


def test_many_inputs_are_no_reason_for_a_warning(tmp_path: Path) -> None:
    """pandas warns of frames that were put together column by column, from the hundredth column on."""
    rng = np.random.default_rng(0)
    inputs = tuple(Feature(f"input_{i}", "float", 0, 1, "", "", 0.5) for i in range(N_INPUTS))
    contract = ModelContract("wide", "", Label("fell", ""), inputs)
    frame = pd.DataFrame(rng.random((N_ROWS, N_INPUTS)).round(4), columns=list(contract.input_names))
    frame["fell"] = (frame["input_0"] + rng.random(N_ROWS) > 1).astype(int)
    frame.to_csv(tmp_path / "wide.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.PerformanceWarning)
        rows = load_csv(tmp_path / "wide.csv", contract)
        findings = check_contract(contract, load_settings(min_auc=0.5), Dataset(rows, "real", "wide.csv", "0"))
        summary = column_summary(contract, rows)
    assert rows[TRUE_LABEL].tolist() == frame["fell"].tolist()
    assert [finding for finding in findings if finding.level == "problem"] == []
    assert len(summary) == N_INPUTS
