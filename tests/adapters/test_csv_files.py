"""One report names all problems of a file, with the settings that mend them; a file that is no CSV is told in our words."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pandera.pandas as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal.adapters.csv_files import check_file
from selfheal.adapters.datasets import data_format, input_schema, load_csv
from selfheal.domain.labelled_file.data_format import DataFormat
from selfheal.domain.labelled_file.report import DataReport
from selfheal.kit.errors import InvalidDataError, UnfitFileError
from selfheal.settings import load_settings
from tests import kinds_use_case
from tests.toy_use_case import contract

HEADER = "temperature_c,load_ratio,restarts,failed"
ROW = "60.5,0.5,1,0"


def written(folder: Path, *lines: str) -> Path:
    path = folder / "machines.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


def report_on(path: Path, how: DataFormat | None = None) -> DataReport:
    return check_file(path, contract, how or DataFormat()).report


def format_of(report: DataReport) -> DataFormat:
    """The format with the settings that a report names."""
    return data_format(load_settings(**{name.lower(): value for name, value in report.settings.items()}))


def format_of_env_file(folder: Path, report: DataReport) -> DataFormat:
    """The format with the lines that a report names, in a `.env`."""
    (folder / ".env").write_text("\n".join(report.setting_lines))
    return data_format(load_settings(_env_file=folder / ".env"))


def test_all_columns_are_named_at_once_with_a_remedy_each(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "Temp-C;load_ratio;restarts;failed;vendor;site;when",
        "60,5;0,5;few;yes;acme;north;2020-01-02",
        "?;9;1,5;no;acme;north;2020-01-01",
        "61,0;;1;no;acme;north;2020-01-01",
        "61,0;1;1;no;acme",
    )
    report = report_on(path)
    said = "\n".join(finding.sentence for finding in report.findings)
    for part in (
        "separated by ';', not by ','; set DATA_DELIMITER=';'",
        "column 'Temp-C': words for a missing value: '?' (1 row, line 3); set DATA_MISSING_WORDS='?'",
        "column 'Temp-C': numbers with a decimal comma: '60,5' (1 row, line 2), '61,0' (1 row, line 4); set DATA_DECIMAL=,",
        "column 'load_ratio': beyond the limits 0 to 5 in 1 row: line 3: 9; correct these rows, or widen",
        "column 'load_ratio': missing value in 1 row (line 4); fill or remove these rows, or declare the input with is_nullable",
        "column 'restarts': not a number in 1 row: 'few' (1 row, line 2); correct",
        "column 'restarts': not a whole number in 1 row: line 3: 1.5; correct these rows, or declare the input as a 'float'",
        "column 'failed': words for 1 and 0: 'no' (2 rows, lines 3, 4), 'yes' (1 row, line 2); set DATA_TRUE_WORDS=yes and",
        "column 'when': holds times that fall in 1 row, first in line 3",
        "3 columns ('vendor', 'site', 'when'): unknown to the contract; set DATA_IGNORED_COLUMNS=vendor,site,when, or",
        "1 row with other fields than the header: line 5: 5 fields under 7 columns ('61,0,1,1,no,acme'); correct or remove",
        "label: 1 of 3 rows are 1 (33.3 %), 2 are 0",
    ):
        assert part in said, said
    assert len(report.problems) == 12


def test_the_reading_of_the_bootstrap_raises_the_very_same_report(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER},vendor", "hot,9,1,0,acme")
    with pytest.raises(UnfitFileError) as caught:
        load_csv(path, contract)
    first, *sentences = str(caught.value).splitlines()
    report = report_on(path)
    assert first == f"{path}: 3 problems"
    assert sentences == [
        *(f"- {problem.sentence}" for problem in report.problems),
        "What settings can mend is mended by: DATA_IGNORED_COLUMNS=vendor",
    ]


def test_a_sound_column_is_named_too_and_a_constant_one_is_noted(tmp_path: Path) -> None:
    report = report_on(written(tmp_path, HEADER, ROW, "61,0.5,1,1", ",0.5,2,0"))
    said = [finding.sentence for finding in report.findings]
    assert said[:3] == [
        "column 'temperature_c': read as 'temperature_c', 60.5 to 61, missing in 1 row",
        "column 'load_ratio': is 0.5 in all 3 rows: nothing can be learned from it",
        "column 'restarts': read as 'restarts', 1 to 2",
    ]
    assert report.problems == ()


@pytest.mark.parametrize(
    ("labels", "true", "false"),
    [
        (("UP", "DOWN", "DOWN"), "UP", "DOWN"),
        (("Yes", "Yes", "No"), "Yes", "No"),
        (("2", "1", "1"), "2", "1"),
        (("-1", "-1", "1"), "1", "-1"),
    ],
)
def test_a_label_of_two_words_or_numbers_is_mended_by_settings(
    labels: tuple[str, ...], true: str, false: str, tmp_path: Path
) -> None:
    path = written(tmp_path, HEADER, *(f"60,0.5,{row},{label}" for row, label in enumerate(labels)))
    report = report_on(path)
    assert report.settings == {"DATA_TRUE_WORDS": true, "DATA_FALSE_WORDS": false}
    assert report_on(path, format_of(report)).problems == ()


def test_a_label_of_three_words_is_not_guessed(tmp_path: Path) -> None:
    report = report_on(written(tmp_path, HEADER, *(f"60,0.5,1,{label}" for label in ("a", "b", "c"))))
    assert report.settings == {}
    assert "a label is 1 or 0; name the words for them in DATA_TRUE_WORDS" in report.problem_lines[0]


def test_a_known_name_that_is_written_otherwise_is_recognised(tmp_path: Path) -> None:
    report = report_on(written(tmp_path, "temperature_c,Load Ratio,restarts,failed", ROW))
    (problem,) = report.problems
    assert "aliases=('Load Ratio',)" in problem.sentence
    assert report.settings == {}


def test_a_number_beyond_all_limits_that_repeats_may_stand_for_a_missing_value_unless_it_means_something_elsewhere(
    tmp_path: Path,
) -> None:
    rows = ("-999,0.5,1,0", "-999.0,0.5,1,1", "60,0.5,1,0")
    (problem,) = report_on(written(tmp_path, HEADER, *rows)).problems
    assert "if -999 stands for a missing value, set DATA_MISSING_WORDS=-999" in problem.remedy
    assert report_on(tmp_path / "machines.csv", DataFormat(missing_words=("-999",))).problems == ()
    both = report_on(written(tmp_path, HEADER, "-999,-999,1,0", "-999,-999,1,1")).problems
    assert all("set DATA_MISSING_WORDS=-999" in problem.remedy for problem in both)
    (problem,) = report_on(written(tmp_path, HEADER, "999,0.5,999,0", "999,0.5,1,1")).problems
    assert "DATA_MISSING_WORDS" not in problem.remedy


def test_separators_of_thousands_are_no_decimal_commas(tmp_path: Path) -> None:
    report = report_on(written(tmp_path, HEADER.replace(",", ";"), "60;0.5;1,234;0"))
    assert "DATA_DECIMAL" not in report.settings
    assert any("without separators of thousands" in problem.remedy for problem in report.problems)


def test_an_index_that_repeats_is_mended_by_ignoring_it(tmp_path: Path) -> None:
    path = written(tmp_path, f"id,{HEADER}", f"1,{ROW}", f"1,{ROW}")
    (problem,) = report_on(path).problems
    assert "set DATA_IGNORED_COLUMNS=id" in problem.remedy
    assert report_on(path, DataFormat(ignored_columns=("id",))).problems == ()


def test_a_column_that_the_settings_hide_from_the_contract_is_told(tmp_path: Path) -> None:
    (problem,) = report_on(written(tmp_path, HEADER, ROW), DataFormat(ignored_columns=("restarts",))).problems
    assert "take 'restarts' out of DATA_IGNORED_COLUMNS" in problem.sentence


def test_a_file_without_a_header_is_told_so(tmp_path: Path) -> None:
    report = report_on(written(tmp_path, ROW, ROW))
    assert "line 1 has no name that the contract knows: '60.5', '0.5', '1', '0'" in report.problems[0].sentence


def test_a_packed_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "machines.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\n{ROW}\n".encode()))
    assert load_csv(path, contract).to_numpy().tolist() == [[60.5, 0.5, 1, 0]]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04rest", "an Excel sheet; unpack it, or save the sheet as CSV"),
        (b"PAR1rest", "a Parquet file; save it as CSV"),
        ("a,b".encode("utf-16"), "text in UTF-16; save it as UTF-8"),
        (gzip.compress(b"a,b\n1,2\n" * 1_000, mtime=0)[:-20], "a damaged or incomplete gzip file; get it again"),
        (b"\x1f\x8bnot gzip", "a damaged or incomplete gzip file; get it again"),
        (f'{HEADER}\n"60"5,1,1,0\n'.encode(), "line 2: cannot be read as CSV: text follows the closing quote"),
        (f"{HEADER}\n{'x' * 200_000},1,1,0\n".encode(), "a field of more than 131,072 characters"),
        (b"", "line 1: blank; expected a header"),
    ],
)
def test_what_is_no_csv_is_told_in_our_words(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "machines.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidDataError) as caught:
        check_file(path, contract, DataFormat())
    assert told in str(caught.value)
    assert str(path) in str(caught.value)


NAMES = st.sampled_from(["vendor", "site", "a, b", 'quo"te', "owner's", "#1", "when"])


@settings(max_examples=40)
@given(
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    missing=st.sampled_from(["", "?", "None", "unknown", "N/A"]),
    truth=st.sampled_from([("yes", "no"), ("True", "False"), ("UP", "DOWN"), ("1", "0"), ("2", "1")]),
    extra=st.lists(NAMES, unique=True),
)
def test_the_settings_of_a_report_leave_nothing_to_mend(
    delimiter: str, decimal: str, missing: str, truth: tuple[str, str], extra: list[str]
) -> None:
    def line(*fields: str) -> str:
        quoted = (
            '"' + field.replace('"', '""') + '"'
            for field in (*fields, *(extra if fields[0] == "Temp-C" else ["x"] * len(extra)))
        )
        return delimiter.join(quoted)

    with tempfile.TemporaryDirectory() as folder:
        lines = [line("Temp-C", "load_ratio", "restarts", "failed")]
        lines += [
            line(missing if row % 3 else f"6{row}{decimal}5", f"0{decimal}5", str(row), truth[row % 2])
            for row in range(9)
        ]
        path = written(Path(folder), *lines)
        report = report_on(path)
        assert report_on(path, format_of_env_file(Path(folder), report)).problems == ()


NUMBERS = st.sampled_from(["-51", "-50", "0", "0.5", "1", "2.5", "5", "5.1", "300", "301", "1000", "1001", "", "inf"])


@settings(max_examples=60)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["0", "1", "2", ""])), min_size=1, max_size=3))
def test_the_report_refuses_what_the_schema_of_the_contract_refuses(rows: list[tuple[str, ...]]) -> None:
    import pandas as pd

    frame = (
        pd.DataFrame(rows, columns=HEADER.split(","))
        .replace("", "nan")
        .astype("float64")
        .rename(columns={"failed": "true_label"})
    )
    try:
        input_schema(contract).validate(frame, lazy=True)
        is_sound = True
    except pa.errors.SchemaErrors:
        is_sound = False
    with tempfile.TemporaryDirectory() as folder:
        kept = [row for row in rows if any(row)]
        if kept == rows:
            assert (report_on(written(Path(folder), HEADER, *map(",".join, rows))).problems == ()) == is_sound


KINDS_HEADER = "tenure_months,monthly_charge,PaperlessBilling,has_partner,plan,region,has_left"


def report_on_flags(folder: Path, *flags: str, how: DataFormat | None = None) -> DataReport:
    """The report on rows with these two flags."""
    rows = (f"3,20,{one},one year,Nord,{i % 2}" for i, one in enumerate(flags))
    return check_file(written(folder, KINDS_HEADER, *rows), kinds_use_case.contract, how or DataFormat()).report


def test_a_bool_of_a_file_is_true_or_false_or_1_or_0(tmp_path: Path) -> None:
    rows = [f"3,20,{flags},one year,Nord,1" for flags in ("true,False", "TRUE,", "1,0", "0,NA")]
    frame = load_csv(written(tmp_path, KINDS_HEADER, *rows), kinds_use_case.contract)
    assert frame["is_paperless"].tolist() == [1, 1, 1, 0]
    assert frame["has_partner"].isna().tolist() == [False, True, False, True]


def test_other_words_for_a_bool_are_named_by_settings_or_else_refused_with_the_remedy(tmp_path: Path) -> None:
    mendable = report_on_flags(tmp_path, "Yes,true", "No,false")
    assert mendable.settings == {"DATA_TRUE_WORDS": "Yes", "DATA_FALSE_WORDS": "No"}
    assert not report_on_flags(tmp_path, "Yes,true", "No,false", how=format_of(mendable)).problems
    said = "\n".join(one.sentence for one in report_on_flags(tmp_path, "2,perhaps", "0.5,true").problems)
    assert (
        "column 'PaperlessBilling': neither true (1) nor false (0) in 2 rows: line 2: 2, line 3: 0.5; correct" in said
    )
    assert (
        "column 'has_partner': neither true nor false in 1 row: 'perhaps' (1 row, line 2); correct these rows" in said
    )
    assert "DATA_TRUE_WORDS and DATA_FALSE_WORDS" in said


def report_on_levels(folder: Path, *levels: str, how: DataFormat | None = None) -> DataReport:
    """The report on rows with these fields of `plan` and `region`."""
    path = written(folder, KINDS_HEADER, *(f"3,20,true,false,{one},{i % 2}" for i, one in enumerate(levels)))
    return check_file(path, kinds_use_case.contract, how or DataFormat()).report


def test_levels_of_a_file_stay_as_they_are_and_blanks_are_missing(tmp_path: Path) -> None:
    fields = ["one year,Nord ", '"a, b",', "two years,NA", "3,?"]
    path = written(tmp_path, KINDS_HEADER, *(f"3,20,true,false,{one},1" for one in fields))
    frame = load_csv(path, kinds_use_case.contract, DataFormat(missing_words=("?",)))
    assert frame["plan"].tolist() == ["one year", "a, b", "two years", "3"]
    assert frame["region"].tolist() == ["Nord ", None, None, None]


def test_a_text_that_cannot_be_a_level_is_a_problem_with_its_line(tmp_path: Path) -> None:
    problems = report_on_levels(tmp_path, f"{'x' * 129},Nord", ",Nord", "one year,Nord").problems
    said = "\n".join(one.sentence for one in problems)
    assert "column 'plan': a text that has 129 characters: send a name of at most 128 in 'xxx" in said
    assert (
        "column 'plan': missing value in 1 row (line 3); fill or remove these rows, or declare the input with" in said
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["one year,a", "two years,b"] * 9, "read as 'plan', 2 levels"),
        (["one year,a", "One Year ,b"] * 9, "levels that differ by their spelling alone: 'one year' and 'One Year '"),
        (["1,a", "1.0,b", "two years,b"] * 9, "levels that differ by their spelling alone: '1' and '1.0'"),
        (["one year,a", "flat,b"] * 9, "levels that the contract does not declare: 'flat'; declare them"),
        (["one year,a"] * 9, "is 'one year' in all 9 rows: nothing can be learned from it"),
        ([f"one year,key {i}" for i in range(50)], "50 levels in 50 rows: it looks like a key"),
        (
            ["one year,NA", "two years,b", "two years,c"] * 9,
            "read as missing: 'NA' (9 rows, lines 2, 5, 8); let clients send null for it",
        ),
        (["one year,"] * 9, "is missing in all 9 rows, missing in 9 rows: nothing can be learned"),
    ],
)
def test_what_is_odd_about_levels_is_noted(tmp_path: Path, fields: list[str], said: str) -> None:
    report = report_on_levels(tmp_path, *fields)
    assert not report.problems, [one.sentence for one in report.problems]
    assert any(said in one.sentence for one in report.findings), [one.sentence for one in report.findings]
