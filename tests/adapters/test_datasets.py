"""The CSV door: what comes in unchanged, and how what does not is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from selfheal.adapters.datasets import frame_digest, inspect_dataset, load_csv, load_dataset
from selfheal.domain.clusters import ENTITY
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.entity_key import pseudonym
from selfheal.domain.labelled_file.tally import MAX_LISTED
from selfheal.domain.retraining.dataset import bootstrap_training_set
from selfheal.kit.errors import InvalidDataError, UnfitFileError
from selfheal.settings import default_settings, load_settings
from tests.toy_use_case import contract, keyed

if TYPE_CHECKING:
    import pandas as pd

    from selfheal.settings import Settings

HEADER = "temperature_c,load_ratio,restarts,failed"
ROW = "60.5,0.5,1,0"


def csv_file(folder: Path, *lines: str, newline: str = "\n", encoding: str = "utf-8") -> Path:
    path = folder / "machines.csv"
    path.write_bytes("".join(line + newline for line in lines).encode(encoding))
    return path


def refusal(path: Path) -> str:
    """The message with which the file is refused; it always names the file."""
    with pytest.raises(InvalidDataError) as caught:
        load_csv(path, contract)
    message = str(caught.value)
    assert str(path) in message
    return message


def loaded(folder: Path, *lines: str, newline: str = "\n", encoding: str = "utf-8") -> list[list[float]]:
    frame = load_csv(csv_file(folder, *lines, newline=newline, encoding=encoding), contract)
    assert list(frame.index) == list(range(len(frame)))
    assert frame[TRUE_LABEL].dtype == np.int64
    values: list[list[float]] = frame.to_numpy().tolist()
    return values


# What is fine


def test_the_index_column_is_optional_and_left_out(tmp_path: Path) -> None:
    expected = [[60.5, 0.5, 1.0, 0.0]]
    assert loaded(tmp_path, HEADER, ROW) == expected
    for index in ("", "id", "Index", "Unnamed: 0"):
        assert loaded(tmp_path, f"{index},{HEADER}", f"1,{ROW}") == expected


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    assert loaded(tmp_path, HEADER, ROW, encoding="utf-8-sig") == [[60.5, 0.5, 1.0, 0.0]]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_break_is_fine(newline: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, HEADER, ROW, "61,0.25,2,1", newline=newline) == [[60.5, 0.5, 1, 0], [61, 0.25, 2, 1]]


@pytest.mark.parametrize("blank", ["", "   ", ",,,"])
def test_blank_lines_are_fine_and_do_not_shift_the_line_numbers(blank: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, HEADER, ROW, blank, ROW, blank) == [[60.5, 0.5, 1.0, 0.0]] * 2
    assert "'hot' (1 row, line 4)" in refusal(csv_file(tmp_path, HEADER, ROW, blank, "hot,0.5,1,0"))


def test_aliases_any_order_and_surrounding_blanks_are_fine(tmp_path: Path) -> None:
    assert loaded(tmp_path, "Failed_24h, restarts ,Temp-C,load-ratio", " 1 , 2,60.5 , 0.5") == [[60.5, 0.5, 2, 1]]


@pytest.mark.parametrize("text", ["", "NA", "NaN", "nan", "null", "NULL", "  "])
def test_a_missing_value_may_be_written_in_several_ways(text: str, tmp_path: Path) -> None:
    assert np.isnan(loaded(tmp_path, HEADER, f"{text},0.5,1,0")[0][0])


def test_a_whole_number_may_be_written_with_a_fraction_of_zero(tmp_path: Path) -> None:
    assert loaded(tmp_path, HEADER, "60,0.5,2.0,1.0") == [[60.0, 0.5, 2.0, 1.0]]


def test_quoted_fields_are_fine(tmp_path: Path) -> None:
    assert loaded(tmp_path, HEADER, '"60.5","0.5","1","0"') == [[60.5, 0.5, 1.0, 0.0]]


def test_the_limits_themselves_are_allowed(tmp_path: Path) -> None:
    assert loaded(tmp_path, HEADER, "-50,0,0,0", "300,5,1000,1") == [[-50, 0, 0, 0], [300, 5, 1000, 1]]


@given(st.floats(-50, 300), st.floats(0, 5))
def test_a_number_arrives_to_the_last_bit(temperature: float, load: float) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        assert loaded(Path(folder), HEADER, f"{temperature!r},{load!r},1,0")[0][:2] == [temperature, load]


# What is refused


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.csv")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "is a directory; DATA must name the CSV file in it" in refusal(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert "expected a header here" in refusal(csv_file(tmp_path))


def test_a_blank_first_line_is_refused(tmp_path: Path) -> None:
    assert "line 1: blank" in refusal(csv_file(tmp_path, "", HEADER, ROW))


@pytest.mark.parametrize("lines", [(HEADER,), (HEADER, "", "")])
def test_a_header_without_rows_is_refused(lines: tuple[str, ...], tmp_path: Path) -> None:
    assert "a header but no rows" in refusal(csv_file(tmp_path, *lines))


def test_a_missing_column_is_refused_with_the_names_it_may_have(tmp_path: Path) -> None:
    message = refusal(csv_file(tmp_path, "load_ratio,restarts", "0.5,1"))
    assert "the input has no column of the name 'temperature_c' or 'Temp-C'; add the column" in message
    assert "the label has no column of the name 'failed' or 'Failed-24h'; add the column" in message


def test_an_unknown_column_is_refused_with_the_setting_that_ignores_it(tmp_path: Path) -> None:
    message = refusal(csv_file(tmp_path, f"{HEADER},vibration", f"{ROW},3"))
    assert "column 'vibration': unknown to the contract; set DATA_IGNORED_COLUMNS=vibration" in message


@pytest.mark.parametrize(("double", "name"), [("restarts", "restarts"), ("Temp_C", "temperature_c")])
def test_a_column_that_is_there_twice_is_refused(double: str, name: str, tmp_path: Path) -> None:
    message = refusal(csv_file(tmp_path, f"{HEADER},{double}", f"{ROW},1"))
    assert f"column {double!r}: stands for {name!r}, which is there already; remove one" in message


def test_a_derived_feature_is_not_taken_from_a_file(tmp_path: Path) -> None:
    assert "column 'strain': unknown to the contract" in refusal(csv_file(tmp_path, f"{HEADER},strain", f"{ROW},1"))


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(("row", "n_fields"), [(f"{ROW},7", 5), (f"{ROW},", 5), ("60.5,0.5,1", 3)])
def test_a_row_with_too_many_or_too_few_fields_is_refused(
    row: str, n_fields: int, position: int, tmp_path: Path
) -> None:
    rows = [ROW] * 3
    rows[position] = row
    message = refusal(csv_file(tmp_path, HEADER, *rows))
    assert f"line {position + 2}: {n_fields} fields under 4 columns ({row!r})" in message


def test_a_file_of_which_every_row_has_a_field_too_many_is_refused(tmp_path: Path) -> None:
    assert "line 2: 5 fields under 4 columns" in refusal(csv_file(tmp_path, HEADER, f"{ROW},7", f"{ROW},8"))


@pytest.mark.parametrize("text", ["hot", "1_000", "0x10", "1 000", "6\x000"])
def test_text_in_a_number_is_refused(text: str, tmp_path: Path) -> None:
    message = refusal(csv_file(tmp_path, HEADER, ROW, f"{text},0.5,1,0"))
    assert (
        f"column 'temperature_c': not a number in 1 row: {text!r} (1 row, line 3); correct these rows and leave"
        in message
    )


def test_a_refusal_names_the_column_as_the_file_does(tmp_path: Path) -> None:
    header = HEADER.replace("temperature_c", "Temp-C")
    assert "column 'Temp-C'" in refusal(csv_file(tmp_path, header, "hot,0.5,1,0"))
    assert "column 'Temp-C': beyond the limits -50 to 300 in 1 row: line 2: 301" in refusal(
        csv_file(tmp_path, header, "301,0.5,1,0")
    )


@pytest.mark.parametrize("text", ["-50.1", "300.5", "inf", "-inf", "1e400"])
def test_a_value_beyond_the_limits_is_refused(text: str, tmp_path: Path) -> None:
    message = refusal(csv_file(tmp_path, HEADER, ROW, f"{text},0.5,1,0"))
    assert f"column 'temperature_c': beyond the limits -50 to 300 in 1 row: line 3: {float(text):g}; correct" in message


def test_a_fraction_in_a_whole_number_is_refused(tmp_path: Path) -> None:
    assert "column 'restarts': not a whole number in 1 row: line 2: 1.5" in refusal(
        csv_file(tmp_path, HEADER, "60,0.5,1.5,0")
    )


def test_a_missing_value_where_there_must_be_one_is_refused(tmp_path: Path) -> None:
    assert "'load_ratio': missing value in 1 row (line 2); fill" in refusal(csv_file(tmp_path, HEADER, "60,,1,0"))


@pytest.mark.parametrize("label", ["2", "-1", "0.5", "inf"])
def test_a_label_that_is_not_0_or_1_is_refused(label: str, tmp_path: Path) -> None:
    message = refusal(csv_file(tmp_path, HEADER, f"60,0.5,1,{label}"))
    assert f"column 'failed': neither 0 nor 1 in 1 row: line 2: {float(label):g}" in message


def test_a_missing_label_is_refused(tmp_path: Path) -> None:
    assert "column 'failed': missing value in 1 row (line 3); remove" in refusal(
        csv_file(tmp_path, HEADER, ROW, "60,0.5,1,")
    )


def test_an_index_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    message = refusal(csv_file(tmp_path, f",{HEADER}", f"1,{ROW}", "", f"2,{ROW}", f"1,{ROW}"))
    assert "column '': index '1' is there twice (1 row in all, line 5); drop the repeated rows" in message


def test_a_quote_that_never_ends_is_refused(tmp_path: Path) -> None:
    message = refusal(csv_file(tmp_path, HEADER, ROW, '"60,0.5,1,0'))
    assert "line 3: cannot be read as CSV: a quote is opened and never closed" in message


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    message = refusal(csv_file(tmp_path, HEADER, ROW, "\xe9,0.5,1,0", encoding="latin-1"))
    assert "line 3: byte 0xe9 is not UTF-8; save the file as UTF-8" in message


def test_all_problems_are_counted_and_the_first_ones_shown(tmp_path: Path) -> None:
    message = refusal(csv_file(tmp_path, HEADER, *["60,9,1,0"] * 20))
    assert "column 'load_ratio': beyond the limits 0 to 5 in 20 rows" in message
    assert message.count("line ") == MAX_LISTED
    assert "\n" not in message


# Which data set is in force


@pytest.fixture
def settings_here(tmp_path: Path) -> Settings:
    return load_settings(use_case="tests.toy_use_case:contract", data_dir=tmp_path, synthetic_rows=1_000)


def test_without_a_file_the_stand_in_is_used_and_says_so(settings_here: Settings) -> None:
    dataset = load_dataset(settings_here, contract)
    assert dataset.origin == "synthetic"
    assert dataset.description == "1,000 SYNTHETIC stand-in rows (seed 20)"


def test_the_contracts_file_in_the_data_folder_is_used_if_it_is_there(settings_here: Settings, tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER, ROW)
    dataset = load_dataset(settings_here, contract)
    assert (dataset.origin, dataset.description) == ("real", "1 real rows (machines.csv)")


def test_a_named_file_that_is_not_there_is_not_replaced_by_the_stand_in(
    settings_here: Settings, tmp_path: Path
) -> None:
    named = settings_here.model_copy(update={"data": tmp_path / "absent.csv"})
    with pytest.raises(InvalidDataError, match="no such file"):
        load_dataset(named, contract)


def test_data_rows_takes_the_first_rows_unless_all_are_asked_for(settings_here: Settings) -> None:
    limited = settings_here.model_copy(update={"data_rows": 600})
    first, everything = load_dataset(limited, contract), load_dataset(limited, contract, all_rows=True)
    assert (len(first.frame), len(everything.frame)) == (600, 1_000)
    assert first.frame.equals(everything.frame.iloc[:600])
    assert first.sha256 != everything.sha256


def test_a_stand_in_that_breaks_its_contract_is_refused(settings_here: Settings) -> None:
    def without_load(n_rows: int, seed: int) -> pd.DataFrame:
        return contract.synthesize(n_rows, seed).drop(columns="load_ratio")

    def too_hot(n_rows: int, seed: int) -> pd.DataFrame:
        return contract.synthesize(n_rows, seed).assign(temperature_c=999.0)

    with pytest.raises(InvalidDataError, match=r"the synthetic stand-in: 1 values break the .*'load_ratio'"):
        load_dataset(settings_here, dataclasses.replace(contract, synthesize=without_load))
    with pytest.raises(InvalidDataError, match=r"row 0, column 'temperature_c': 999\.0"):
        load_dataset(settings_here, dataclasses.replace(contract, synthesize=too_hot))


def test_the_digest_is_of_the_rows_and_names() -> None:
    frame = contract.synthesize(20, 1)
    assert frame_digest(frame) == frame_digest(contract.synthesize(20, 1).set_axis(range(5, 25)))
    assert frame_digest(frame) != frame_digest(frame.iloc[::-1])
    assert frame_digest(frame) != frame_digest(frame.rename(columns={"restarts": "starts"}))
    assert frame_digest(frame) != frame_digest(frame.assign(load_ratio=frame["load_ratio"] + 1e-12))


def test_without_a_file_and_without_a_stand_in_there_is_no_data(settings_here: Settings) -> None:
    with pytest.raises(
        InvalidDataError,
        match=r"no data for 'machine_failure': name a labelled CSV in DATA, or put it at .*machines\.csv",
    ):
        load_dataset(settings_here, dataclasses.replace(contract, synthesize=None))


# The key of an entity


def test_a_file_s_key_parts_its_rows_by_entity_and_is_kept_as_pseudonyms(tmp_path: Path) -> None:
    rows = contract.synthesize(600, 1)
    who = np.random.default_rng(1).integers(100, size=600)
    path = tmp_path / "machines.csv"
    rows.assign(machine=[f"M-{one}" for one in who]).to_csv(path, index=False)
    settings = default_settings().model_copy(
        update={"data": path, "data_dir": tmp_path, "entity_secret": SecretStr("a secret of the tests")}
    )
    report, dataset = inspect_dataset(settings, keyed)
    assert report is not None
    assert dataset is not None
    sentences = [one.sentence for one in report.findings]
    assert any("the key of 100 entities, which is no input" in one for one in sentences)
    assert any("600 rows are of 100 cases: entities recur" in one for one in sentences)
    assert dataset.frame[ENTITY].iloc[0] == pseudonym(f"M-{who[0]}", b"a secret of the tests")
    halves = bootstrap_training_set(dataset.frame, keyed, source="rows", min_evaluation_rows=100)
    learned, judged = (set(halves.part(part)[ENTITY]) for part in ("train", "evaluation"))
    assert not learned & judged
    assert len(learned | judged) == 100


def test_a_simulation_reads_no_key_and_a_contract_without_one_refuses_the_column(tmp_path: Path) -> None:
    path = tmp_path / "machines.csv"
    contract.synthesize(50, 1).assign(machine="M-1").to_csv(path, index=False)
    settings = default_settings().model_copy(update={"data": path, "data_dir": tmp_path})
    assert ENTITY not in load_dataset(settings, keyed, all_rows=True).frame
    with pytest.raises(UnfitFileError, match="machine"):
        load_dataset(settings, contract)
