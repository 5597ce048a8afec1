"""Names of metrics, which dashboards are made of: what the docs list is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from embedcode.serve.metrics import Metrics


def test_the_docs_name_every_metric_and_no_other() -> None:
    families = text_string_to_metric_families(Metrics().text().decode())
    ours = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families
        if family.name.startswith("embedcode_")
    }
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text("utf-8")
    table = page.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(embedcode_\w+)`", table)) == ours
