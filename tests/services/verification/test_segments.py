"""Missing, shortened or unreadable evidence is a finding, and rows are checked where the journal is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from selfheal.adapters.journal import LABEL_JOURNAL, compress, encode_lines, prediction_journal
from selfheal.adapters.postgres import retention
from selfheal.adapters.postgres.ingest import ingest
from selfheal.adapters.postgres.journal_seals import RETENTION, SEGMENT, Seal
from selfheal.services.platform import Platform
from selfheal.services.verification.findings import CheckResult
from selfheal.services.verification.journaled import check_journals
from selfheal.services.verification.run import verify_everything
from selfheal.services.verification.segments import check_rows, check_segments, row_problems, sealed_rows
from tests.times import T0
from tests.traffic import SECOND, Sent, ingest_all, journal_labels, serve, toy_rows

N_ROWS = 300
HOUR = timedelta(hours=1)


def execute(platform: Platform, statement: str, **values: Any) -> None:
    with platform.store.engine.begin() as connection:
        connection.execute(text(statement), values)


@pytest.fixture
def sent(platform: Platform) -> Sent:
    """Predictions of two hours, two in three of them labelled, in journal files that are finished, copied and sealed."""
    return serve(platform, toy_rows(N_ROWS), start=T0 + SECOND, step=20 * SECOND, labelled_share=2 / 3)


def prediction_file(platform: Platform) -> Path:
    (path,) = prediction_journal(platform.contract).files(platform.settings.data_dir)
    return path


def with_own_server(platform: Platform) -> Platform:
    """The platform as if no other host could use its database; nothing is asked of another server."""
    return replace(platform, settings=platform.settings.model_copy(update={"database_url": None}))


def sound(*results: CheckResult) -> bool:
    return all(result.n_findings == result.n_unchecked == 0 for result in results)


def test_a_deleted_journal_file_and_rows_edited_after_it_are_found(platform: Platform, sent: Sent) -> None:
    assert sound(check_segments(platform), check_rows(platform))
    assert check_rows(platform).n_checked == N_ROWS + N_ROWS * 2 // 3
    path = prediction_file(platform)
    path.unlink()
    (missing,) = check_segments(platform).findings
    assert missing.startswith(f"predictions/{path.name}: is not there any more")
    assert "its rows in Postgres are checked against its digest" in missing
    assert sound(check_rows(platform))
    edit = """
        UPDATE prediction_logs SET probability = 0.5
        WHERE prediction_id IN (SELECT prediction_id FROM prediction_logs ORDER BY created_at LIMIT 100)
    """
    execute(platform, edit)
    (changed,) = check_rows(platform).findings
    assert "do not agree with their digest: 180 rows, sealed were 180" in changed
    found = verify_everything(platform, n_verdicts=0)
    assert {result.name for result in found.results if result.n_findings} == {
        "journal files",
        "rows of sealed journal files",
    }


SOME = "prediction_id = (SELECT min(prediction_id::text)::uuid FROM prediction_logs)"


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE prediction_logs SET load_ratio = load_ratio + 1e-9 WHERE {SOME}",
        f"UPDATE prediction_logs SET created_at = created_at + interval '1 us' WHERE {SOME}",
        f"UPDATE prediction_logs SET journal_segment = NULL WHERE {SOME}",
        f"DELETE FROM prediction_logs WHERE {SOME}",
        f"UPDATE label_store SET true_label = 1 - true_label WHERE {SOME}",
        f"UPDATE label_store SET journal_segment = NULL, true_label = 1 - true_label WHERE {SOME}",
        f"DELETE FROM label_store WHERE {SOME}",
        "UPDATE journal_positions SET journal_segment = DEFAULT",
    ],
)
def test_whatever_is_done_to_a_row_of_a_sealed_file_is_found_without_the_file(
    platform: Platform, sent: Sent, statement: str
) -> None:
    for kind in (prediction_journal(platform.contract), LABEL_JOURNAL):
        for path in kind.files(platform.settings.data_dir):
            path.unlink()
    assert sound(check_rows(platform))
    execute(platform, statement)
    assert check_rows(platform).n_findings > 0


def test_a_row_that_is_added_to_a_sealed_file_is_found(platform: Platform, sent: Sent) -> None:
    names = ", ".join(f'"{column.name}"' for column in platform.store.tables.prediction_logs.columns)
    forged = names.replace('"prediction_id"', "gen_random_uuid()")
    execute(platform, f"INSERT INTO prediction_logs ({names}) SELECT {forged} FROM prediction_logs WHERE {SOME}")
    (found,) = check_rows(platform).findings
    assert "181 rows, sealed were 180" in found


# Files


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


def pack_and_damage(path: Path) -> None:
    packed = compress(path)
    data = packed.read_bytes()
    packed.write_bytes(data[:200] + b"\xff\x00\xff" + data[203:])


def pack_and_cut(path: Path) -> None:
    packed = compress(path)
    packed.write_bytes(packed.read_bytes()[:-100])


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def rewrite_a_line(path: Path) -> None:
    """With a checksum that is right."""
    lines = path.read_bytes().splitlines(keepends=True)
    fields: list[str | float | int | bool | None] = list(lines[5].decode().split(",")[:-1])
    fields[3] = 1 - int(str(fields[3]))
    path.write_bytes(b"".join([*lines[:5], encode_lines([fields]), *lines[6:]]))


def add_a_line(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[-1]]))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut, "ends at byte"),
        (pack_and_damage, "cannot be read"),
        (pack_and_cut, "cannot be read"),
        (replace_by_folder, "cannot be read"),
        (rewrite_a_line, "has changed since it was sealed"),
        (add_a_line, "has changed since it was sealed"),
    ],
)
def test_a_file_that_is_not_what_it_was_is_found(
    platform: Platform, sent: Sent, damage: Callable[[Path], None], told: str
) -> None:
    path = prediction_file(platform)
    damage(path)
    (found,) = check_segments(platform).findings
    assert found.startswith(f"predictions/{path.name}: {told}")
    assert verify_everything(platform, n_verdicts=0).has_findings
    assert sound(check_rows(platform))


def test_a_file_of_another_host_is_not_checked_and_that_is_said(platform: Platform, sent: Sent) -> None:
    prediction_file(platform).unlink()
    for folder in ("another", None):  # None: copied by a release that did not record it
        execute(platform, "UPDATE journal_positions SET folder = :folder", folder=folder)
        found = check_segments(platform)
        assert (found.n_findings, found.n_unchecked) == (0, 1)
        assert "1 journal files that were copied to this database are not in" in found.unchecked[0]
        assert check_segments(with_own_server(platform)).n_findings == 1, "an embedded server has one data folder"


def test_a_moved_data_folder_is_still_the_one_that_its_files_belong_to(platform: Platform, sent: Sent) -> None:
    prediction_file(platform).unlink()
    after = platform.settings.data_dir.with_name("moved")
    platform.settings.data_dir.rename(after)
    moved = replace(platform, settings=platform.settings.model_copy(update={"data_dir": after}))
    assert check_segments(moved).n_findings == 1


def test_a_file_that_is_being_written_is_checked_by_its_lines_and_its_rows_are_not_counted_as_sealed(
    platform: Platform,
) -> None:
    from selfheal.adapters.journal import Journal

    kind = prediction_journal(platform.contract)
    sent = serve(platform, toy_rows(20), labelled_share=0)
    lines = prediction_file(platform).read_bytes().splitlines(keepends=True)[1:]
    writer = Journal(kind, platform.settings.data_dir, 1_000_000)
    writer.write(b"".join(lines))
    ingest_all(platform)
    try:
        assert sound(check_segments(platform), check_rows(platform))
        assert check_rows(platform).n_checked == len(sent.prediction_ids)
        assert writer.path is not None
        writer.path.unlink()
        (found,) = check_segments(platform).findings
        assert "its rows cannot be checked without it" in found
    finally:
        writer.close()


# What an older release has copied


def test_rows_of_an_older_release_are_checked_by_the_lines_and_lost_with_them(platform: Platform, sent: Sent) -> None:
    """It recorded no numbers of files: nothing tells which rows were in a file that is gone."""
    as_older_release = """
        UPDATE prediction_logs SET journal_segment = NULL; UPDATE label_store SET journal_segment = NULL;
        UPDATE journal_positions SET folder = NULL;
        ALTER TABLE journal_seals DISABLE TRIGGER journal_seals_are_immutable;
        DELETE FROM journal_seals
    """
    execute(platform, as_older_release)
    ingest_all(platform)
    found = verify_everything(platform, n_verdicts=0)
    assert found.is_sound, [(r.name, r.findings, r.unchecked) for r in found.results]
    execute(platform, f"UPDATE prediction_logs SET probability = 0.5 WHERE {SOME}")
    assert sound(check_rows(platform)), "no digest covers them"
    (lines,) = (one for one in check_journals(platform, {}, lambda _: None) if one.n_findings)
    assert lines.name == "predictions in the journal"


# Corrections and retention


def test_a_correction_leaves_both_files_sound(platform: Platform, sent: Sent) -> None:
    one = sent.prediction_ids[0]
    for hours, label in ((3, 1), (4, 0), (5, 1)):
        journal_labels(
            platform.settings.data_dir, [one], [label], received_at=T0 + hours * HOUR, is_correction=True, source="desk"
        )
        ingest_all(platform)
        assert sound(check_rows(platform))
    execute(platform, "UPDATE overruled_labels SET true_label = 1 - true_label WHERE label_source = 'desk'")
    assert check_rows(platform).n_findings > 0


def test_what_retention_deletes_is_no_finding_and_may_come_back_by_a_replay(platform: Platform, sent: Sent) -> None:
    def everything_is_sound() -> bool:
        found = verify_everything(platform, n_verdicts=0)
        return found.is_sound

    kind = prediction_journal(platform.contract)
    assert retention.delete_unlabelled_predictions(platform.store, T0 + 5 * HOUR) == N_ROWS // 3
    assert everything_is_sound()
    ingest(platform.store, kind, platform.settings.data_dir, from_start=True)
    assert everything_is_sound()
    assert retention.delete_unlabelled_predictions(platform.store, T0 + 5 * HOUR) == N_ROWS // 3
    assert everything_is_sound()
    execute(platform, f"DELETE FROM prediction_logs WHERE {SOME}")
    assert check_rows(platform).n_findings == 1


def test_retention_does_not_bless_what_was_edited_before_it(platform: Platform, sent: Sent) -> None:
    newest = "(SELECT max(created_at) FROM prediction_logs)"
    execute(platform, f"UPDATE prediction_logs SET probability = 0.5 WHERE created_at = {newest}")
    retention.delete_unlabelled_predictions(platform.store, T0 + 5 * HOUR)
    (found,) = check_rows(platform).findings
    assert "had been changed before retention deleted a part of them" in found


# The rule


def seal(position: int, file: str, *states: tuple[int, str]) -> Seal:
    return Seal(position, SEGMENT, "predictions", file, {"rows": [group(file, *state) for state in states]})


def thinned(position: int, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Seal:
    return Seal(position, RETENTION, "predictions", None, {"before": before, "after": after})


def group(file: str, n_rows: int, sha256: str) -> dict[str, Any]:
    return {"file": file, "hour": T0.isoformat(), "model_version": 1, "n_rows": n_rows, "sha256": sha256}


def found(file: str, *state: Any) -> dict[Any, Any]:
    return {("predictions", file, T0, 1): state}


def test_rows_of_a_file_that_is_not_sealed_yet_are_under_no_digest() -> None:
    assert list(row_problems(sealed_rows([]), found("live", 5, "x"))) == []


def test_what_was_deleted_before_the_seal_is_no_part_of_it() -> None:
    sealed = sealed_rows([thinned(1, [group("f", 3, "a")], [group("f", 2, "b")]), seal(2, "f", (2, "b"))])
    assert sealed.problems == ()
    assert list(row_problems(sealed, found("f", 2, "b"))) == []
    assert len(list(row_problems(sealed, found("f", 3, "a")))) == 1


def test_a_group_may_be_in_any_state_that_it_was_left_in_on_purpose_and_in_no_other() -> None:
    seals = [
        seal(1, "f", (3, "a")),
        thinned(2, [group("f", 3, "a")], [group("f", 1, "b")]),
        thinned(3, [group("f", 1, "b")], []),
    ]
    sealed = sealed_rows(seals)
    assert sealed.problems == ()
    for state in ((3, "a"), (1, "b")):
        assert list(row_problems(sealed, found("f", *state))) == []
    assert list(row_problems(sealed, {})) == []
    assert len(list(row_problems(sealed, found("f", 3, "c")))) == 1


def test_sealed_rows_that_are_all_gone_are_found() -> None:
    (problem,) = row_problems(sealed_rows([seal(1, "f", (3, "a"))]), {})
    assert "0 rows, sealed were 3" in problem
