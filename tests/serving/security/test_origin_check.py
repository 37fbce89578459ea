"""Where no key is asked for, no web page of another host gets in; where one is, the key decides."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.running import Api, bodies

REQUESTS = [
    ("POST", "/predict", bodies(1)[0]),
    ("POST", "/predict/batch", {"instances": bodies(1)}),
    ("GET", "/decisions", None),
    ("POST", "/monitoring/alerts/00000000-0000-0000-0000-000000000000/acknowledge", None),
]
paths = pytest.mark.parametrize(("method", "path", "body"), REQUESTS, ids=[path for _, path, _ in REQUESTS])


@paths
@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"Host": "evil.example:8000"}, "foreign_host"),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, "foreign_host"),
        ({"Host": ""}, "foreign_host"),
        ({"Origin": "https://evil.example"}, "foreign_origin"),
        ({"Origin": "http://127.0.0.1:1"}, "foreign_origin"),
        ({"Origin": "null"}, "foreign_origin"),
    ],
    ids=str,
)
def test_a_page_of_another_host_is_refused(
    shared_api: Api, method: str, path: str, body: Any, headers: dict[str, str], kind: str
) -> None:
    answer = shared_api.client.request(method, path, json=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (403, kind)


@paths
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_page_of_this_host_and_a_program_get_in(
    shared_api: Api, method: str, path: str, body: Any, host: str
) -> None:
    own = f"{host}:{shared_api.client.base_url.port}"
    for headers in ({"Host": own}, {"Host": own, "Origin": f"http://{own}"}):
        assert shared_api.client.request(method, path, json=body, headers=headers).status_code in {200, 404}
