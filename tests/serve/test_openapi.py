"""The server against its own document: requests that fit it and requests that do not, made from /openapi.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import settings

from .serving import Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("openapi")
    root = home / "shop"
    (root / ".git").mkdir(parents=True)
    (root / "session.py").write_text("def forget(session):\n    session.flush()\n")
    with serving(home, "--index", str(root)) as server:
        yield server


@pytest.fixture
def document(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.address}/openapi.json")


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=20, deadline=None)
def test_every_answer_is_one_that_the_document_tells(case: schemathesis.Case) -> None:
    case.call_and_validate()
