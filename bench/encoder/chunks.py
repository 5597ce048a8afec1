"""Make chunks.jsonl: 64 real chunks of mixed length, from this project's own sources at the commit they were made.

python bench/encoder/chunks.py      # done once; the file is committed and frozen
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from embedcode import Role, load
from embedcode.types import Tokens, Truncate

ROOT = Path(__file__).parents[2]
COUNT = 64
LIMIT = 512


def main() -> None:
    """Runs of whole lines of 20 to 512 tokens, lengths drawn evenly by their logarithm, each under its path."""
    draw = random.Random(0)
    encoder = load()
    files = sorted((ROOT / "src").rglob("*.py"))
    found: list[str] = []
    while len(found) < COUNT:
        path = draw.choice(files)
        lines = path.read_text("utf-8").split("\n")
        start = draw.randrange(len(lines))
        want = int(20 * (LIMIT / 20) ** draw.random())
        text = str(path.relative_to(ROOT))
        for line in lines[start:]:
            (entry,) = encoder.tokenize([f"{text}\n{line}"], Role.PASSAGE, truncate=Truncate.END)
            assert isinstance(entry, Tokens)
            if entry.original > want:
                break
            text += f"\n{line}"
        if "\n" in text:
            found.append(text)
    Path(__file__).with_name("chunks.jsonl").write_text("".join(json.dumps(text) + "\n" for text in found))


if __name__ == "__main__":
    main()
