"""Starts a server and stops it gracefully."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from prometheus_client import disable_created_metrics

from .options import Options

_AFTER_GRACE = 2.0


class StartError(Exception):
    """The server cannot start; the message is a sentence for the person who started it."""


def forbid_network() -> None:
    """Have model libraries look at local files only, and tell nobody. Call it before any import."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # onnxruntime from 1.29 on tells Microsoft of each model, and writes an id into a file.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        StartError: When the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    bound.set_inheritable(False)
    return bound


class _Server(uvicorn.Server):
    """Not ready from the signal on, and gone soon after the grace whatever the model does."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let requests end, and cut those that outlast the grace."""
        self._app.state.serving.begin_to_stop()
        grace = self.config.timeout_graceful_shutdown or 0
        # A thread that computes cannot be cancelled, and the loop would wait for it.
        last = threading.Timer(grace + _AFTER_GRACE, os._exit, (1,))
        last.daemon = True
        last.start()
        await super().shutdown(sockets)


def run(name: str, options: Options, make_app: Callable[[], FastAPI]) -> int:
    """Serve the application until SIGTERM or SIGINT; returns the exit code.

    At SIGTERM the socket closes, requests in flight have ``options.grace`` seconds to end, and
    ``/readyz`` on connections still open answers 503.
    """
    logging.basicConfig(
        level=os.environ.get("SYNAPSE_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    forbid_network()
    try:
        bound = listen(options.host, options.port)
        app = make_app()
    except StartError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    host, port = bound.getsockname()[:2]
    sys.stdout.write(f"listening on http://{host}:{port}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(options.grace),
        lifespan="on",
    )
    server = _Server(config, app)

    def stop() -> None:
        server.should_exit = True

    app.state.serving.stop = stop
    # uvicorn raises the signal again once it has stopped; a stop that was asked for is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with bound:
        server.run(sockets=[bound])
    return 0 if server.started and app.state.serving.status != "failed" else 1
