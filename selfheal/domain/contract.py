"""The one declaration of a use case: its inputs, its label, its derived features, its estimator.

Belongs here: the *shape* of a use case (`ModelContract`) and what follows from it by pure computation (aliases, derivation,
hash). Does not belong here: one column's kind (`selfheal.domain.features`), the outcome (`selfheal.domain.label`), what may be
a name (`selfheal.domain.names`), any concrete feature (see `selfheal.credit_risk`), and anything that reads or writes. The API's
request model, the pandera schema, the SQL columns, the journal's header and Evidently's data definition are all derived from a
contract; nothing else declares a feature.
"""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from selfheal.domain.declarations import NOT_GIVEN, Forgiving, forgiving, problems_of, shown
from selfheal.domain.default_estimator import DEFAULT_GRID, default_estimator
from selfheal.domain.derived_values import DerivedValues
from selfheal.domain.features import AdverseReason, DerivedFeature, Feature, Kind, problems_of_inputs
from selfheal.domain.label import Label, LabelPolicy
from selfheal.domain.levels import TextArray, as_texts, codes_of, derived_levels, matrix, texts_of
from selfheal.domain.names import REQUEST_FIELDS, fold_name, problems_of_entity_name, problems_of_feature_name
from selfheal.domain.row_size import row_problem
from selfheal.kit.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

__all__ = [
    "AdverseReason",
    "DerivedFeature",
    "Feature",
    "Label",
    "LabelPolicy",
    "ModelContract",
    "Scenario",
    "Segment",
]
"""What a use case declares; the names below are for the platform."""

FloatArray: TypeAlias = npt.NDArray[np.float64]
Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Columns by name. A category's is an array of texts, None where missing: only a matrix has codes."""

TRUE_LABEL = "true_label"
"""Name of the label column in every frame and table, whatever the source file calls it."""

IS_LABELLED = "_is_labelled"
"""Name of the column that says whether a logged prediction has a label; no feature's name begins with `_`."""

KINDS = "a text is a 'category', yes and no are a 'bool'"
"""What to do with an input of no kind that there is."""

PROBE_ROWS = 16
"""Number of probe rows: enough for both limits, three missing values, and some values between."""

UNSEEN_LEVELS = ("a level that nobody has sent", "another one, \u00e9")
"""Levels of a category in probe rows that no training has: a model must score them, as the API accepts them."""

DTYPES: dict[Kind, str] = {"float": "float64", "int": "float64", "bool": "float64", "category": "object"}
"""Type of a feature's column in a frame, by its kind."""

CALM = "calm"
"""The scenario that every contract has: nothing changes."""


@forgiving
@dataclass(frozen=True, slots=True)
class Segment(Forgiving):
    """A slice of the rows whose metrics are reported beside the gates: `edges` cut `feature` into bands.

    Of a category each of the commonest levels is a band, and `edges` is empty.
    """

    feature: str
    edges: tuple[float, ...]
    description: str


@forgiving
@dataclass(frozen=True, slots=True)
class Scenario(Forgiving):
    """A simulated change of the population: new inputs and new labels from old ones.

    `apply(inputs, labels, rng)` takes a frame of raw inputs, an int array of labels and a seeded generator. It returns
    the changed pair and leaves its arguments unchanged.
    """

    name: str
    description: str
    apply: Callable[
        [pd.DataFrame, npt.NDArray[np.int64], np.random.Generator], tuple[pd.DataFrame, npt.NDArray[np.int64]]
    ]


def _derive_nothing(_columns: Columns) -> dict[str, FloatArray]:
    return {}


@forgiving
@dataclass(frozen=True)
class ModelContract(Forgiving):
    """Everything the platform needs to know about a use case. Name, description, label and inputs are required.

    `derive` maps arrays of the raw inputs (float64, NaN where missing, shape (n,); a bool is 1 or 0, a category an array of texts,
    None where missing) to arrays of the derived features; it
    is the only derivation, used by serving, training and monitoring alike. `build_estimator(seed)` returns an unfitted
    scikit-learn pipeline over the feature matrix in the order of `feature_names`; `param_grid` is searched.
    `trusted_types` are types beyond the platform's list (`selfheal.domain.model.file`) that its model files may hold, such as
    `sklearn.tree._tree.Tree`: trust them only if nobody but you can write into the registry.
    `synthesize(n_rows, seed)` returns a stand-in data set (raw inputs and `true_label`) for use where the real file is
    absent; without it the file is required. `equal_inputs_are_one_case` says how to treat two rows with the same inputs:
    True (the default) if they are the same case, which must not be both learned from and judged on; False if inputs are
    so coarse that different cases look alike.
    `label_policy` says which outcomes ever become known, if that is known.
    `entity` is the name of a key that is sent with each request and says who or what the row is about (a customer, a machine):
    text or a whole number. It is no input, unless it is the name of one. All rows of an entity count as one unit wherever rows
    count as evidence (`selfheal.domain.clusters`); `entity_is_required` refuses requests without it.
    `default_csv` is the file's name in DATA_DIR; by default the contract's name and `.csv`.
    """

    name: str
    description: str
    label: Label
    inputs: tuple[Feature, ...]
    derived: tuple[DerivedFeature, ...] = ()
    derive: Callable[[Columns], dict[str, FloatArray]] = _derive_nothing
    build_estimator: Callable[[int], Pipeline] = default_estimator
    param_grid: Mapping[str, Sequence[Any]] = field(default_factory=lambda: DEFAULT_GRID)
    synthesize: Callable[[int, int], pd.DataFrame] | None = None
    default_csv: str = ""
    equal_inputs_are_one_case: bool = True
    trusted_types: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()
    scenarios: tuple[Scenario, ...] = ()
    label_policy: LabelPolicy | None = None
    entity: str = ""
    entity_is_required: bool = False

    def __post_init__(self) -> None:
        self._refuse_wrong_arguments()
        self._refuse_double_names()
        self._refuse_ambiguous_reasons()
        problems = [*problems_of_inputs(self.inputs), *self._problems_of_names(), *self._problems_of_slices()]
        too_wide = row_problem([self.kinds[name] for name in self.feature_names], has_entity_key=self.has_entity_key)
        if too_wide is not None:
            problems.append(too_wide)
        if problems:
            raise ConfigurationError(f"contract {self.name!r}: {'; '.join(problems)}")
        if not self.default_csv:
            object.__setattr__(self, "default_csv", f"{self.name}.csv")

    def _refuse_wrong_arguments(self) -> None:
        """Refuse what is missing, unknown or of the wrong kind in the contract and all its parts, at once."""
        problems = list(problems_of(self))
        sound: list[Feature] = []
        for part in self._parts():
            wrong = [f"{one} ({KINDS})" if one.startswith("kind is") else one for one in problems_of(part)]
            problems += [f"{_title(part)}: {', '.join(wrong)}"] if wrong else []
            if isinstance(part, Feature) and not wrong:
                sound.append(part)
        if problems:
            contradictions = problems_of_inputs(sound) if sound else ()
            raise ConfigurationError(f"contract {shown(self.name)}: {'; '.join([*problems, *contradictions])}")

    def _parts(self) -> Iterator[object]:
        """Yield the declarations that the contract is made of, as far as they are declarations."""
        lists = [self.inputs, self.derived, self.segments, self.scenarios]
        parts = [
            self.label,
            self.label_policy,
            *(part for parts in lists if isinstance(parts, tuple | list) for part in parts),
        ]
        for part in parts:
            if isinstance(part, Forgiving):
                yield part
            if isinstance(reason := getattr(part, "adverse_reason", None), AdverseReason):
                yield reason

    def _refuse_double_names(self) -> None:
        meanings = [
            *({fold_name(name) for name in (f.name, *f.aliases)} for f in self.inputs),
            *({fold_name(f.name)} for f in self.derived),
            {fold_name(name) for name in (TRUE_LABEL, self.label.name, *self.label.aliases)},
        ]
        names = [name for meaning in meanings for name in meaning]
        doubles = {name for name in names if names.count(name) > 1}
        if doubles:
            raise ConfigurationError(f"contract {self.name!r} declares {sorted(doubles)} more than once")

    def _refuse_ambiguous_reasons(self) -> None:
        texts: dict[str, str] = {}
        for reason in self.adverse_reasons:
            if texts.setdefault(reason.code, reason.text) != reason.text:
                raise ConfigurationError(f"contract {self.name!r} gives the adverse reason {reason.code!r} two texts")

    def _problems_of_names(self) -> Iterator[str]:
        for name in self.feature_names:
            yield from problems_of_feature_name(name)
        for name in (*(alias for f in self.inputs for alias in f.aliases), self.label.name, *self.label.aliases):
            if not name.strip() or not name.isprintable():
                yield f"{name!r} cannot name a column: it is blank, or has a character that cannot be printed"
        for feature in self.inputs:
            for alias in feature.aliases:
                if fold_name(alias) in REQUEST_FIELDS:
                    yield f"{alias!r} is a field of every request and no alias of {feature.name!r}; choose another alias"

        if self.entity and self.entity not in self.input_names:
            yield from problems_of_entity_name(self.entity)
            if self._is_another_name(self.entity):
                yield (
                    f"the entity {self.entity!r} is also the name of a feature, an alias or the label;"
                    " name the entity otherwise"
                )
        if self.entity_is_required and not self.entity:
            yield "entity_is_required without an entity; name the key of an entity, or leave it out"

    def _is_another_name(self, name: str) -> bool:
        return name in self.feature_names or self.canonical_name(name) is not None or self.is_label_name(name)

    def _problems_of_slices(self) -> Iterator[str]:
        for segment in self.segments:
            if segment.feature not in self.feature_names:
                yield f"segment {segment.description!r} cuts {segment.feature!r}, which is no feature"
            elif self.kinds[segment.feature] == "category":
                if segment.edges:
                    yield f"segment {segment.description!r} cuts the category {segment.feature!r} by numbers; use edges=(): a band per level"
                continue
            if not segment.edges or list(segment.edges) != sorted(set(segment.edges)):
                yield f"the edges of segment {segment.description!r} are {segment.edges}; they must rise"
        policy = self.label_policy
        if policy is not None and not all(0 < share <= 1 for share in (policy.of_flagged, policy.of_others)):
            yield f"label_policy has the shares {policy.of_flagged:g} and {policy.of_others:g}; use shares above 0, at most 1"
        names = [CALM, *(scenario.name for scenario in self.scenarios)]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"the scenario {name!r} is there already; give it another name"

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """Return the names of the raw inputs, in the contract's order."""
        return tuple(feature.name for feature in self.inputs)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Return the raw inputs, then the derived features: the column order of the model's matrix and of every table."""
        return (*self.input_names, *(feature.name for feature in self.derived))

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """Return the kind of each feature, raw or derived, by name."""
        return {f.name: f.kind for f in self.inputs} | {f.name: f.kind for f in self.derived}

    @cached_property
    def category_positions(self) -> list[int]:
        """Return the places of categories among the features: columns of the matrix that an estimator has to encode."""
        return [place for place, name in enumerate(self.feature_names) if self.kinds[name] == "category"]

    @cached_property
    def category_names(self) -> tuple[str, ...]:
        """Return the names of the features that are categories."""
        return tuple(self.feature_names[place] for place in self.category_positions)

    @cached_property
    def _n_category_inputs(self) -> int:
        return sum(feature.kind == "category" for feature in self.inputs)

    def estimator(self, seed: int) -> Pipeline:
        """Return the unfitted estimator; the default one knows which features are categories."""
        if self.build_estimator is default_estimator:
            return default_estimator(seed, self.category_positions, len(self.feature_names))
        return self.build_estimator(seed)

    @property
    def has_entity_key(self) -> bool:
        """Return whether a key that is no input is sent with the rows."""
        return bool(self.entity) and self.entity not in self.input_names

    @cached_property
    def adverse_reasons(self) -> tuple[AdverseReason, ...]:
        """Return each feature's reason, in the order of `feature_names`; a feature without one is its own reason."""
        return (
            *(f.adverse_reason or AdverseReason(f.name, f.description or f.name) for f in self.inputs),
            *(f.adverse_reason or AdverseReason(f.name, f.formula or f.name) for f in self.derived),
        )

    @cached_property
    def _canonical(self) -> dict[str, str]:
        return {fold_name(alias): feature.name for feature in self.inputs for alias in (feature.name, *feature.aliases)}

    def canonical_name(self, name: str) -> str | None:
        """Return the input that `name` stands for (its own name or an alias, `-` and `_` alike), or None."""
        return self._canonical.get(fold_name(name))

    def is_label_name(self, name: str) -> bool:
        """Return whether a column of this name is the label (`-` and `_` alike)."""
        return fold_name(name) in {fold_name(alias) for alias in (TRUE_LABEL, self.label.name, *self.label.aliases)}

    @property
    def first_scenario(self) -> Scenario:
        """Return the scenario that a demo plays by default.

        Raises:
            ConfigurationError: if the contract has no scenario.
        """
        if not self.scenarios:
            raise ConfigurationError(f"contract {self.name!r} has no scenario to live through; give it a Scenario")
        return self.scenarios[0]

    def scenario(self, name: str) -> Scenario:
        """Return the scenario of this name.

        Raises:
            ConfigurationError: if there is none; the message lists the known scenarios.
        """
        for scenario in self.scenarios:
            if scenario.name == name:
                return scenario
        known = ", ".join(s.name for s in self.scenarios) or "none"
        raise ConfigurationError(f"contract {self.name!r} has no scenario {name!r}; it has: {known}")

    def feature_columns(self, columns: Columns) -> dict[str, npt.NDArray[Any]]:
        """Compute all features, in order, from the columns of the raw inputs; categories are texts."""
        n_sent = self._n_category_inputs
        levels = {name: texts_of(columns[name]) for name in self.category_names[:n_sent]}
        raw = {
            name: levels[name] if name in levels else np.asarray(columns[name], dtype=np.float64)
            for name in self.input_names
        }
        derived = self.derive(raw)
        found = raw | {feature.name: derived[feature.name] for feature in self.derived}
        for name in self.category_names[n_sent:]:
            found[name] = derived_levels(name, derived[name])
        return found

    @cached_property
    def dtypes(self) -> dict[str, str]:
        """Return the type of each feature's column in a frame, by name."""
        return {name: DTYPES[kind] for name, kind in self.kinds.items()}

    def matrix(self, columns: Columns) -> FloatArray:
        """Return the model's input, shape (n, features), from the raw inputs' columns; in memory column by column."""
        found = list(self.feature_columns(columns).values())
        for place in self.category_positions:
            found[place] = codes_of(found[place])
        return np.array(found, dtype=np.float64).T

    def matrix_of(self, frame: pd.DataFrame) -> FloatArray:
        """Return the model's input from a frame with all features, such as `feature_frame` or logged rows."""
        return matrix(frame, self.feature_names)

    def feature_frame(self, inputs: pd.DataFrame) -> pd.DataFrame:
        """Return a frame of all features from a frame of raw inputs; keep the index, drop other columns."""
        import pandas as pd

        columns = {f.name: inputs[f.name].to_numpy(dtype=DTYPES[f.kind]) for f in self.inputs}
        found = self.feature_columns(columns)
        as_sent = {f.name: as_texts(columns[f.name]) for f in self.inputs if f.kind == "category"}
        flags = {f.name: np.asarray(found[f.name], dtype=np.float64) for f in self.derived if f.kind == "bool"}
        return pd.DataFrame(found | as_sent | flags, index=inputs.index)

    def without_unusable(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """Return the rows of a feature frame whose derived values are usable, and what is wrong with the others.

        The index and further columns stay. The sentence is `DerivedValues.summary`; empty if no row is left out.
        """
        values = matrix(frame, [feature.name for feature in self.derived]).T
        if self.derived_values.are_usable(values):
            return frame, ""
        return frame[self.derived_values.usable(values)], self.derived_values.summary(values)

    def usable_matrix(self, columns: Columns) -> FloatArray:
        """Return `matrix` without the rows whose derived values are unusable, unless all are."""
        matrix = self.matrix(columns)
        usable = self.derived_values.usable(self.derived_part(matrix))
        return matrix[usable] if usable.any() else matrix

    def probe_matrix(self) -> FloatArray:
        """Return the features of the probe rows that the API would accept."""
        return self.usable_matrix(self.probe_rows())

    def derived_part(self, matrix: FloatArray) -> FloatArray:
        """Return the derived features of a feature matrix, shape (derived features, n): a view."""
        return matrix.T[len(self.inputs) :]

    @cached_property
    def derived_values(self) -> DerivedValues:
        """Return the check of the derived features' values."""
        return DerivedValues(self.derived)

    @cached_property
    def hash(self) -> str:
        """Return the sha256 of the declarations that decide what the model sees, and of the derivation's results.

        Prose (descriptions, examples, adverse reasons) is not hashed, nor are a category's levels (but what a derivation makes of
        them), nor is the entity's key, which no model sees. The derivation is hashed by its results on fixed probe rows, not by
        its source. They are rounded to 9 significant digits, because platforms differ in the last bits.
        """
        declared = {
            "name": self.name,
            "inputs": [
                [f.name, f.kind, f.is_nullable]
                if f.kind == "category"
                else [f.name, f.kind, f.lower, f.upper, f.is_nullable]
                for f in self.inputs
            ],
            "derived": [[f.name, f.kind, f.is_nullable] for f in self.derived],
            "probe": {
                name: [str(v) if isinstance(v, str | None) else f"{v:.9g}" for v in values]
                for name, values in self.derive(self.probe_rows()).items()
            },
        }
        return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()

    def probe_rows(self) -> dict[str, npt.NDArray[Any]]:
        """Return `PROBE_ROWS` fixed rows of raw inputs: the limits, values between them, and missing values if allowed."""
        rng = np.random.default_rng(20)
        probe: dict[str, npt.NDArray[Any]] = {}
        for feature in self.inputs:
            if feature.kind == "category":
                probe[feature.name] = _probe_levels(feature)
                continue
            values = rng.uniform(feature.lower, min(feature.upper, feature.lower + 100.0), size=PROBE_ROWS)
            if feature.kind != "float":
                values = np.floor(values) if feature.kind == "int" else np.rint(values)
            values[:2] = feature.lower, feature.upper
            if feature.is_nullable:
                values[2:5] = np.nan
            probe[feature.name] = values
        return probe


def _probe_levels(feature: Feature) -> TextArray:
    """Return a category's values of the probe rows: declared levels, and some that nobody has seen."""
    some = [*sorted(feature.levels)[: PROBE_ROWS // 2], *UNSEEN_LEVELS]
    levels: TextArray = np.resize(np.array(some, dtype=object), PROBE_ROWS)
    if feature.is_nullable:
        levels[2:5] = None
    return levels


def _title(part: object) -> str:
    """Return a part of a contract for people: what it is, and its name, or what else it goes by."""
    names = (getattr(part, attribute, None) for attribute in ("name", "description", "code"))
    return f"{type(part).__name__} {shown(next((name for name in names if name), NOT_GIVEN))}"


def load_contract(use_case: str) -> ModelContract:
    """Load the contract named `package.module:attribute`; the working directory is searched too.

    Raises:
        ConfigurationError: if it cannot be imported, is not a `ModelContract`, or contradicts itself.
    """
    module_name, separator, attribute = use_case.partition(":")
    if not separator or not module_name or not attribute:
        raise ConfigurationError(f"USE_CASE={use_case!r} is not of the form package.module:contract")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # last: no file there can shadow an installed package
    try:
        contract = getattr(import_module(module_name), attribute)
    except ConfigurationError:
        raise
    except Exception as error:  # a user's module may raise anything while it is imported
        raise ConfigurationError(f"USE_CASE={use_case!r} cannot be loaded: {_told(error)}") from error
    if not isinstance(contract, ModelContract):
        raise ConfigurationError(f"USE_CASE={use_case!r} is a {type(contract).__name__}, not a ModelContract")
    return contract


def _told(error: Exception) -> str:
    """Return an error of a use case's module as text, with the line that raised it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {error}{place}"
