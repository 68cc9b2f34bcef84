"""Accepts connections on the ports that are named, and says hello: a host to be reached or not."""

import asyncio
import sys


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say hello, and close."""
    writer.write(b"hello\n")
    await writer.drain()
    writer.close()


async def main() -> None:
    """Listen for ever."""
    servers = [await asyncio.start_server(greet, "0.0.0.0", int(port)) for port in sys.argv[1:]]  # noqa: S104 - of a pod
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
