"""SmoothQuant: what a large graph's strengths are chosen by (the graphs it writes: test_export.py)."""

from __future__ import annotations

import numpy as np

from embedcode.engine.smoothquant import LOUDEST, _thinned


def test_of_many_tokens_even_ones_are_kept_and_those_that_set_the_scale() -> None:
    x = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    x[[123, 7], [4, 9]] = 80, -95
    thin = _thinned(x, 40)
    assert 40 - LOUDEST <= len(thin) <= 40
    assert (thin.min(), thin.max()) == (x.min(), x.max())
    places = [int(np.flatnonzero((x == row).all(1))[0]) for row in thin]
    assert places == sorted(set(places)) and max(np.diff(places)) <= 11
    assert _thinned(x, 300) is x
    assert len(_thinned(x, LOUDEST)) == LOUDEST
