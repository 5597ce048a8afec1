"""embedcode: find code by what it does. The public names, imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedcode.engine import load as load
    from embedcode.engine.vectors import cut as cut
    from embedcode.errors import EmbedcodeError as EmbedcodeError
    from embedcode.errors import EncodeError as EncodeError
    from embedcode.index.index import Index as Index
    from embedcode.types import Chunk as Chunk
    from embedcode.types import Encoder as Encoder
    from embedcode.types import Filter as Filter
    from embedcode.types import Hit as Hit
    from embedcode.types import InputError as InputError
    from embedcode.types import Mode as Mode
    from embedcode.types import Query as Query
    from embedcode.types import Role as Role
    from embedcode.types import Truncate as Truncate

__version__ = "0.1.0"

# Where each public name lives: `import embedcode` alone costs a millisecond, Index brings numpy, load brings the model.
_HOMES = {
    "Chunk": "types",
    "EmbedcodeError": "errors",
    "EncodeError": "errors",
    "Encoder": "types",
    "Filter": "types",
    "Hit": "types",
    "Index": "index.index",
    "InputError": "types",
    "Mode": "types",
    "Query": "types",
    "Role": "types",
    "Truncate": "types",
    "cut": "engine.vectors",
    "load": "engine",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'embedcode' has no attribute {name!r}")
    return getattr(import_module(f"embedcode.{home}"), name)
