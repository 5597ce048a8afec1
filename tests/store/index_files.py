"""Write, search and maintain a store as indexers do: run as a process of its own by test_processes.py.

index_files.py FOLDER ROUNDS SEED: all rounds but the last write random versions of forty files, the last the final one.
"""

import random
import sys
from pathlib import Path

import numpy as np

from embedcode.store.sqlite import SqliteStore
from embedcode.types import Chunk, File, digest

DIM = 16


def chunks(number: int, version: int) -> list[Chunk]:
    path = f"src/file{number}.py"
    bodies = [f"shared{part} word{number % 7} only{number}x{part} version{version}" for part in range(1 + number % 4)]
    return [Chunk("r", path, 9 * i + 1, 9 * i + 9, "python", f"name{number}", body) for i, body in enumerate(bodies)]


def vector(key: bytes) -> np.ndarray:
    row = np.random.default_rng(int.from_bytes(key, "little")).standard_normal(DIM).astype(np.float32)
    return row / np.linalg.norm(row)


def write(store: SqliteStore, numbers: list[int], version: int) -> None:
    with store.begin() as transaction:
        for number in numbers:
            made = chunks(number, version)
            keys = [digest(chunk.path, chunk.text) for chunk in made]
            file = File(made[0].path, "r", "python", "code", 1, version, digest(str(version)))
            transaction.upsert(file, made, keys)
        transaction.commit()


def embed(store: SqliteStore) -> None:
    while pending := store.pending(16):
        with store.begin() as transaction:
            transaction.put_vectors([one.key for one in pending], np.array([vector(one.key) for one in pending]))
            transaction.commit()


def main(folder: Path, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    store = SqliteStore.open(folder, DIM)
    print("ready", flush=True)
    for turn in range(1, rounds + 1):
        numbers = list(range(40))
        rng.shuffle(numbers)
        for start in range(0, 40, 8):
            part = numbers[start : start + 8]
            if turn == rounds:
                write(store, part, 0)
                continue
            write(store, part, rng.randrange(3))
            with store.begin() as transaction:
                transaction.delete([f"src/file{rng.randrange(40)}.py"])
                transaction.commit()
            rng.choice([lambda: embed(store), lambda: store.lexical({"shared0": 1.0}, 5), store.maintain])()
            store.dense(vector(b"q" * 16), 5)
    embed(store)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
