"""Choices of an evaluation by name. Standard library only: the command line's help is made of them, and waits for
nothing.
"""

from __future__ import annotations

from enum import StrEnum


class Convention(StrEnum):
    """What of a CoIR document is its text; the two harnesses differ, and figures with them."""

    MTEB = "mteb"
    """Title and text, joined by a blank, without white space around."""
    COIR_EVAL = "coir-eval"
    """The text alone."""


class Protocol(StrEnum):
    """Of SWE-bench's file retrieval: as swebench.py says."""

    PUBLISHED = "published"
    SEARCH = "search"


class Files(StrEnum):
    """Which files of a commit are ranked. Symbolic links and submodules never are."""

    ALL = "all"
    """Every text."""
    INDEXED = "indexed"
    """What an index of the tree would hold: no locks, data, generated or minified code, vendored folders, secrets."""
    PYTHON = "py"
