"""What worker processes build from: the same everywhere, and told apart by what it depends on."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfheal.kit.errors import ConfigurationError, InvalidDataError
from selfheal.simulate.replay.builders import Rebuilder, StreamFile, named_streams
from selfheal.simulate.replay.deployment import Kind
from selfheal.simulate.replay.stream_file import Columns
from tests.toy_use_case import contract

BUILDER = Rebuilder("tests.toy_use_case:contract", days_after=3.0)


def machines(folder: Path, n_rows: int = 2_500, seed: int = 5) -> Path:
    path = folder / "machines.csv"
    contract.synthesize(n_rows, seed).to_csv(path, index=False)
    return path


def test_a_world_is_built_from_a_users_file(tmp_path: Path) -> None:
    found = replace(BUILDER, data=machines(tmp_path)).build("sudden_at_0_days", seed=1)
    assert found.kind is Kind.HARMFUL
    assert found.days == 3.0
    assert len(found.learned_from) == round(0.45 * 2_500)


def test_without_a_file_the_rows_are_synthetic() -> None:
    assert len(BUILDER.build("calm_50_a_day", seed=1).learned_from) == 8_000


def test_a_fingerprint_changes_with_the_rows_the_length_and_the_world(tmp_path: Path) -> None:
    builder = replace(BUILDER, data=machines(tmp_path))
    (tmp_path / "other").mkdir()
    others = (
        builder.fingerprint("sudden"),
        replace(builder, data=machines(tmp_path / "other", seed=6)).fingerprint("calm"),
        replace(builder, days_after=None).fingerprint("calm"),
        replace(builder, use_case="other:contract").fingerprint("calm"),
    )
    assert builder.fingerprint("calm") == pickle.loads(pickle.dumps(builder)).fingerprint("calm")
    assert builder.fingerprint("calm") not in others


def test_a_stream_file_becomes_a_deployment_by_its_name(tmp_path: Path) -> None:
    path = machines(tmp_path)
    columns = Columns(label="true_label", every=3_600_000_000, label_delay=3_600_000_000)
    streams = named_streams((StreamFile(path, columns), StreamFile(path, columns)))
    assert [name for name, _ in streams] == ["machines", "machines_2"]
    found = replace(BUILDER, streams=streams).build("machines_2", seed=1)
    assert found.kind is Kind.NATURAL
    assert len(found.learned_from) == 625
    assert found.stream.event_time[0] == found.start
    assert np.isfinite(found.champion.threshold)


def test_a_file_of_unknown_columns_needs_them_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match="name its columns with --label and --time"):
        named_streams((StreamFile(machines(tmp_path)),))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"no world or stream .paradise.; worlds: calm.*streams: rainfall"):
        BUILDER.build("paradise", seed=1)
