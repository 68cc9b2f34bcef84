"""Writes monitoring/tests/scrapes/*.prom from the real programs, started here on loopback.

    python -m hack.scrapes audio-server gateway llama-cpp redis-exporter

Each program gets some traffic first, so that metrics which are born with their first event are
there too. What cannot run without a GPU is kept as a list with its source instead; those files
are written by hand.
"""

from __future__ import annotations

import argparse
import sys

# The packages of the project need no installation for this.
from hack.scrapes import programs

sys.path.insert(0, str(programs.ROOT / "gateway"))

from hack.scrapes import gateway

SCRAPES = programs.ROOT / "monitoring" / "tests" / "scrapes"


def llama_cpp() -> tuple[str, str]:
    """The llama.cpp server with a small chat model, after one chat."""
    with programs.llama_cpp() as url:
        messages = [{"role": "user", "content": "Hello"}]
        programs.request(f"{url}/v1/chat/completions", {"messages": messages, "max_tokens": 8})
        return "llama.cpp server (xllamacpp), after one chat", programs.request(f"{url}/metrics")


def redis_exporter() -> tuple[str, str]:
    """The Redis exporter beside a Redis with a memory limit."""
    port = programs.free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    with programs.redis() as redis:
        exporter = [programs.tool("redis-exporter"), "-redis.addr", f"redis://127.0.0.1:{redis}"]
        exporter += ["-web.listen-address", f"127.0.0.1:{port}"]
        with programs.running(exporter, lambda: programs.request(url)):
            return "Redis exporter 1.45 beside Redis 7.0 (Debian), idle", programs.request(url)


def audio_server() -> tuple[str, str]:
    """piper-tts after one sentence; its metrics are those of every server in backends/."""
    url = f"http://127.0.0.1:{(port := programs.free_port())}"
    command = [sys.executable, "-m", "synapse_piper_tts", "--port", str(port)]
    with programs.running(command, lambda: programs.request(f"{url}/health")):
        body = {"model": "piper", "input": "Hello there.", "voice": "joe"}
        programs.request_bytes(f"{url}/v1/audio/speech", body)
        return "piper-tts of backends/, after one sentence", programs.request(f"{url}/metrics")


def synapse() -> tuple[str, str]:
    """The gateway in front of llama.cpp, Ollama and a backend that fails, with Redis."""
    origin = "the gateway among llama.cpp, Ollama, a failing backend and Redis, after each event"
    return origin, gateway.scrape()


CAPTURES = {
    "audio-server": audio_server,
    "gateway": synapse,
    "llama-cpp": llama_cpp,
    "redis-exporter": redis_exporter,
}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="all by default", metavar="NAME")
    names = parser.parse_args().names or sorted(CAPTURES)
    unknown = sorted(set(names) - set(CAPTURES))
    if unknown:
        parser.error(f"no such program: {unknown[0]}; known: {', '.join(sorted(CAPTURES))}")
    for name in names:
        origin, text = CAPTURES[name]()
        head = f"# real: {origin}\n# made by: python -m hack.scrapes {name}\n"
        (SCRAPES / f"{name}.prom").write_text(head + text)
        sys.stdout.write(f"{name}: {len(text.splitlines())} lines\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
