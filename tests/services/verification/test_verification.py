"""`verify` finds whatever was done to what is kept, and says what it could not look at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from sqlalchemy import text

from selfheal.adapters.decision_log import decision_folder
from selfheal.adapters.journal import LABEL_JOURNAL, prediction_journal
from selfheal.adapters.mlflow_registry import PRODUCTION_ALIAS
from selfheal.adapters.postgres import chain, decisions, model_versions
from selfheal.adapters.postgres.embedded import EmbeddedServer
from selfheal.domain.contract import TRUE_LABEL
from selfheal.domain.records import Action, Decision, GateStatus, Promotion, Stage, Trigger
from selfheal.domain.retraining import snapshot
from selfheal.domain.retraining.dataset import TrainingSet
from selfheal.kit.errors import IntegrityError, PermanentError
from selfheal.services.platform import Platform, open_platform
from selfheal.services.promotion.going_live import promote
from selfheal.services.verification.artifacts import (
    check_models,
    check_references,
    check_training_sets,
    stores_training_set,
)
from selfheal.services.verification.decided import (
    check_chain,
    check_files,
    check_promotions,
    promotion_problems,
    version_problems,
)
from selfheal.services.verification.findings import MAX_SHOWN, Check, CheckResult, Verification
from selfheal.services.verification.journaled import check_journals
from selfheal.services.verification.run import verify_decision, verify_everything
from selfheal.services.verification.verdicts import check_verdicts, verdict_differences
from tests import builders
from tests.clones import copy_of
from tests.conftest import TEMPLATE, WITH_MLFLOW, drop_databases
from tests.services.steps import decide, retrain, whole_tick
from tests.times import T0
from tests.traffic import SECOND, Sent, ingest_all, journal_labels, journal_predictions, serve, toy_rows

HOUR = timedelta(hours=1)
N_ROWS = 1_200
RECORD = "record in the chain and as a file"
CHAIN, FILES, PROMOTIONS = "chain of decisions", "files of decisions", "promotions"
MODELS, SETS, ALIAS = "model files", "training sets", "alias and stage tags"
PREDICTIONS, VERSIONS, LABELS = "predictions in the journal", "versions in the journal", "labels in the journal"
ROWS, VERDICTS = "rows of training sets in the journal", "verdicts, computed again"


@pytest.fixture(scope="module")
def platform(
    server: EmbeddedServer, bootstrapped_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """Version 2 learned from drifted traffic, beat version 1 by a verdict and is live. Each test restores what it did."""
    data_dir = tmp_path_factory.mktemp("verified") / "data"
    opened = open_platform(copy_of(server, TEMPLATE, bootstrapped_template, "verified", data_dir, kinds=WITH_MLFLOW))
    now = serve(opened, toy_rows(N_ROWS, scenario="overheating")).last_at + HOUR
    episode_id = whole_tick(opened, now).episode_id
    verdict = retrain(opened, decide(opened, Trigger.DRIFT, now, episode_id), now)
    assert verdict.is_promotion, verdict.decision.reason
    promote(opened, verdict, now)
    serve(opened, toy_rows(50, seed=2, scenario="overheating"), start=now + SECOND)
    yield opened
    opened.close()
    drop_databases(server, "verified")


def verified(platform: Platform, **options: Any) -> Verification:
    return verify_everything(platform, **options)


def findings(platform: Platform, **options: Any) -> dict[str, tuple[str, ...]]:
    """What each check found that found something."""
    return {result.name: result.findings for result in verified(platform, **options).results if result.n_findings}


def journal_findings(platform: Platform) -> dict[str, tuple[str, ...]]:
    """What the checks of the journal find, without training sets."""
    return {one.name: one.findings for one in check_journals(platform, {}, lambda _: None) if one.n_findings}


def quiet(_: str) -> None:
    """Nobody listens."""


def verdict_of(platform: Platform) -> Decision:
    return decisions.recent(platform.store, 1, [Action.PROMOTE])[0]


def execute(platform: Platform, statement: str, **values: Any) -> None:
    with platform.store.engine.begin() as connection:
        connection.execute(text(statement), values)


@contextmanager
def swapped(path: Path, data: bytes) -> Iterator[None]:
    """Another content in a file, for a while."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


@contextmanager
def rows_changed(platform: Platform, table: str, statement: str) -> Iterator[None]:
    """Runs a statement and puts the table's rows back at the end, past its triggers."""
    execute(platform, f"CREATE TABLE before AS SELECT * FROM {table}")
    columns = platform.store.tables.metadata.tables[table].columns
    key = next(iter(platform.store.tables.metadata.tables[table].primary_key)).name
    try:
        execute(platform, statement)
        yield
    finally:
        names = ", ".join(f'"{column.name}"' for column in columns)
        changed = ", ".join(f'"{c.name}" = b."{c.name}"' for c in columns if c.identity is None)
        execute(platform, f"DELETE FROM {table} t WHERE NOT EXISTS (SELECT 1 FROM before b WHERE b.{key} = t.{key})")
        execute(
            platform, f"UPDATE {table} t SET {changed} FROM before b WHERE t.{key} = b.{key} AND t IS DISTINCT FROM b"
        )
        execute(
            platform,
            f"INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM before b "
            f"WHERE NOT EXISTS (SELECT 1 FROM {table} t WHERE t.{key} = b.{key})",
        )
        execute(platform, "DROP TABLE before")


def run_file(platform: Platform, version: int, name: str) -> Path:
    """A file of a version's run, where MLflow keeps it."""
    from tests.candidates import mlflow_client

    registered = model_versions.model_version(platform.store, version)
    assert registered is not None
    uri = mlflow_client(platform).get_run(registered.mlflow_run_id).info.artifact_uri
    return Path(unquote(urlparse(uri).path)) / name


def model_path(platform: Platform, version: int) -> Path:
    registered = model_versions.model_version(platform.store, version)
    assert registered is not None
    root = run_file(platform, version, "x").parents[2]
    (found,) = (
        path
        for path in root.rglob("model.skops")
        if hashlib.sha256(path.read_bytes()).hexdigest() == registered.artifact_sha256
    )
    return found


def test_where_nothing_was_touched_everything_agrees_and_everything_was_looked_at(platform: Platform) -> None:
    found = verified(platform)
    assert found.is_sound, [(r.name, r.findings, r.unchecked) for r in found.results]
    assert [result.name for result in found.results if result.n_checked == 0] == []
    counts = {result.name: result.n_checked for result in found.results}
    assert (counts[PREDICTIONS], counts[LABELS], counts[ROWS]) == (N_ROWS + 50, N_ROWS + 50, N_ROWS)
    assert (counts[MODELS], counts[VERDICTS]) == (4, 2)
    assert found.chain_head == decisions.chain_head(platform.store)


# Decisions


def test_an_edited_decision_row_is_found(platform: Platform) -> None:
    verdict = verdict_of(platform)
    edit = f"UPDATE retraining_decisions SET actor = 'nobody' WHERE decision_id = '{verdict.decision_id}'"
    with rows_changed(platform, "retraining_decisions", edit):
        found = findings(platform, n_verdicts=0)
        assert verify_decision(platform, verdict.decision_id).has_findings
    assert f"decision {verdict.decision_id}: its content does not match its hash" in found[CHAIN]
    assert any("differs from" in one for one in found[FILES])


def test_a_deleted_decision_is_found(platform: Platform) -> None:
    (training,) = (one for one in decisions.recent(platform.store, 9, [Action.TRAIN]) if one.trigger_reason == "drift")
    delete = f"DELETE FROM retraining_decisions WHERE decision_id = '{training.decision_id}'"
    with rows_changed(platform, "retraining_decisions", delete):
        found = findings(platform, n_verdicts=0)
        assert verify_decision(platform, training.decision_id).has_findings
    assert any("the record before it in the chain is missing" in one for one in found[CHAIN])
    assert any(f"decision {training.decision_id} is in " in one for one in found[FILES])


def test_an_edited_a_missing_and_a_foreign_file_of_a_decision_are_found(platform: Platform) -> None:
    paths = sorted(decision_folder(platform.settings.data_dir).glob("*.json"))
    foreign = paths[0].with_name("notes.json")
    with (
        swapped(paths[0], paths[0].read_bytes().replace(b'"actor": "test"', b'"actor": "nobody"')),
        swapped(paths[1], b"{}"),
    ):
        foreign.write_text('{"decision_id": "made-up"}')
        try:
            found = check_files(platform).findings
        finally:
            foreign.unlink()
    assert len(found) == 4, "the second file is no record, and its decision has none"
    assert any(paths[0].name in one and "differs" in one for one in found)
    assert f"{paths[1].name} is not a decision record" in found
    assert "decision made-up is in notes.json but not in Postgres" in found


def test_a_head_that_was_noted_elsewhere_must_be_in_the_chain_still(platform: Platform) -> None:
    first = decisions.page(platform.store, 100)[-1].hash
    for head in (decisions.chain_head(platform.store), first, chain.GENESIS):
        assert check_chain(platform, expected_head=head).findings == ()
    assert "the chain was cut" in findings(platform, expected_head="f" * 64, n_verdicts=0)[CHAIN][0]


# Promotions


def promotion(position: int, version: int, replaced: int | None, **changes: Any) -> Promotion:
    values = {
        "position": position,
        "model_name": "machine_failure",
        "version": version,
        "replaced_version": replaced,
        "decision_id": f"d{position}",
        "promoted_at": T0 + position * HOUR,
    }
    return Promotion(**(values | changes))


LIVE = [promotion(1, 1, None), promotion(2, 2, 1)]
DECIDED = {
    f"d{one.position}": builders.decision(
        action=Action.PROMOTE,
        champion_version=one.replaced_version,
        mlflow_run_id=f"run{one.version}",
        model_sha256="a" * 64,
    )
    for one in LIVE
}
KNOWN = {
    one.version: builders.model_version(
        version=one.version,
        stage=Stage.PRODUCTION if one.version == 2 else Stage.ARCHIVED,
        mlflow_run_id=f"run{one.version}",
        promoted_at=one.promoted_at,
        decision_id=one.decision_id,
    )
    for one in LIVE
}


def test_promotions_that_fit_decisions_and_versions_are_sound() -> None:
    assert list(promotion_problems(LIVE, DECIDED, KNOWN)) == []
    assert list(version_problems(LIVE, list(KNOWN.values()))) == []
    assert list(version_problems([], [])) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"replaced_version": 7}, "said to have replaced 7, but 1 was live"),
        ({"decision_id": "gone"}, "by decision gone, which is not readable"),
        ({"version": 9}, "is not in model_metadata"),
        ({"version": 1}, "is on the model of run run2, not of run1"),
    ],
)
def test_a_promotion_that_contradicts_the_rest_is_found(changes: dict[str, Any], told: str) -> None:
    found = list(promotion_problems([LIVE[0], replace(LIVE[1], **changes)], DECIDED, KNOWN))
    assert any(told in one for one in found), found


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"action": Action.REJECT}, "is to reject"),
        ({"champion_version": 3}, "was to replace 3, not 1"),
        ({"model_sha256": "e" * 64}, "on a model with sha256 eeee"),
    ],
)
def test_a_decision_that_did_not_say_what_was_done_is_found(changes: dict[str, Any], told: str) -> None:
    decided = DECIDED | {"d2": replace(DECIDED["d2"], **changes)}
    (found,) = promotion_problems(LIVE, decided, KNOWN)
    assert told in found


@pytest.mark.parametrize(
    ("version", "changes", "told"),
    [
        (2, {"stage": Stage.ARCHIVED}, "in production: [] by model_metadata, [2] by the promotions"),
        (1, {"stage": Stage.PRODUCTION}, "in production: [1, 2]"),
        (1, {"stage": Stage.STAGING}, "version 1 is staging, but went live"),
        (2, {"promoted_at": T0}, "version 2 went live at 2026-03-02 12:00:00+00:00 by decision d2 as model_metadata"),
        (1, {"version": 5}, "version 5 is archived, but never went live"),
    ],
)
def test_a_stage_that_no_promotion_explains_is_found(version: int, changes: dict[str, Any], told: str) -> None:
    versions = KNOWN | {version: replace(KNOWN[version], **changes)}
    assert any(told in one for one in version_problems(LIVE, list(versions.values())))


def test_a_version_that_is_live_by_hand_is_found(platform: Platform) -> None:
    edit = "UPDATE model_metadata SET promoted_at = promoted_at + interval '1 hour' WHERE version = 2"
    with rows_changed_of_versions(platform, edit):
        (found,) = check_promotions(platform).findings
    assert "as model_metadata has it" in found


@contextmanager
def rows_changed_of_versions(platform: Platform, edit: str) -> Iterator[None]:
    execute(platform, edit)
    try:
        yield
    finally:
        execute(platform, edit.replace("+ interval", "- interval"))


# Files that decisions rest on


def test_a_swapped_model_file_is_found_although_the_cache_has_the_right_one(platform: Platform) -> None:
    with swapped(model_path(platform, 2), model_path(platform, 1).read_bytes()):
        found = findings(platform, n_verdicts=0)
        live = model_versions.champion(platform.store)
        assert platform.registry.load(live), "from the cache"
    (sentence,) = found[MODELS]
    assert sentence.startswith("model of version 2: has changed: expected sha256")
    assert set(found) == {MODELS}


def test_a_model_file_that_is_not_there_any_more_is_found(platform: Platform) -> None:
    path = model_path(platform, 2)
    aside = path.rename(path.with_suffix(".aside"))
    try:
        (found,) = check_models(platform, quiet).findings
    finally:
        aside.rename(path)
    assert "is not there" in found


def test_a_model_swapped_together_with_its_digest_is_found_by_the_decision(platform: Platform) -> None:
    live = model_versions.champion(platform.store)
    edit = "UPDATE model_metadata SET artifact_sha256 = :sha256 WHERE version = 2"
    execute(platform, edit, sha256="e" * 64)
    try:
        (by_decision,), by_run = check_promotions(platform).findings, check_models(platform, quiet).findings
    finally:
        execute(platform, edit, sha256=live.artifact_sha256)
    assert "on a model with sha256" in by_decision
    assert any("its run has" in one for one in by_run)


def test_a_changed_reference_is_found(platform: Platform) -> None:
    path = run_file(platform, 2, "reference.parquet")
    with swapped(path, path.read_bytes() + b"x"):
        (found,) = check_references(platform, quiet).findings
    assert found.startswith("reference of version 2: has changed")


def test_a_changed_first_baseline_is_found(platform: Platform) -> None:
    (path,) = (platform.settings.data_dir / "reference").glob("*.parquet")
    with swapped(path, path.read_bytes() + b"x"):
        (found,) = check_references(platform, quiet).findings
    assert found.startswith("first baseline: has changed")


def test_a_first_baseline_that_cannot_be_read_is_found(platform: Platform) -> None:
    (path,) = (platform.settings.data_dir / "reference").glob("*.parquet")
    aside = path.rename(path.with_suffix(".aside"))
    path.mkdir()
    try:
        (found,) = check_references(platform, quiet).findings
    finally:
        path.rmdir()
        aside.rename(path)
    assert "cannot be read" in found


def with_a_label_turned(training_set: TrainingSet) -> TrainingSet:
    frame = training_set.frame.copy()
    frame.loc[frame.index[-1], TRUE_LABEL] = 1 - frame[TRUE_LABEL].iloc[-1]
    return TrainingSet(frame, replace(training_set.info, sha256=snapshot.rows_digest(frame)))


def test_a_changed_training_set_is_found(platform: Platform) -> None:
    """Also if its own digest, and the one beside it, were made to fit: the chain has it, too."""
    live = model_versions.champion(platform.store)
    path, beside = (run_file(platform, 2, name) for name in (snapshot.FILE_NAME, "metadata.json"))
    original = platform.registry.training_set(live)
    forged = with_a_label_turned(original)
    with swapped(path, snapshot.to_parquet(forged)):
        (found_set,) = findings(platform, n_verdicts=0)[SETS]
        assert "its rows should have sha256" in found_set
        metadata = beside.read_bytes().replace(original.info.sha256.encode(), forged.info.sha256.encode())
        with swapped(beside, metadata):
            found = findings(platform)
    assert any(f"rests on {original.info.sha256}" in one for one in found[SETS])
    assert any("it rests on rows with sha256" in one for one in found[VERDICTS])


def test_a_training_set_that_is_not_there_any_more_is_found(platform: Platform) -> None:
    path = run_file(platform, 2, snapshot.FILE_NAME)
    aside = path.rename(path.with_suffix(".aside"))
    try:
        (found,) = check_training_sets(platform, [], quiet).findings
    finally:
        aside.rename(path)
    assert f"{snapshot.FILE_NAME} is not there" in found


def test_a_training_set_that_a_release_did_not_store_is_not_checked_and_no_finding(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the verdict, which the chain covers: its limits had no seed then."""
    path = run_file(platform, 2, snapshot.FILE_NAME)
    aside = path.rename(path.with_suffix(".aside"))
    stored = decisions.all_readable(platform.store)
    older = {
        key: one and replace(one, gate_config={k: v for k, v in (one.gate_config or {}).items() if k != "seed"})
        for key, one in stored.items()
    }
    monkeypatch.setattr(decisions, "all_readable", lambda _: older)
    try:
        found = check_training_sets(platform, [], quiet)
    finally:
        aside.rename(path)
    assert (found.n_findings, found.n_unchecked) == (0, 1)
    assert "the release that trained it did not store the rows" in found.unchecked[0]


def test_a_run_that_nothing_was_decided_on_is_not_taken_for_one_of_an_older_release() -> None:
    older = builders.decision(action=Action.PROMOTE, gate_config={"level": 0.05})
    assert not stores_training_set([older])
    assert stores_training_set([])
    assert stores_training_set([builders.decision(action=Action.FORCE_PROMOTE)])
    assert stores_training_set([older, builders.decision(action=Action.REJECT, gate_config={"seed": 1})])


def test_a_moved_alias_is_found_and_not_set_right(platform: Platform) -> None:
    platform.registry.point_alias(PRODUCTION_ALIAS, 1)
    try:
        found = findings(platform, n_verdicts=0)
        assert platform.registry.alias_version(PRODUCTION_ALIAS) == 1
    finally:
        platform.registry.point_alias(PRODUCTION_ALIAS, 2)
    assert found == {ALIAS: ("alias production: points at version 1, but 2 is in production",)}


# The journal


def some_prediction(platform: Platform) -> str:
    with platform.store.engine.connect() as connection:
        return str(connection.execute(text("SELECT min(prediction_id::text) FROM prediction_logs")).scalar_one())


@pytest.mark.parametrize(
    "edit",
    ["probability = 0.123", "temperature_c = 999", "restarts = NULL", "created_at = created_at + interval '1 us'"],
)
def test_a_prediction_that_was_edited_in_postgres_is_found(platform: Platform, edit: str) -> None:
    one = some_prediction(platform)
    with rows_changed(platform, "prediction_logs", f"UPDATE prediction_logs SET {edit} WHERE prediction_id = '{one}'"):
        found = journal_findings(platform)
    assert found == {PREDICTIONS: (f"prediction {one} in Postgres differs from the journal",)}


def test_a_prediction_that_was_deleted_from_postgres_is_found(platform: Platform) -> None:
    one = some_prediction(platform)
    with rows_changed(platform, "prediction_logs", f"DELETE FROM prediction_logs WHERE prediction_id = '{one}'"):
        found = journal_findings(platform)
    assert found == {PREDICTIONS: (f"prediction {one} is in the journal but not in Postgres",)}


def test_a_label_that_was_edited_or_deleted_in_postgres_is_found(platform: Platform) -> None:
    one = some_prediction(platform)
    for statement in (
        f"UPDATE label_store SET true_label = 1 - true_label WHERE prediction_id = '{one}'",
        f"DELETE FROM label_store WHERE prediction_id = '{one}'",
    ):
        with rows_changed(platform, "label_store", statement):
            found = journal_findings(platform)
        assert found == {LABELS: (f"the label of {one} in Postgres is not what the journal makes it",)}


def test_rows_of_a_training_set_that_the_journal_has_otherwise_are_found(platform: Platform) -> None:
    original = platform.registry.training_set(model_versions.champion(platform.store))
    frame = original.frame.copy()
    frame.loc[frame.index[-3:], "restarts"] += 1.0
    frame.loc[frame.index[-9], "prediction_id"] = "00000000-0000-0000-0000-000000000000"
    name = "the training set"
    results = check_journals(platform, {name: lambda: replace(original, frame=frame)}, lambda _: None)
    (rows,) = (result for result in results if result.name == ROWS)
    assert rows.findings == (f"3 rows of {name} differ from the journal", f"1 rows of {name} are not in the journal")


def test_rows_older_than_the_journal_that_is_here_are_told_and_no_finding(platform: Platform) -> None:
    original = platform.registry.training_set(model_versions.champion(platform.store))
    frame = original.frame.copy()
    frame.loc[frame.index[-1], "prediction_id"] = "00000000-0000-0000-0000-000000000000"
    frame.loc[frame.index[-1], "created_at"] = T0 - HOUR
    results = check_journals(platform, {"it": lambda: replace(original, frame=frame)}, lambda _: None)
    (rows,) = (result for result in results if result.name == ROWS)
    assert (rows.findings, rows.unchecked) == ((), ("1 rows of it are older than the journal that is here",))


def test_a_damaged_line_of_the_journal_is_found(platform: Platform) -> None:
    path = prediction_journal(platform.contract).files(platform.settings.data_dir)[0]
    data = path.read_bytes()
    with swapped(path, data[:-30] + b"0" + data[-29:]):
        found = journal_findings(platform)
    assert any("damaged line in the journal" in one for one in found[PREDICTIONS])


def test_a_file_of_the_journal_that_was_cut_is_found(platform: Platform) -> None:
    path = prediction_journal(platform.contract).files(platform.settings.data_dir)[0]
    with swapped(path, path.read_bytes()[:-500]):
        found = journal_findings(platform)
    assert any("ends at byte" in one for one in found[PREDICTIONS])


def remove_files(platform: Platform, paths: set[Path]) -> None:
    """Journal files, as if they had never been."""
    for path in paths:
        path.unlink()
        execute(platform, "DELETE FROM journal_positions WHERE file = :file", file=path.name)


@contextmanager
def more_traffic(platform: Platform, **options: Any) -> Iterator[Sent]:
    """Predictions that are forgotten at the end, in the journal and in Postgres."""
    rows = toy_rows(5, seed=9)
    kind = prediction_journal(platform.contract)
    before = set(kind.files(platform.settings.data_dir))
    sent = journal_predictions(
        platform.settings.data_dir, platform.contract, rows, rows[TRUE_LABEL].to_numpy() * 0.5, **options
    )
    try:
        yield sent
    finally:
        remove_files(platform, set(kind.files(platform.settings.data_dir)) - before)
        ids = [str(one) for one in sent.prediction_ids]
        execute(platform, "DELETE FROM prediction_logs WHERE prediction_id::text = ANY(:ids)", ids=ids)


def test_an_answer_by_a_version_that_was_not_live_then_is_found(platform: Platform) -> None:
    live_since = model_versions.champion(platform.store).promoted_at
    assert live_since is not None
    minutes = timedelta(minutes=1)
    for version, start, is_found in (
        (2, live_since - 5 * minutes, True),
        (1, live_since + 5 * minutes, False),  # an API that swapped late
        (1, live_since + 30 * minutes, True),
        (3, live_since + 5 * minutes, True),
    ):
        with more_traffic(platform, model_version=version, start=start):
            ingest_all(platform, seals=False)
            assert (VERSIONS in journal_findings(platform)) is is_found


def test_what_was_live_before_that_was_recorded_is_not_checked_and_no_finding(platform: Platform) -> None:
    """An older release recorded of each version when it went live last; its decisions name no digest of the code."""
    live_since = model_versions.champion(platform.store).promoted_at
    assert live_since is not None
    older = """
        UPDATE retraining_decisions SET code_version = '0.1.0'
        WHERE decision_id = (SELECT decision_id FROM promotions ORDER BY position LIMIT 1)
    """
    with rows_changed(platform, "retraining_decisions", older):
        for minutes, expected in ((-5, (0, 1)), (5, (5, 0))):
            version = 2 if minutes < 0 else 3
            with more_traffic(platform, model_version=version, start=live_since + minutes * timedelta(minutes=1)):
                ingest_all(platform, seals=False)
                (found,) = (one for one in check_journals(platform, {}, quiet_bytes) if one.name == VERSIONS)
                assert (found.n_findings, found.n_unchecked) == expected


def quiet_bytes(_: int) -> None:
    """Nobody listens."""


def test_lines_that_wait_to_be_copied_are_not_missed(platform: Platform) -> None:
    with more_traffic(platform, model_version=2, start=T0 + 5 * HOUR):
        assert journal_findings(platform) == {}


def test_of_an_id_that_was_scored_twice_one_line_must_be_what_postgres_has(platform: Platform) -> None:
    """Ids that clients choose: while Postgres was away, or in two processes at once."""
    with more_traffic(platform, model_version=2, start=T0 + 5 * HOUR) as sent:
        ingest_all(platform, seals=False)
        with more_traffic(platform, model_version=2, start=T0 + 6 * HOUR, prediction_ids=sent.prediction_ids):
            ingest_all(platform, seals=False)
            assert journal_findings(platform) == {}
            edit = f"UPDATE prediction_logs SET latency_ms = 9 WHERE prediction_id = '{sent.prediction_ids[0]}'"
            execute(platform, edit)
            assert set(journal_findings(platform)) == {PREDICTIONS}


def test_predictions_that_maintenance_deletes_are_not_missed(platform: Platform) -> None:
    keeping = replace(platform, settings=platform.settings.model_copy(update={"predictions_retention_days": 30}))
    with more_traffic(platform, model_version=2, start=T0 + 5 * HOUR) as sent:
        ingest_all(platform, seals=False)
        execute(
            platform,
            "DELETE FROM prediction_logs WHERE prediction_id = :id",
            id=sent.prediction_ids[0],
        )
        assert journal_findings(keeping) == {}, "older than 30 days, without a label"
        assert set(journal_findings(platform)) == {PREDICTIONS}


def test_a_label_that_was_corrected_is_what_the_journal_makes_it(platform: Platform) -> None:
    """The line before is overruled by the correction and not contradicted by it."""
    data_dir = platform.settings.data_dir
    files = set(LABEL_JOURNAL.files(data_dir))
    with more_traffic(platform, model_version=2, start=T0 + 5 * HOUR) as sent:
        (one, *_), at = sent.prediction_ids, sent.last_at
        journal_labels(data_dir, [one], [0], received_at=at + SECOND)
        journal_labels(data_dir, [one], [1], received_at=at + HOUR, is_correction=True)
        ingest_all(platform, seals=False)
        try:
            assert journal_findings(platform) == {}
            execute(platform, "UPDATE label_store SET is_correction = false WHERE prediction_id = :id", id=one)
            assert set(journal_findings(platform)) == {LABELS}
        finally:
            remove_files(platform, set(LABEL_JOURNAL.files(data_dir)) - files)
            execute(platform, "DELETE FROM label_store WHERE prediction_id = :id", id=one)


# Verdicts


def test_a_verdict_computed_again_is_as_decided(platform: Platform) -> None:
    found = verify_decision(platform, verdict_of(platform).decision_id)
    assert found.is_sound
    assert [(result.name, result.n_checked) for result in found.results] == [
        (RECORD, 1),
        (SETS, 1),
        (VERDICTS, 1),
    ]


def test_each_gate_that_comes_out_otherwise_is_told(platform: Platform) -> None:
    verdict = verdict_of(platform)
    first, *others = verdict.gates
    assert first.value is not None
    forged = replace(first, value=first.value + 0.5, status=GateStatus.FAIL, interval_low=None)
    told = verdict_differences(platform, replace(verdict, gates=(forged, *others), code_version="1.0+old"))
    assert told[0] == "f1_improvement was FAIL, it is PASS"
    assert told[1].startswith("f1_improvement had value ")
    assert told[2].startswith("f1_improvement had interval_low None, it has ")
    assert told[-1].startswith("it was decided by code 1.0+old, this is ")
    assert verdict_differences(platform, replace(verdict, action=Action.REJECT))[0] == (
        "it was to reject, the gates say promote"
    )


def test_a_verdict_whose_limits_were_not_recorded_cannot_be_computed_again(platform: Platform) -> None:
    verdict = verdict_of(platform)
    with pytest.raises(PermanentError, match="its limits were not recorded"):
        verdict_differences(platform, replace(verdict, gate_config=None))
    with pytest.raises(PermanentError, match="those of another release"):
        verdict_differences(platform, replace(verdict, gate_config={"min_f1": 2}))
    assert verdict.gate_config is not None
    with pytest.raises(IntegrityError, match="do not have the recorded digest"):
        verdict_differences(platform, replace(verdict, gate_config=verdict.gate_config | {"level": 0.4}))


def test_a_verdict_of_a_gate_that_is_not_here_is_said_to_be_unchecked_and_never_sound(platform: Platform) -> None:
    verdict = verdict_of(platform)
    gone = replace(verdict.gates[0], name="gone")
    checked = check_verdicts(platform, [replace(verdict, gates=(*verdict.gates, gone))], quiet)
    assert (checked.n_findings, checked.n_unchecked) == (0, 1)
    assert "there is no gate gone here" in checked.unchecked[0]


def test_a_verdict_from_which_a_gates_result_was_taken_out_is_found_by_its_limits(platform: Platform) -> None:
    verdict = verdict_of(platform)
    without = tuple(gate for gate in verdict.gates if gate.name != "recall")
    assert verdict_differences(platform, replace(verdict, gates=without)) == ["recall was not evaluated, it is PASS"]


def test_a_decision_without_gates_has_its_record_checked(platform: Platform) -> None:
    (training, *_) = decisions.recent(platform.store, 1, [Action.TRAIN])
    found = verify_decision(platform, training.decision_id)
    assert found.is_sound
    assert [result.name for result in found.results] == [RECORD]
    with pytest.raises(PermanentError, match="there is no decision nothing"):
        verify_decision(platform, "nothing")


# What could not be looked at


def test_what_cannot_be_looked_at_is_said_and_never_sound(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise ConnectionError("MLflow is away")

    monkeypatch.setattr(type(platform.registry), "stored_model", away)
    found = verified(platform, n_verdicts=0)
    assert (found.has_findings, found.is_complete, found.is_sound) == (False, False, False)
    (result,) = (one for one in found.results if one.n_unchecked)
    assert result.unchecked[0] == "model of version 2: ConnectionError: MLflow is away"


def raising(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda: None, (1, 0, 0)),
        (raising(IntegrityError("has changed")), (1, 1, 0)),
        (raising(PermanentError("another contract")), (0, 0, 1)),
        (raising(ValueError("odd")), (0, 0, 1)),
    ],
)
def test_a_change_is_a_finding_and_any_other_trouble_is_something_not_looked_at(
    act: Callable[[], None], expected: tuple[int, int, int]
) -> None:
    check = Check("a check")
    with check.checking("it"):
        act()
    result = check.result()
    assert (result.n_checked, result.n_findings, result.n_unchecked) == expected


def test_a_flood_of_findings_is_counted_and_not_kept() -> None:
    check = Check("a check")
    check.found(f"finding {number}" for number in range(10 * MAX_SHOWN))
    assert check.result() == CheckResult(
        "a check", 0, 10 * MAX_SHOWN, 0, tuple(f"finding {number}" for number in range(MAX_SHOWN)), ()
    )
    assert json.dumps(check.result().findings)
