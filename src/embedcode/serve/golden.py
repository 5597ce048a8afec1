"""Golden: whether an engine still computes what it did, by one known text. Knows no process and no request.

An exported graph brings the vector of the full-precision model. For a checkpoint the first start in its space and
precision keeps one in the home folder, and every later start, also that after a crash, is compared with it. Where the
folder cannot be written, no start is.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from embedcode.engine.encoder import PROBE, LocalEncoder
from embedcode.engine.graph import GOLDEN_COSINE, GraphEncoder
from embedcode.errors import ModelError
from embedcode.files import make_private, replacing
from embedcode.types import Role, digest


def compare(encoder: LocalEncoder, home: Path) -> float:
    """The cosine of the golden text's vector to the stored one; ModelError below GOLDEN_COSINE."""
    import numpy as np

    if isinstance(encoder, GraphEncoder):
        encoder.encode([PROBE], Role.PASSAGE)  # raises where the stored vector is another
        return encoder.golden_cosine()
    vector = encoder.encode([PROBE], Role.PASSAGE)[0]
    path = home / "golden" / f"{digest(encoder.space, encoder.build).hex()}.npy"
    try:
        stored = np.load(path, allow_pickle=False)
        cosine = float(stored @ vector) if stored.shape == vector.shape else 0.0
    except (OSError, ValueError):
        with suppress(OSError):  # kept at another start
            make_private(path.parent)
            with replacing(path, 0o600) as file:
                np.save(file, vector)
        return 1.0
    if not cosine >= GOLDEN_COSINE:  # nan too
        raise ModelError(
            f"{encoder.conditions.name} gives another vector than at its first start here (cosine {cosine:.3f}): look "
            f"at its files, and delete {path} if this is as it should be."
        )
    return cosine
