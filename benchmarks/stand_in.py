"""How closely does the synthetic stand-in resemble the real `cs-training.csv`?

    python -m benchmarks.stand_in --data cs-training.csv [--json comparison.json] [--quick]

As many rows as the file has are drawn and compared with it: each feature's distribution, its relation to the label, the
correlations among the features, the quality of the contract's estimator on either, and how well a classifier separates the two.
Belongs here: measuring and printing. Does not belong here: making the stand-in (`selfheal.credit_risk.synthetic`), or limits on
the figures (`tests/credit_risk/test_synthetic.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

from benchmarks.measured import at_least, exactly
from selfheal.adapters.datasets import load_csv
from selfheal.credit_risk import LATE_CODE_FROM, LATE_COUNTS, contract
from selfheal.domain.contract import TRUE_LABEL, FloatArray
from selfheal.kit.errors import InvalidDataError

QUANTILE_LEVELS = (0.01, 0.05, 0.25, 0.50, 0.75, 0.95, 0.99)
N_FOLDS = 5
QUICK_ROWS = 5_000
"""Rows per side for the classifiers with `--quick`: half the time, AUCs to +-0.02.

With fewer rows to learn from, the two-sample AUC is lower (0.62 instead of 0.67): quote the full run.
"""


@dataclass(frozen=True, slots=True)
class FeatureComparison:
    """One raw input, real against stand-in. Pairs are `(real, stand-in)`; quantiles are of the values present."""

    name: str
    quantiles: tuple[tuple[float, ...], tuple[float, ...]]
    missing_rate: tuple[float, float]
    label_spearman: tuple[float, float]
    ks_distance: float
    """The Kolmogorov-Smirnov distance: the largest difference of the two distribution functions, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class RateComparison:
    """The default rate among rows that meet a condition. Pairs are `(real, stand-in)`; a rate over no rows is NaN."""

    condition: str
    n_rows: tuple[int, int]
    default_rate: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All measured figures. Pairs are `(real, stand-in)`."""

    n_rows: int
    seed: int
    features: tuple[FeatureComparison, ...]
    rates: tuple[RateComparison, ...]
    default_rate: tuple[float, float]
    coded_share: tuple[float, float]
    """Share of rows whose late counts are the codes 96 or 98."""
    largest_correlation_gap: float
    largest_correlation_gap_pair: tuple[str, str]
    """Largest |difference| of two raw inputs' Spearman correlations, each over the rows that have both."""
    estimator_auc: tuple[float, float]
    """5-fold ROC AUC of the contract's estimator, trained and tested on the same side."""
    transfer_auc: float
    """ROC AUC on all real rows of the contract's estimator trained on the stand-in alone."""
    two_sample_auc: float
    """5-fold ROC AUC of gradient boosting between real and stand-in rows: 0.5 is indistinguishable, 1 perfectly separable."""


def read_real(path: Path) -> pd.DataFrame:
    """Return the real file's raw inputs and `true_label`, validated, under the contract's names."""
    return load_csv(path, contract)


def compare(real: pd.DataFrame, synthetic: pd.DataFrame, *, seed: int, n_model_rows: int | None = None) -> Comparison:
    """Compare both frames (raw inputs and label). `n_model_rows` bounds the rows of each for the classifiers."""
    sides = (real, synthetic)
    exactly("rows of the stand-in", len(synthetic), len(real))
    for frame in sides:
        for name in contract.input_names:
            at_least(f"known values of {name}", int(frame[name].notna().sum()), 1)
        at_least(
            "rows of the rarer class",
            int(frame[TRUE_LABEL].value_counts().reindex([0, 1], fill_value=0).min()),
            N_FOLDS,
        )
    samples = tuple(frame if n_model_rows is None else frame.head(n_model_rows) for frame in sides)
    gap, pair = _largest_correlation_gap(real, synthetic)
    estimator = contract.build_estimator(seed).fit(contract.feature_frame(samples[1]), samples[1][TRUE_LABEL])
    transferred = estimator.predict_proba(contract.feature_frame(real))[:, 1]
    return Comparison(
        n_rows=len(real),
        seed=seed,
        features=tuple(_compare_feature(name, real, synthetic) for name in contract.input_names),
        rates=_compare_rates(real, synthetic),
        default_rate=_pair(frame[TRUE_LABEL].mean() for frame in sides),
        coded_share=_pair(is_coded(frame).mean() for frame in sides),
        largest_correlation_gap=gap,
        largest_correlation_gap_pair=pair,
        estimator_auc=_pair(estimator_auc(frame, seed) for frame in samples),
        transfer_auc=float(roc_auc_score(real[TRUE_LABEL], transferred)),
        two_sample_auc=two_sample_auc(samples[0], samples[1], seed),
    )


def is_coded(frame: pd.DataFrame) -> pd.Series[bool]:
    """Return whether each row's late counts are a code instead of counts."""
    return (frame[list(LATE_COUNTS)] >= LATE_CODE_FROM).any(axis=1)


def estimator_auc(frame: pd.DataFrame, seed: int) -> float:
    """Mean ROC AUC of the contract's estimator over 5 stratified folds."""
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    features, labels = contract.feature_frame(frame), frame[TRUE_LABEL]
    return float(cross_val_score(contract.build_estimator(seed), features, labels, cv=folds, scoring="roc_auc").mean())


def two_sample_auc(real: pd.DataFrame, synthetic: pd.DataFrame, seed: int) -> float:
    """Return the mean ROC AUC, over 5 stratified folds, of gradient boosting between real and stand-in rows.

    Its features are the raw inputs and the label, so it detects a wrong joint distribution as well as a wrong marginal one.
    Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests" (2017).
    """
    rows = pd.concat([real, synthetic], ignore_index=True)
    is_synthetic = np.repeat([0, 1], [len(real), len(synthetic)])
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    boosting = HistGradientBoostingClassifier(random_state=seed)
    return float(cross_val_score(boosting, rows, is_synthetic, cv=folds, scoring="roc_auc").mean())


def _pair(values: Iterable[float]) -> tuple[float, float]:
    real, synthetic = values
    return float(real), float(synthetic)


def _compare_feature(name: str, real: pd.DataFrame, synthetic: pd.DataFrame) -> FeatureComparison:
    sides = (real, synthetic)
    present = [frame[name].dropna() for frame in sides]
    quantiles = [tuple(float(q) for q in values.quantile(list(QUANTILE_LEVELS))) for values in present]
    return FeatureComparison(
        name=name,
        quantiles=(quantiles[0], quantiles[1]),
        missing_rate=_pair(frame[name].isna().mean() for frame in sides),
        label_spearman=_pair(frame[name].corr(frame[TRUE_LABEL], method="spearman") for frame in sides),
        ks_distance=float(ks_2samp(*present).statistic),
    )


def _compare_rates(real: pd.DataFrame, synthetic: pd.DataFrame) -> tuple[RateComparison, ...]:
    """Return default rates by utilization (fifths of the real rows), late count (codes separately) and stated income."""
    edges = np.quantile(real["revolving_utilization"].to_numpy(dtype=np.float64), [0.2, 0.4, 0.6, 0.8])
    real_bands, synthetic_bands = (_bands(frame, edges) for frame in (real, synthetic))
    return tuple(
        RateComparison(
            condition,
            n_rows=(int(real_bands[condition].sum()), int(synthetic_bands[condition].sum())),
            default_rate=(
                float(real.loc[real_bands[condition], TRUE_LABEL].mean()),
                float(synthetic.loc[synthetic_bands[condition], TRUE_LABEL].mean()),
            ),
        )
        for condition in real_bands
    )


def _bands(frame: pd.DataFrame, utilization_edges: FloatArray) -> dict[str, pd.Series[bool]]:
    """Return which rows of `frame` meet each condition."""
    fifth = pd.Series(np.searchsorted(utilization_edges, frame["revolving_utilization"]), index=frame.index)
    bands = {f"revolving_utilization, fifth {k + 1}": fifth == k for k in range(5)}
    coded = is_coded(frame)
    for name in LATE_COUNTS:
        bands |= {f"{name} = {count}": frame[name] == count for count in (0, 1, 2)}
        bands[f"{name} >= 3, no code"] = (frame[name] >= 3) & ~coded
    return bands | {"late counts are codes": coded, "monthly_income missing": frame["monthly_income"].isna()}


def _largest_correlation_gap(real: pd.DataFrame, synthetic: pd.DataFrame) -> tuple[float, tuple[str, str]]:
    """Return the largest |difference| of Spearman correlations among the raw inputs, and its pair of inputs."""
    names = list(contract.input_names)
    gaps = (real[names].corr("spearman") - synthetic[names].corr("spearman")).abs().fillna(0.0).to_numpy()
    row, column = np.unravel_index(gaps.argmax(), gaps.shape)
    return float(gaps[row, column]), (names[row], names[column])


def feature_table(comparison: Comparison) -> Table:
    """Return two rows per feature (real, stand-in): quantiles, missing rate, correlation with the label; one KS distance."""
    table = Table(
        title=f"Inputs: {comparison.n_rows:,} real rows against as many stand-in rows (seed {comparison.seed})"
    )
    table.add_column("input")
    table.add_column("rows")
    for heading in (*(f"{level:.0%}" for level in QUANTILE_LEVELS), "missing", "rank corr. label", "KS"):
        table.add_column(heading, justify="right")
    for feature in comparison.features:
        for side, origin in enumerate(("real", "stand-in")):
            table.add_row(
                feature.name if side == 0 else "",
                origin,
                *(f"{value:,.4g}" for value in feature.quantiles[side]),
                f"{feature.missing_rate[side]:.1%}",
                f"{feature.label_spearman[side]:+.3f}",
                f"{feature.ks_distance:.3f}" if side == 0 else "",
                end_section=side == 1,
            )
    return table


def rate_table(comparison: Comparison) -> Table:
    """Return the default rates by condition."""
    table = Table("rows with", title="Default rates")
    for heading in ("real", "stand-in", "real rows", "stand-in rows"):
        table.add_column(heading, justify="right")
    for rate in comparison.rates:
        table.add_row(rate.condition, *(f"{r:.1%}" for r in rate.default_rate), *(f"{n:,}" for n in rate.n_rows))
    return table


def summary_table(comparison: Comparison) -> Table:
    """Return the figures on the whole data set."""
    table = Table("measure", title="Overall")
    for heading in ("real", "stand-in"):
        table.add_column(heading, justify="right")
    for measure, pair, style in (
        ("default rate", comparison.default_rate, ".2%"),
        ("rows with a late code (96, 98)", comparison.coded_share, ".2%"),
        ("ROC AUC of the contract's estimator, 5 folds", comparison.estimator_auc, ".3f"),
    ):
        table.add_row(measure, *(format(value, style) for value in pair))
    table.add_row("... trained on the stand-in, tested on", f"{comparison.transfer_auc:.3f}", "")
    pair_names = " and ".join(comparison.largest_correlation_gap_pair)
    table.add_row(
        "two-sample ROC AUC (0.5: indistinguishable)", "", f"{comparison.two_sample_auc:.3f}", end_section=True
    )
    table.add_row(f"largest gap of a rank correlation: {pair_names}", "", f"{comparison.largest_correlation_gap:.3f}")
    return table


def main(
    data: Annotated[Path, typer.Option(help="the real cs-training.csv")],
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the comparison here")] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"classifiers see {QUICK_ROWS:,} rows a side only")] = False,
    seed: Annotated[int, typer.Option(help="seed of the stand-in, the folds and the classifiers")] = 20,
) -> None:
    """Compare the real file with the synthetic stand-in of as many rows."""
    console = Console()
    try:
        real = read_real(data)
    except InvalidDataError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error
    synthetic = contract.synthesize(len(real), seed)
    comparison = compare(real, synthetic, seed=seed, n_model_rows=QUICK_ROWS if quick else None)
    for table in (feature_table(comparison), rate_table(comparison), summary_table(comparison)):
        console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(comparison), indent=2) + "\n", encoding="utf-8")
        console.print(f"written: {json_file}")


if __name__ == "__main__":
    typer.run(main)
