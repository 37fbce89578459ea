"""The bucket of a deployment: made once, and a server that refuses or does not answer is named before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from selfheal.adapters.s3_bucket import main, make_bucket
from selfheal.kit.errors import ConfigurationError, ServiceUnavailableError
from tests.object_store import object_store

_numbers = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def _store() -> Iterator[None]:
    with object_store():
        yield


def new_name() -> str:
    return f"made-{next(_numbers)}"


def buckets() -> list[str]:
    import boto3

    return [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_a_bucket_is_made_once(region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    name = new_name()
    for _ in range(2):
        make_bucket(name)
        assert buckets().count(name) == 1


@pytest.mark.parametrize("name", ["no", "no such"], ids=["refused by the server", "refused by the client"])
def test_a_name_that_is_refused_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigurationError, match=f"the bucket {name} cannot be used: .*; check its name"):
        make_bucket(name)
    assert main([name]) == 2
    assert f"selfheal: the bucket {name}" in capsys.readouterr().err
    assert name not in buckets()


def test_the_command_says_that_the_bucket_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    name = new_name()
    assert [main([name]), main([name])] == [0, 0]
    assert capsys.readouterr().out == f"The bucket {name} is there.\n" * 2


def test_a_server_that_does_not_answer_is_no_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ServiceUnavailableError, match="check AWS_ENDPOINT_URL"):
        make_bucket(new_name())
