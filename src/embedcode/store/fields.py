"""What lexical search reads of a chunk, and how much each part counts. Knows no store and no index."""

from __future__ import annotations

BOOSTS = {"path": 1.0, "symbol": 2.0, "body": 1.0}
"""Weight of each field's BM25 in the sum that is a chunk's lexical score."""

K1 = 1.2
"""BM25's saturation of term frequency; tantivy has it built in."""

B = 0.75
"""BM25's length normalisation; tantivy has it built in."""
