"""The common shape of a server, seen from outside over real sockets."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_serving.testing import RunningServer, running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent


@contextlib.contextmanager
def gated(*arguments: str) -> Iterator[RunningServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        with running_server("gated_server", *arguments) as server:
            yield server


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningServer]:
    with gated("--max-request-mb", "1", "--concurrency", "1", "--queue", "1") as server:
        yield server


@pytest.fixture
def server(shared: RunningServer) -> Iterator[RunningServer]:
    httpx.get(f"{shared.url}/hold")
    yield shared
    httpx.get(f"{shared.url}/release")
    eventually(lambda: gauge(shared, "requests_in_flight") == 0)


def eventually(holds: Callable[[], bool]) -> None:
    """Poll until a condition holds; bounded."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gauge(server: RunningServer, name: str) -> float:
    page = httpx.get(f"{server.url}/metrics").text
    values = [
        line.split()[-1]
        for line in page.splitlines()
        if line.startswith(f"synapse_backend_{name} ")
    ]
    return float(values[0])


def post(server: RunningServer, path: str, **more: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", timeout=30, **more)


class Background:
    """A request in a thread of its own."""

    def __init__(self, call: Callable[[], httpx.Response]) -> None:
        self.answer: httpx.Response | None = None

        def run() -> None:
            with contextlib.suppress(httpx.HTTPError):
                self.answer = call()

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def result(self) -> httpx.Response:
        self._thread.join(timeout=30)
        assert self.answer is not None
        return self.answer


def test_a_server_tells_that_it_is_ready_and_what_it_serves(server: RunningServer) -> None:
    for path in ("/health", "/readyz"):
        assert httpx.get(server.url + path).json() == {"status": "ok"}
    models = httpx.get(f"{server.url}/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["gated"]


def test_a_request_over_the_queue_is_refused_at_once_with_the_time_to_try_again(
    server: RunningServer,
) -> None:
    waiting = [Background(lambda: post(server, "/work")) for _ in range(2)]
    eventually(lambda: gauge(server, "requests_in_flight") == 2)
    refused = post(server, "/work")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "overloaded"
    assert httpx.get(f"{server.url}/health").status_code == 200
    httpx.get(f"{server.url}/release")
    assert [one.result().status_code for one in waiting] == [200, 200]


def test_what_waits_for_the_model_is_counted_apart_from_what_it_works_on(
    server: RunningServer,
) -> None:
    waiting = [Background(lambda: post(server, "/work")) for _ in range(2)]
    eventually(lambda: gauge(server, "requests_queued") == 1)
    assert gauge(server, "requests_in_flight") == 2
    httpx.get(f"{server.url}/release")
    for one in waiting:
        one.result()


def test_a_request_that_waits_too_long_for_the_model_is_told_to_try_again() -> None:
    with gated("--max-wait", "0.05") as server:
        first = Background(lambda: post(server, "/work"))
        eventually(lambda: gauge(server, "requests_in_flight") == 1)
        assert post(server, "/work").status_code == 503
        httpx.get(f"{server.url}/release")
        assert first.result().status_code == 200


def test_a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not(
    server: RunningServer,
) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(11):
            yield bytes(100_000)

    for body in (bytes(1_000_001), chunks()):
        refused = post(server, "/length", content=body)
        assert refused.status_code == 413
        assert refused.json()["error"]["code"] == "request_too_large"
    assert post(server, "/length", content=bytes(1_000_000)).json() == 1_000_000


def test_a_failure_inside_says_nothing_of_the_inside(server: RunningServer) -> None:
    failed = post(server, "/fail")
    assert failed.status_code == 500
    assert failed.json()["error"]["type"] == "server_error"
    assert "secret" not in failed.text


def test_an_unknown_path_and_a_wrong_method_have_openais_error_shape(
    server: RunningServer,
) -> None:
    for answer in (httpx.get(f"{server.url}/nothing"), httpx.get(f"{server.url}/work")):
        assert answer.status_code in {404, 405}
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_callers_cannot_make_metrics_grow(server: RunningServer) -> None:
    for number in range(20):
        httpx.get(f"{server.url}/made-up/{number}")
    assert "made-up" not in httpx.get(f"{server.url}/metrics").text


def test_the_first_part_of_a_stream_leaves_before_the_rest_is_made(server: RunningServer) -> None:
    with httpx.stream("POST", f"{server.url}/stream", timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "one"
        httpx.get(f"{server.url}/release")
        assert list(lines) == ["two"]


def test_a_stream_that_fails_in_the_middle_never_ends_cleanly(server: RunningServer) -> None:
    with httpx.stream("POST", f"{server.url}/stream?broken=1", timeout=30) as answer:
        httpx.get(f"{server.url}/release")
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()


def test_a_stream_that_fails_before_its_first_part_has_a_status(server: RunningServer) -> None:
    assert post(server, "/stream?late=0").status_code == 500


def test_a_stream_gives_its_slot_back_however_it_ends(server: RunningServer) -> None:
    with httpx.stream("POST", f"{server.url}/stream", timeout=30) as answer:
        next(answer.iter_lines())
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(f"{server.url}/release")
        post(server, "/stream?broken=1")
    post(server, "/stream?late=0")
    assert post(server, "/work").status_code == 200


def test_sigterm_lets_a_request_finish_and_then_ends_with_success() -> None:
    with gated() as server:
        under_way = Background(lambda: post(server, "/work"))
        eventually(lambda: gauge(server, "requests_in_flight") == 1)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: not connects(server.url))
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGUSR1)
        assert under_way.result().json() == "worked"
        assert server.process.wait(timeout=30) == 0


@pytest.mark.slow
def test_a_model_that_never_ends_cannot_hold_up_the_stop() -> None:
    with gated("--grace", "0") as server:
        under_way = Background(lambda: post(server, "/work"))
        eventually(lambda: gauge(server, "requests_in_flight") == 1)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 1
        with contextlib.suppress(AssertionError):
            under_way.result()


def connects(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = start("--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot listen on 127.0.0.1:" in done.stderr


def test_a_missing_model_is_one_sentence() -> None:
    done = start("--port", "0", "--load", "never")
    assert (done.returncode, done.stderr) == (1, "gated_server: the model x is not there\n")


def test_a_model_that_cannot_be_loaded_ends_the_server_with_a_failure() -> None:
    done = start("--port", "0", "--load", "failing")
    assert done.returncode == 1
    assert "no weights" in done.stderr


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to end by itself."""
    return subprocess.run(  # noqa: S603 - our own file
        [sys.executable, str(HERE / "gated_server.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(HERE.parent)},
    )
