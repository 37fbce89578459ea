"""Clustered rows: which rows are of one entity, and how many independent rows they are worth (design effect).

Belongs here: ids of entities (`row_clusters`), the design effect of a statistic (Kish, 1965), and the effective sample size
(Rao and Scott, 1984, Annals of Statistics 12; 1992, Biometrics 48). Does not belong here: any decision. What treats rows as
independent takes the ids as `clusters`: an int array, shape (n,), equal for rows of one entity; None if every row is its own.
Nothing is divided then, so such rows are judged to the same bits as without this module.

Without a key, equal inputs are one entity, and so are nearly equal ones where the rows show that they recur:

- Equal inputs mean nothing where inputs are so coarse that different cases look alike: with fewer than two columns in which most
  distinct rows have values of their own, rows count as their own.
- The number of pairs within a distance r grows like r^d in data of dimension d (correlation sum; Grassberger and Procaccia,
  1983, Physica D 9). Where it does not even double from r to 2 r, the pairs are recurrences and no neighbours by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from selfheal.domain.levels import matrix

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.domain.contract import FloatArray, ModelContract
    from selfheal.domain.features import Kind

IntArray: TypeAlias = npt.NDArray[np.int64]
Clusters: TypeAlias = IntArray | None

ENTITY = "_entity"
"""Name of the column with the key of a row's entity, in the journal, in tables and in frames; no feature's name begins with `_`."""

MATERIAL_DESIGN_EFFECT = 1.05
"""Design effect of whole copies from which rows are clustered: below, an interval would be wider by 2.5 % at most."""

RADII = (0.01, 0.02, 0.04, 0.08, 0.16)
"""Relative distances within which pairs are counted; each is twice the one before. Rows farther apart than 8 % in any input are
never one entity."""

MAX_GROWTH = 2.0
"""Growth of the number of pairs from a radius to its double, at most, of recurring rows; in data of two dimensions chance gives 4."""

MIN_FINE_COLUMNS, FINE_SHARE = 2, 0.5
"""Columns in which an equal value is no coincidence that are needed, and the number of their distinct values per distinct row."""

MAX_COUNTED_ROWS = 800
"""Rows in which pairs are counted, evenly spaced, so that a tick's cost is bounded (4 ms)."""

MAX_PAIRS_PER_ROW = 50
"""Pairs that are linked at most, per row: beyond, everything would be near everything."""

MIN_INFORMATIVE_CLUSTERS = 20
"""Clusters that differ from the mean at all, from which their spread is known; with fewer, rows count as whole copies."""

FAR = 1e6
"""Place of a missing or infinite value: far from every other, and equal to itself."""


def row_clusters(rows: pd.DataFrame, contract: ModelContract) -> Clusters:
    """Return the entity of each row, or None if every row is its own, or nearly so.

    Args:
        rows: all inputs of the contract; `ENTITY` too if it declares a key. Rows without a key are entities by their inputs.
    """
    by_inputs = _by_inputs(rows, contract)
    keys = entity_keys(rows, contract)
    if keys is None:
        return by_inputs
    own = np.arange(len(rows)) if by_inputs is None else by_inputs
    found = np.unique(np.where(keys < 0, own, own.max() + 1 + keys), return_inverse=True)[1].astype(np.int64)
    return found if copies_effect(found) >= MATERIAL_DESIGN_EFFECT else None


def entity_keys(rows: pd.DataFrame, contract: ModelContract) -> IntArray | None:
    """Return a number for each row's key, -1 where none was sent; None if no row has one.

    Rows have the column `ENTITY` if the contract declared a key when they were read: a stored training set means what it meant.
    """
    import pandas as pd

    name = ENTITY if ENTITY in rows.columns else contract.entity
    if name not in rows.columns:
        return None
    codes = pd.factorize(rows[name])[0].astype(np.int64)
    return codes if (codes >= 0).any() else None


def key_clusters(rows: pd.DataFrame, contract: ModelContract | None = None) -> Clusters:
    """Return the entity of each row by its key alone, a row without one being its own; None if hardly any row recurs.

    Args:
        contract: names the input that is the key, if one is.
    """
    import pandas as pd

    name = ENTITY if ENTITY in rows.columns or contract is None else contract.entity
    if name not in rows.columns or len(rows) < 2:
        return None
    codes = pd.factorize(rows[name])[0].astype(np.int64)
    own = np.arange(len(rows)) + codes.max() + 1
    found = np.unique(np.where(codes < 0, own, codes), return_inverse=True)[1].astype(np.int64)
    return found if copies_effect(found) >= MATERIAL_DESIGN_EFFECT else None


def recurs_in(rows: pd.DataFrame, others: pd.DataFrame, contract: ModelContract) -> npt.NDArray[np.bool_]:
    """Return which rows are of an entity that is among the others; shape (n,), bool.

    With a key, that decides. Rows without one are of an entity of the others if their inputs are equal, or nearly equal where
    such rows recur.
    """
    import pandas as pd

    together = pd.concat([rows, others], ignore_index=True)
    is_other = np.arange(len(together)) >= len(rows)
    keys = entity_keys(together, contract)
    has_key = np.zeros(len(together), dtype=np.bool_) if keys is None else keys >= 0
    found = np.zeros(len(rows), dtype=np.bool_)
    if keys is not None:
        found |= (has_key & np.isin(keys, keys[is_other & has_key]))[: len(rows)]
    if contract.equal_inputs_are_one_case:
        inputs = matrix(together, contract.input_names) + 0.0
        ids = [_input_ids(inputs), _by_inputs(together, contract)]
        for by_inputs in (one for one in ids if one is not None):
            found |= (~has_key & np.isin(by_inputs, by_inputs[is_other & ~has_key]))[: len(rows)]
    return found


def of_newest_entities(rows: pd.DataFrame, wanted: int, clusters: IntArray) -> npt.NDArray[np.bool_]:
    """Return which rows are of the entities with the newest rows, which have at least `wanted`."""
    who = np.unique(clusters, return_inverse=True)[1]
    last = np.zeros(int(who.max()) + 1, dtype=np.int64)
    last[who] = np.arange(len(rows))  # the last of several assignments stays
    newest_first = np.argsort(-last)
    n_entities = int(np.searchsorted(np.cumsum(np.bincount(who)[newest_first]), wanted)) + 1
    since = last[newest_first[n_entities - 1]]
    if "created_at" in rows.columns:  # entities whose newest rows are of one moment stay together
        since = int((rows["created_at"] < rows["created_at"].iloc[since]).sum())
    return np.asarray(last[who] >= since)


def fold_groups(rows: pd.DataFrame, contract: ModelContract, clusters: Clusters) -> Clusters:
    """Return which rows may not be on both sides of a fold, however few recur: an entity's, and equal inputs if that is one case.

    Args:
        clusters: the entity of each row (`row_clusters`).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, links = len(rows), [] if clusters is None else [(np.arange(len(rows)), clusters)]
    keys = entity_keys(rows, contract)
    if keys is not None:
        links.append((np.flatnonzero(keys >= 0), keys[keys >= 0]))
    if contract.equal_inputs_are_one_case:
        inputs = matrix(rows, contract.input_names) + 0.0
        links.append((np.arange(n), _input_ids(inputs)))
    size, pairs = n, []
    for members, groups in links:
        pairs.append((members, size + groups))
        size += int(groups.max(initial=-1)) + 1
    if not pairs:
        return None
    left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(size, size))
    found: IntArray = connected_components(graph, directed=False)[1][:n].astype(np.int64)
    return found if len(np.unique(found)) < n else None


def _by_inputs(rows: pd.DataFrame, contract: ModelContract) -> Clusters:
    if not contract.equal_inputs_are_one_case or len(rows) < 2:
        return None
    values = matrix(rows, contract.input_names) + 0.0  # -0 is 0
    ids = _input_ids(values)
    if _n_fine(values[np.unique(ids, return_index=True)[1]]) < MIN_FINE_COLUMNS:
        return None
    found = _near(values, [contract.kinds[name] for name in contract.input_names], ids)
    return found if copies_effect(found) >= MATERIAL_DESIGN_EFFECT else None


def copies_effect(clusters: IntArray) -> float:
    """Return the design effect if the rows of an entity are copies of each other: sum m^2 / sum m with m rows each.

    >>> copies_effect(np.array([0, 0, 1, 1]))
    2.0
    """
    sizes = _sizes(clusters)
    return float((sizes**2).sum() / sizes.sum())


def design_effect(values: FloatArray, clusters: Clusters) -> float:
    """Return the design effect of a mean of `values`: the variance by clusters over that of independent rows; at least 1.

    With sums s of the deviations from the mean in each of C clusters it is C / (C - 1) sum s^2 / sum of squared deviations. If
    fewer than `MIN_INFORMATIVE_CLUSTERS` clusters deviate, it is at least `copies_effect`.

    Args:
        values: shape (n,); those of a ratio are its linearised ones.
    """
    if clusters is None:
        return 1.0
    deviations = values - values.mean()
    sums = cluster_sums(deviations, clusters)
    spread = float((deviations**2).sum())
    n_clusters = int((_sizes(clusters) > 0).sum())
    if spread <= 0.0 or n_clusters < 2:
        return copies_effect(clusters)
    effect = n_clusters / (n_clusters - 1) * float((sums**2).sum()) / spread
    usual = np.median(deviations)  # most rows of a sparse statistic share one value
    n_informative = int((cluster_sums((deviations != usual).astype(np.float64), clusters) > 0).sum())
    least = copies_effect(clusters) if n_informative < MIN_INFORMATIVE_CLUSTERS else 1.0
    return max(1.0, least, effect)


def cluster_sums(values: FloatArray, clusters: IntArray) -> FloatArray:
    """Return the sum of each cluster's values, shape (C, ...), in the order of the ids."""
    n_clusters = int(clusters.max()) + 1
    if values.ndim == 1:
        return np.bincount(clusters, weights=values, minlength=n_clusters).astype(np.float64)
    return np.column_stack([np.bincount(clusters, weights=column, minlength=n_clusters) for column in values.T])


def n_entities(clusters: IntArray) -> int:
    """Return how many entities the rows are of."""
    return int(np.count_nonzero(_sizes(clusters)))


def uniform_variates(rng: np.random.Generator, shape: tuple[int, int], clusters: Clusters) -> npt.NDArray[np.float32]:
    """Return uniform variates, shape (draws, rows), in which the rows of an entity share theirs: its outcome is one."""
    if clusters is None:
        return rng.random(shape, dtype=np.float32)
    return rng.random((shape[0], int(clusters.max()) + 1), dtype=np.float32)[:, clusters]


def within(clusters: Clusters, is_within: npt.NDArray[np.bool_]) -> Clusters:
    """Return the clusters of a part of the rows; None if each of them is its own."""
    if clusters is None:
        return None
    part = clusters[is_within]
    return part if len(part) and _sizes(part).max() > 1 else None


def worth(n_rows: int, clusters: Clusters, effect: float) -> str:
    """Return what clustered rows are worth, for a sentence; empty if every row is its own."""
    if clusters is None:
        return ""
    return f" ({n_rows:,} rows of {n_entities(clusters):,} entities, worth {n_rows / effect:,.0f} independent rows)"


def _sizes(clusters: IntArray) -> FloatArray:
    return np.bincount(clusters).astype(np.float64)


# Entities without a key


def _input_ids(values: FloatArray) -> IntArray:
    """Return equal ids for rows with equal inputs, a missing value being equal to another."""
    import pandas as pd

    keys = pd.util.hash_pandas_object(pd.DataFrame(values), index=False).to_numpy()
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def _near(values: FloatArray, kinds: Sequence[Kind], ids: IntArray) -> IntArray:
    """Join the ids of rows that are nearly equal, where such rows recur."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    first = np.unique(ids, return_index=True)[1]  # one row of each id; ids are its order
    places = _places(values[first], kinds)
    radius = _radius(places)
    if radius is None:
        return ids
    tree = cKDTree(places)
    if tree.count_neighbors(tree, radius, p=np.inf) > MAX_PAIRS_PER_ROW * len(first):
        return ids
    pairs = tree.query_pairs(radius, p=np.inf, output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(first), len(first)))
    joined: IntArray = connected_components(links, directed=False)[1].astype(np.int64)
    return joined[ids]


def _radius(places: FloatArray) -> float | None:
    """Return the largest radius within which pairs recur rather than neighbour; None if none does."""
    from scipy.spatial import cKDTree

    step = math.ceil(len(places) / MAX_COUNTED_ROWS)
    some = places[::step]
    tree = cKDTree(some)
    counts = (tree.count_neighbors(tree, RADII, p=np.inf) - len(some)) / 2
    for number in range(len(RADII) - 2, -1, -1):
        if 0 < counts[number + 1] <= MAX_GROWTH * counts[number]:
            return RADII[number]
    return None


def _n_fine(values: FloatArray) -> int:
    """Return in how many columns most of these distinct rows have values of their own."""
    least = FINE_SHARE * len(values)
    return sum(len(np.unique(column[~np.isnan(column)])) >= least for column in values.T)


def _places(values: FloatArray, kinds: Sequence[Kind]) -> FloatArray:
    """Return coordinates in which a difference of r is one of a share r of the value.

    A whole number below 1 / (2 r) then differs from the next one by more than r, so that small counts must be equal. Levels of a
    category are further apart than any r.
    """
    return np.column_stack([_place(column, kind) for column, kind in zip(values.T, kinds, strict=True)])


def _place(column: FloatArray, kind: Kind) -> FloatArray:
    if kind == "category":
        place = np.where(np.isnan(column), np.nan, np.unique(column, return_inverse=True)[1].astype(np.float64))
    else:
        known = np.abs(column[~np.isnan(column) & (column != 0)])
        smallest = 1.0 if kind != "float" or not len(known) else float(np.quantile(known, 0.05))
        with np.errstate(over="ignore", invalid="ignore"):  # a value that no contract allows is as far as can be
            place = np.arcsinh(column / smallest)
    return np.where(np.isnan(place), FAR, np.clip(place, -FAR / 2, FAR / 2))
