"""Natural streams: recognised by their columns, with source and licence, the champion's rows before all others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfheal.kit.errors import ConfigurationError, InvalidDataError
from selfheal.simulate.replay import natural
from selfheal.simulate.replay.natural import (
    ELEC2,
    KNOWN,
    RAINFALL,
    natural_deployment,
    read_named,
    read_rainfall,
    recognised,
)
from selfheal.simulate.replay.stream_file import Columns
from tests.simulate.replay.small import stream


def elec2(folder: Path, n_rows: int = 400) -> Path:
    rng = np.random.default_rng(1)
    path = folder / "any_name.csv"
    rows = [",".join(f"{value:.4f}" for value in rng.random(6)) + f",{rng.integers(2)}" for _ in range(n_rows)]
    path.write_text("\n".join([",".join(ELEC2.header), *rows]) + "\n")
    return path


def test_elec2_is_recognised_by_its_columns_half_an_hour_apart_with_labels_a_day_later(tmp_path: Path) -> None:
    name, found = read_named(elec2(tmp_path), None)
    assert name == "elec2"
    assert set(np.diff(found.event_time).tolist()) == {np.timedelta64(30, "m").astype("m8[us]").item()}
    assert ((found.label_time - found.event_time) == np.timedelta64(1, "D")).all()
    assert found.contract.input_names == ELEC2.header[:-1]


def test_another_file_is_not_recognised_and_needs_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,0\n")
    assert recognised(path) is None
    with pytest.raises(InvalidDataError, match="none of the known streams"):
        read_named(path, None)
    with pytest.raises(InvalidDataError, match="only 1 rows have the true label 0"):
        read_named(path, Columns(label="b", every=1))


def test_each_stream_states_its_source_and_licence() -> None:
    assert {known.name for known in KNOWN} == {"elec2", "rainfall"}
    assert all(known.source and known.licence for known in KNOWN)


def test_rainfall_comes_with_its_package_in_its_order() -> None:
    found = read_rainfall()
    assert len(found) == 18_159
    assert found.contract.input_names[:2] == ("temperature", "dew_point")
    assert abs(float(found.true_label.mean()) - 0.314) < 0.001
    assert len(found.contract.inputs) == len(RAINFALL.header) - 2


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natural, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'selfheal\[replay\]'"):
        read_rainfall()


def test_the_champion_learns_from_the_first_rows_and_serves_the_others() -> None:
    whole = stream(800)
    found = natural_deployment("s", whole, seed=1, n_learn=500, n_rows=200)
    np.testing.assert_array_equal(found.learned_from.columns["load_ratio"], whole.columns["load_ratio"][:500])
    np.testing.assert_array_equal(found.stream.columns["load_ratio"], whole.columns["load_ratio"][500:700])
    assert found.change is None


def test_a_stream_that_is_too_short_is_refused() -> None:
    with pytest.raises(InvalidDataError, match="use a longer one"):
        natural_deployment("s", stream(60), seed=1, n_learn=60)
