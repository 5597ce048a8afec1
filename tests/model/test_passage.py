"""The string that is embedded for a chunk, and the key of its vector."""

from __future__ import annotations

from embedcode.model.passage import passage, vector_key


def test_path_symbol_and_lines() -> None:
    lines = "def refresh(self):\n    ..."
    assert passage("src/session.py", "Session.refresh", lines) == f"src/session.py Session.refresh\n{lines}"
    assert passage("src/session.py", "", lines) == f"src/session.py\n{lines}"


def test_a_key_names_the_text_and_the_space() -> None:
    key = vector_key("text", "space")
    assert len(key) == 16
    assert key == vector_key("text", "space")
    assert len({key, vector_key("text ", "space"), vector_key("text", "other"), vector_key("textspace", "")}) == 4
