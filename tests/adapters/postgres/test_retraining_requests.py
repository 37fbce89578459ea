"""Requests for a retraining: kept with actor and reason, bounded, taken up once."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from selfheal.adapters.postgres.retraining_requests import MAX_OPEN, add_request, open_requests, take_request
from selfheal.adapters.postgres.store import Store
from selfheal.kit.errors import TooManyRequestsError
from tests.at_once import at_once
from tests.times import T0


def test_requests_wait_in_their_order_with_actor_and_reason(store: Store) -> None:
    second = add_request(store, actor="bob", reason="new products", now=T0 + timedelta(seconds=1))
    first = add_request(store, actor="ann", reason="audit", now=T0)
    waiting = open_requests(store)
    assert [(r.request_id, r.actor, r.reason) for r in waiting] == [
        (first, "ann", "audit"),
        (second, "bob", "new products"),
    ]
    assert waiting[0].created_at == T0


def test_a_request_is_taken_up_once(store: Store) -> None:
    request = add_request(store, actor="ann", reason="audit", now=T0)
    assert take_request(store, request, T0)
    assert open_requests(store) == []
    assert not take_request(store, request, T0)
    assert not take_request(store, uuid4(), T0)


def test_however_many_ask_at_once_only_so_many_wait(store: Store) -> None:
    def ask() -> bool:
        try:
            add_request(store, actor="ann", reason="audit", now=T0)
        except TooManyRequestsError as error:
            assert "retraining_request_sensor" in str(error)
            return False
        return True

    accepted = at_once([ask] * (2 * MAX_OPEN))
    assert sum(accepted) == len(open_requests(store)) == MAX_OPEN
    take_request(store, open_requests(store)[0].request_id, T0)
    assert add_request(store, actor="ann", reason="audit", now=T0)
