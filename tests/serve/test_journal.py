"""Lines of what the server did."""

from __future__ import annotations

import io
import json
import logging

from embedcode.serve.journal import Journal, Lines


def test_a_name_that_is_no_utf8_is_told_and_is_no_error() -> None:
    out = io.StringIO()
    journal = Journal("info", True, out)
    journal.write("index", root="/srv/caf\udce9")
    Lines(journal).emit(logging.makeLogRecord({"msg": "read /srv/caf\udce9", "levelname": "WARNING"}))
    journal.close()
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first["root"] == "/srv/caf\udce9"
    assert second["said"] == "read /srv/caf\udce9"
