"""Golden: whether an engine still computes what it did, by one known text. Knows no process and no request.

An exported graph brings the vector of the full-precision model. For a checkpoint the home folder keeps that of its
space's last start, and the build it was computed by: the same build, as after a crash, has to give the same vector, and
another one may give another, of which the caller says so once: its own vector is kept from then on.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from embedcode.engine.encoder import PROBE, LocalEncoder
from embedcode.engine.graph import GOLDEN_COSINE, GraphEncoder
from embedcode.errors import ModelError
from embedcode.files import make_private, replacing
from embedcode.types import Role, digest


def compare(encoder: LocalEncoder, home: Path) -> float | None:
    """The cosine of the golden text's vector to the stored one; None where there is none, as at the first start.

    ModelError below GOLDEN_COSINE where the stored one is of this build.
    """
    import numpy as np

    if isinstance(encoder, GraphEncoder):
        encoder.encode([PROBE], Role.PASSAGE)  # raises where the stored vector is another
        return encoder.golden_cosine()
    vector = encoder.encode([PROBE], Role.PASSAGE)[0]
    path = home / "golden" / f"{digest(encoder.space).hex()}.npy"
    build, cosine = "", None
    with suppress(Exception):  # it is not there, or none of ours
        (stored,) = np.load(path, allow_pickle=False)
        build, cosine = str(stored["build"]), float(stored["vector"] @ vector)
    if build == encoder.build and cosine is not None and not cosine >= GOLDEN_COSINE:  # nan too
        raise ModelError(
            f"{encoder.conditions.name} gives another vector than at its last start here (cosine {cosine:.3f}): "
            f"look at its files, and delete {path} if this is as it should be."
        )
    if build != encoder.build:
        row = np.array(
            [(encoder.build, vector)], [("build", f"U{len(encoder.build)}"), ("vector", vector.dtype, vector.shape)]
        )
        with suppress(OSError):  # kept at another start
            make_private(path.parent)
            with replacing(path, 0o600) as file:
                np.save(file, row)
    return cosine
