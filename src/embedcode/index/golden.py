"""Golden: the vector of one known text, by which an index tells whether its model still gives the vectors it holds.

It is kept in the manifest, with the build that gave it.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from embedcode.errors import ModelError, StoreError
from embedcode.index.refused import NOTE as REFUSED
from embedcode.model.passage import vector_key
from embedcode.types import Encoder, Role

if TYPE_CHECKING:
    from embedcode.store.cache import VectorCache
    from embedcode.store.sqlite import SqliteStore

GOLDEN = "def refresh(self, token):\n    return self.store.renew(token, hours=1)"
GOLDEN_COSINE = 0.99
"""Below it another build of the encoder no longer gives this index's vectors."""

_log = logging.getLogger("embedcode")


def check(
    store: SqliteStore,
    encoder: Encoder,
    cache: VectorCache,
    manifest: Mapping[str, str],
    root: Path,
    name: str,
    trusted: float,
) -> None:
    """Another build of the same encoder (precision, engine, version) is only warned of, when its vectors differ.

    ModelError where they are those of a server that names no weights, which is then taken to have others: it is
    compared whatever its build, if that was not done for `trusted` seconds. `name` is the model's.
    """
    exchangeable: bool = getattr(encoder, "exchangeable", False)
    compared = float(manifest.get("compared", "0")) if exchangeable else inf
    same = manifest.get("build") == encoder.build
    if same and time.time() - compared < trusted:
        return
    import numpy as np

    from embedcode.index.build import note

    golden = encoder.encode([GOLDEN], Role.PASSAGE)[0]
    held = np.frombuffer(base64.b64decode(manifest.get("golden", "")), np.float32)
    key = [vector_key(GOLDEN, encoder.space)]
    if exchangeable and not held.size:  # the cache's vectors may be from before
        held = cache.get(key)[1].reshape(-1)
    cosine = float(held @ golden) if held.size else 1.0
    clean = f"run `embedcode clean --vectors {quote(str(root))}` and index again"
    if exchangeable and cosine < GOLDEN_COSINE:
        with suppress(StoreError):
            note(store, {"build": ""})  # so that each compares again, until they are the same
        raise ModelError(
            f"{name} gives other vectors than before (cosine {cosine:.2f}), as of other weights under the same name: "
            f"serve the former ones, or {clean}."
        )
    if cosine < GOLDEN_COSINE:
        said = "this build of the model gives other vectors than the index of %s holds (cosine %.3f): %s"
        _log.warning(said, root, cosine, clean)
        return
    new = {"build": encoder.build}
    if exchangeable:
        cache.put(key, golden[None])
        new["compared"] = str(int(time.time()))
    if not manifest.get("golden"):
        new["golden"] = base64.b64encode(golden.tobytes()).decode()
    elif not same:
        new[REFUSED] = "{}"
    with suppress(StoreError):  # of a full disk: it is compared again at the next search
        note(store, new)
