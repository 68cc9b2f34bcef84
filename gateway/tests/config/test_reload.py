# ruff: noqa: ASYNC240 - small files on a local disk, and nothing else runs meanwhile
from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.config import load
from synapse_gateway.config.reload import ConfigWatcher
from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_gateway.config import Loaded

BACKEND = "backends: {{{name}: {{url: http://a}}}}\n"


class Gateway:
    """What a watcher tells."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.refuses: Exception | None = None

    def on_change(self, loaded: Loaded) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.told.append(", ".join(loaded.settings.backends))

    def on_refused(self, error: ConfigError) -> None:
        self.told.append(f"refused: {str(error).rsplit('/', 1)[-1]}")


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "backends.yaml"
    path.write_text(BACKEND.format(name="first"), encoding="utf-8")
    return path


def watch(path: Path, gateway: Gateway) -> ConfigWatcher:
    return ConfigWatcher(
        path, {}, load(path, {}), on_change=gateway.on_change, on_refused=gateway.on_refused
    )


async def look(watcher: ConfigWatcher, times: int = 2) -> None:
    for _ in range(times):
        await watcher.check()


async def test_a_changed_file_is_taken_over_once(path: Path, gateway: Gateway) -> None:
    watcher = watch(path, gateway)
    await look(watcher)
    assert gateway.told == []
    path.write_text(BACKEND.format(name="second"), encoding="utf-8")
    await look(watcher, 4)
    assert gateway.told == ["second"]


async def test_a_file_that_is_still_being_written_is_left_alone(
    path: Path, gateway: Gateway
) -> None:
    watcher = watch(path, gateway)
    for name in ("a", "b", "c"):
        path.write_text(BACKEND.format(name=name), encoding="utf-8")
        await look(watcher, 1)
    assert gateway.told == []
    await look(watcher, 1)
    assert gateway.told == ["c"]


async def test_a_touched_file_with_the_same_content_is_no_change(
    path: Path, gateway: Gateway
) -> None:
    watcher = watch(path, gateway)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    await look(watcher)
    assert gateway.told == []


async def test_a_swapped_symlink_of_a_config_map_is_a_change(
    tmp_path: Path, gateway: Gateway
) -> None:
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        text = BACKEND.format(name=version)
        (tmp_path / version / "backends.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "..data").symlink_to("v1")
    path = tmp_path / "backends.yaml"
    path.symlink_to("..data/backends.yaml")
    watcher = watch(path, gateway)
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    await look(watcher)
    assert gateway.told == ["v2"]


async def test_an_editor_that_renames_a_new_file_into_place_makes_a_change(
    path: Path, gateway: Gateway
) -> None:
    watcher = watch(path, gateway)
    path.rename(path.with_suffix(".bak"))
    await look(watcher, 1)
    path.write_text(BACKEND.format(name="second"), encoding="utf-8")
    await look(watcher)
    assert gateway.told == ["second"]


async def test_a_bad_file_is_refused_once_and_a_mended_one_taken(
    path: Path, gateway: Gateway
) -> None:
    watcher = watch(path, gateway)
    path.write_text("backends: {a: {}}", encoding="utf-8")
    await look(watcher, 4)
    assert gateway.told == ["refused: backends.yaml:1: backends.a.url: is required"]
    path.write_text(BACKEND.format(name="mended"), encoding="utf-8")
    await look(watcher)
    assert gateway.told[1:] == ["mended"]


async def test_a_file_that_is_gone_is_refused_and_what_runs_stays(
    path: Path, gateway: Gateway
) -> None:
    watcher = watch(path, gateway)
    path.unlink()
    await look(watcher, 3)
    assert gateway.told == ["refused: backends.yaml: cannot be read: No such file or directory"]


async def test_files_that_the_configuration_names_are_watched(
    path: Path, gateway: Gateway, tmp_path: Path
) -> None:
    watcher = watch(path, gateway)
    text = BACKEND.format(name="second") + "groups_file: groups.yaml\nkeys: {k: {file: key}}\n"
    (tmp_path / "groups.yaml").write_text("groups: []", encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    await look(watcher)
    (tmp_path / "key").write_text("sk-1", encoding="utf-8")
    await look(watcher)
    (tmp_path / "groups.yaml").write_text("groups: [{name: a}]", encoding="utf-8")
    await look(watcher)
    assert gateway.told == ["second"] * 3


async def test_a_file_that_is_no_longer_named_is_no_longer_watched(
    path: Path, gateway: Gateway, tmp_path: Path
) -> None:
    path.write_text("keys: {k: {file: key}}", encoding="utf-8")
    watcher = watch(path, gateway)
    path.write_text(BACKEND.format(name="second"), encoding="utf-8")
    await look(watcher)
    (tmp_path / "key").write_text("sk-1", encoding="utf-8")
    await look(watcher)
    assert gateway.told == ["second"]


async def test_a_configuration_that_the_gateway_refuses_is_tried_again_when_a_file_of_it_changes(
    path: Path, gateway: Gateway, tmp_path: Path
) -> None:
    watcher = watch(path, gateway)
    gateway.refuses = ConfigError("no")
    text = BACKEND.format(name="second") + "keys: {k: {file: key}}\n"
    path.write_text(text, encoding="utf-8")
    await look(watcher, 4)
    assert gateway.told == ["refused: no"]
    gateway.refuses = None
    (tmp_path / "key").write_text("sk-1", encoding="utf-8")
    await look(watcher)
    assert gateway.told == ["refused: no", "second"]


async def test_a_fault_of_the_gateway_itself_does_not_end_the_watching(
    path: Path, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = watch(path, gateway)
    gateway.refuses = ValueError("sk-secret")
    path.write_text(BACKEND.format(name="second"), encoding="utf-8")
    await look(watcher)
    assert gateway.told == ["refused: backends.yaml: ValueError"]
    assert "a changed configuration could not be taken over" in caplog.text
    gateway.refuses = None
    path.write_text(BACKEND.format(name="third"), encoding="utf-8")
    await look(watcher)
    assert gateway.told[1:] == ["third"]


async def test_it_looks_at_every_interval_until_it_is_cancelled(
    path: Path, gateway: Gateway
) -> None:
    naps: list[float] = []
    awake = asyncio.Event()

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 4:
            awake.set()
            await asyncio.Event().wait()

    watcher = ConfigWatcher(
        path,
        {},
        load(path, {}),
        on_change=gateway.on_change,
        on_refused=gateway.on_refused,
        interval=0.5,
        sleep=sleep,
    )
    path.write_text(BACKEND.format(name="second"), encoding="utf-8")
    task = asyncio.create_task(watcher.run())
    await awake.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert naps == [0.5] * 4
    assert gateway.told == ["second"]
