"""Requests made up from the API's own description: the server never fails, and answers as it says."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.types import ASGIApp

import kshot
from kshot.serve.server import opened
from tests.support.served import pictures


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, toy: kshot.Segmenter) -> Iterator[ASGIApp]:
    place = tmp_path_factory.mktemp("schema")
    with opened(pictures(place / "images"), place / "out", toy, cache=place) as made:
        yield made


def test_made_up_requests_are_answered_as_described(app: ASGIApp) -> None:
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) >= 20
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
        def check(case: Any) -> None:
            if case.query and "wait" in case.query:
                case.query["wait"] = 0
            # What is refused beyond the description depends on the state, and is refused with 400 and a reason.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        check()
