"""What a platform of commit 7db4e52 left behind: what that release could not record is "not checked", not missing.

It had no table of promotions, stored no training sets, and recorded no limits of verdicts. The archive is made as
`make_fixture.py` says, by hand: `bootstrap`, 310 predictions with their labels, and a dump of two databases.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from selfheal.adapters.postgres import model_versions
from selfheal.services.platform import Platform, open_platform
from selfheal.services.verification.run import verify_everything
from tests.compatibility.restoring import restored

pytestmark = pytest.mark.integration

ARCHIVE = Path(__file__).parent / "data_of_7db4e52.tar.xz"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with restored(ARCHIVE, tmp_path_factory.mktemp("older")) as older:
        opened = open_platform(older.settings)
        yield opened
        opened.close()


def test_verify_finds_nothing_and_says_what_that_release_could_not_record(platform: Platform) -> None:
    found = verify_everything(platform, n_verdicts=100)
    assert [(result.name, result.findings) for result in found.results if result.n_findings] == []
    unchecked = {result.name: result.unchecked for result in found.results if result.n_unchecked}
    assert set(unchecked) == {"training sets", "verdicts, computed again"}
    assert "the release that trained it did not store the rows" in unchecked["training sets"][0]
    assert "its limits were not recorded" in unchecked["verdicts, computed again"][0]
    counts = {result.name: result.n_checked for result in found.results}
    assert counts["predictions in the journal"] == counts["labels in the journal"] == 310


def test_a_file_that_it_did_store_is_a_finding_once_it_is_missing(platform: Platform) -> None:
    champion = model_versions.champion(platform.store)
    (reference,) = (platform.settings.data_dir / "mlflow" / champion.mlflow_run_id).rglob("reference.parquet")
    aside = reference.rename(reference.with_suffix(".aside"))
    try:
        found = verify_everything(platform, n_verdicts=0)
    finally:
        aside.rename(reference)
    assert {result.name for result in found.results if result.n_findings} == {"references"}
