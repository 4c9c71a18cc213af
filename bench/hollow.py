"""A server that reads a POST and answers with bytes made before, on the event loop of the workers: what HTTP alone costs."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

from gateway.supervise.worker import loop_factory


async def serve(port: int, size: int) -> None:
    """Answer every POST with `size` bytes until standard input ends."""
    body = bytes(size)

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/x-pki-message")

    app = web.Application()
    app.add_routes([web.post("/", answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as loop:
        loop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
