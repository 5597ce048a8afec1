"""A server that computes nothing: every POST gets one prepared answer of 384 numbers a text. What it takes is the
client's own cost.

    python bench/serve/null_server.py PORT TEXTS
"""

from __future__ import annotations

import asyncio
import json
import sys

ROW = [round(i * 0.000123456 - 0.02, 8) for i in range(384)]


def answer(texts: int) -> bytes:
    data = [{"object": "embedding", "index": i, "embedding": ROW} for i in range(texts)]
    body = json.dumps({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1}}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def main(port: int, texts: int) -> None:
    ready = answer(texts)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r", 1)[0] or b"0"))
                writer.write(ready)
                await writer.drain()
        except (EOFError, OSError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=2**22)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
