"""``python -m synapse_llama_cpp``: flags in, llama.cpp's HTTP server up until SIGTERM."""

import argparse
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import StartError
from .models import PACKAGED, find_model


def default_threads() -> int:
    """Half the cores, at least one.

    llama.cpp's threads wait for each other by spinning: as many as cores, on a machine with other
    work, made a token 60 times slower than one thread did (measured on 2 cores).
    """
    return max(1, (os.cpu_count() or 1) // 2)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="synapse_llama_cpp", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8081, help="port to listen on, 0 for any")
    parser.add_argument(
        "--model", required=True, help=f"path of a GGUF file, or one of {', '.join(PACKAGED)}"
    )
    parser.add_argument("--alias", help="model name that the API shows (default: as --model)")
    parser.add_argument("--ctx", type=int, default=4096, help="tokens of context, all slots shared")
    parser.add_argument("--parallel", type=int, default=4, help="requests served at a time (slots)")
    parser.add_argument("--threads", type=int, default=default_threads(), help="for computing")
    parser.add_argument("--embedding", action="store_true", help="serve embeddings, mean pooled")
    parser.add_argument(
        "--chat-template-file", type=Path, help="Jinja template in place of the model's own"
    )
    parser.add_argument("--cache-ram", type=int, default=64, help="MiB for prompts of past chats")
    parser.add_argument("--sleep-idle", type=int, default=-1, help="unload after so many idle s")
    parser.add_argument("--drain", type=float, default=20.0, help="s for requests at SIGTERM")
    parser.add_argument("--verbose", action="store_true", help="llama.cpp's own log")
    return parser.parse_args(argv)


def check_port(host: str, port: int) -> None:
    """Refuse a port that is taken, before a model is loaded for it.

    Raises:
        StartError: When the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def read_template(path: Path) -> str:
    """Read a chat template.

    Raises:
        StartError: When it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"--chat-template-file: cannot read {path}: {error}") from error


def _serve(options: argparse.Namespace) -> "object":
    import xllamacpp  # noqa: PLC0415 - loading it takes longer than refusing a wrong flag

    params = xllamacpp.CommonParams()
    params.model.path = str(find_model(options.model))
    params.model_alias = {options.alias or options.model}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_ctx = options.ctx
    params.n_parallel = options.parallel
    # Without it each slot owns ctx/parallel tokens, and one long prompt fails beside idle slots.
    params.kv_unified = True
    params.fit_params = False
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.cache_ram_mib = options.cache_ram
    params.sleep_idle_seconds = options.sleep_idle
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.use_jinja = True
    if options.chat_template_file:
        params.chat_template = read_template(options.chat_template_file)
    params.ui = False
    params.offline = True
    params.verbosity = 3 if options.verbose else 1
    if options.embedding:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(params)


def requests_in_progress(metrics: str) -> int:
    r"""Requests running or waiting, from llama.cpp's metrics page.

    >>> requests_in_progress("llamacpp:requests_processing 2\nllamacpp:requests_deferred 1")
    3
    """
    found = re.findall(
        r"^llamacpp:requests_(?:processing|deferred) ([0-9.e+]+)", metrics, re.MULTILINE
    )
    return sum(int(float(value)) for value in found)


def _drain(server: object, seconds: float) -> None:
    """Wait, up to ``seconds``, until no request is left; llama.cpp itself would cut them."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        page = server.handle_metrics()  # type: ignore[attr-defined]
        if requests_in_progress(str(page)) == 0:
            return
        time.sleep(0.1)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    options = parse(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        check_port(options.host, options.port)
        server = _serve(options)
    except (StartError, ValueError, RuntimeError) as error:
        sys.stderr.write(f"synapse_llama_cpp: {error}\n")
        return 1
    sys.stdout.write(f"listening on {server.listening_address}\n")  # type: ignore[attr-defined]
    sys.stdout.flush()
    stop.wait()
    _drain(server, options.drain)
    # Taking the C++ server down thread by thread may outlast a grace period; nothing needs saving.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
