"""What is asked for in a way that would be answered by something else is refused as it is written down."""

from __future__ import annotations

from typing import Any

import pytest

from embedcode import Filter, Mode, Query
from embedcode.errors import UsageError


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"paths": "*.md"}, r"paths='\*\.md' is one string: write paths=\('\*\.md',\)"),
        ({"languages": "python"}, "languages='python' is one string"),
        ({"repos": "web"}, "repos='web' is one string"),
        ({"content": "docs"}, "content='docs' is one string"),
        ({"content": ("doc",)}, "content 'doc' is none of code, docs, config"),
    ],
)
def test_a_filter_that_would_filter_something_else(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Filter(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": None}, "the text of a query is a NoneType: give a string"),
        ({"text": "x", "code": b"y"}, "the code of a query is a bytes"),
        ({"text": "x", "top_k": 0}, "top_k 0 finds nothing"),
        ({"text": "x", "top_k": -1}, "top_k -1 finds nothing"),
        ({"text": "x", "mode": "lexicaal"}, "mode 'lexicaal' is none of hybrid, lexical, dense"),
    ],
)
def test_a_query_that_would_ask_something_else(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Query(**fields)


def test_a_mode_may_be_given_by_its_name() -> None:
    name: Any = "lexical"
    assert Query("x", mode=name).mode is Mode.LEXICAL
