"""Reads a configuration file of any dialect into `Settings`."""

from __future__ import annotations

import enum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from synapse_gateway.config import source
from synapse_gateway.config.checks import Checks
from synapse_gateway.config.findings import Finding, Findings, Place
from synapse_gateway.config.groups import read_groups
from synapse_gateway.config.litellm import read_litellm
from synapse_gateway.config.native import read_native
from synapse_gateway.config.settings import AuthMode, Settings
from synapse_gateway.config.shape import Places
from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_gateway.config.options import ServeOptions

_LITELLM_SECTIONS = {"model_list", "litellm_settings", "router_settings", "general_settings"}


class Dialect(enum.StrEnum):
    """Whose file it is."""

    NATIVE = "native"
    REGISTRY = "registry"
    LITELLM = "litellm"
    GROUPS = "groups"
    NONE = "none"
    """There is no file."""


class Loaded(msgspec.Struct, frozen=True):
    """A configuration that can be used."""

    settings: Settings
    hash: str
    """SHA-256, in hex, of the settings; equal on all replicas that run the same."""
    dialect: Dialect
    warnings: tuple[Finding, ...] = ()
    files: tuple[Path, ...] = ()
    """Every file that it was made from or refers to; a change of any of them counts."""


def load(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Read a configuration file.

    Environment variables:
        SYNAPSE_AUTH: `keys` or `anonymous`, where the file does not say.
        SYNAPSE_API_KEYS_FILE: Counts among the files to watch; `auth.keys` reads it.

    Args:
        path: The file. Relative names of files in it are relative to its directory.
        environ: The process environment.

    Raises:
        ConfigError: It cannot be used; a line for each reason.
    """
    findings = Findings()
    root = source.parse(source.read_text(path), str(path), findings)
    dialect = detect(root)
    settings, places = _read(dialect, root, str(path), environ, findings)
    settings = _with_absolute_files(settings, path.absolute().parent)
    if settings.groups_file is not None:
        settings, places = _with_groups(settings, places, Path(settings.groups_file), findings)
    if "auth" not in root.entries:
        settings = _with_auth(settings, environ, findings)
    Checks(settings, places, environ, findings).run()
    findings.raise_errors()
    return Loaded(
        settings=settings,
        hash=hash_of(settings),
        dialect=dialect,
        warnings=findings.warnings,
        files=(path, *_files_of(settings, environ)),
    )


def load_for_serving(options: ServeOptions, environ: Mapping[str, str]) -> Loaded:
    """Read the configuration that a server runs with, which may be none at all.

    Without a file, and with nobody having named one, there are no backends; the environment alone
    says who may call.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    if options.config_named or options.config_path.exists():
        return load(options.config_path, environ)
    findings = Findings()
    settings = _with_auth(Settings(), environ, findings)
    findings.raise_errors()
    place = Place(str(options.config_path), 0)
    missing = Finding(place, "there is no such file, so there are no backends; see --config")
    return Loaded(
        settings=settings,
        hash=hash_of(settings),
        dialect=Dialect.NONE,
        warnings=(missing,),
        files=(options.config_path, *_files_of(settings, environ)),
    )


def detect(root: source.Mapping) -> Dialect:
    """Tell the dialect of a file by its sections."""
    names = set(root.entries)
    if names & _LITELLM_SECTIONS:
        return Dialect.LITELLM
    _, groups = root.entries.get("groups", (0, None))
    if names == {"groups"} and not isinstance(groups, source.Mapping):
        return Dialect.GROUPS
    return Dialect.REGISTRY if names == {"backends", "routes"} else Dialect.NATIVE


def hash_of(settings: Settings) -> str:
    """Return the SHA-256 of a configuration, in hex."""
    return sha256(msgspec.json.encode(settings.as_plain())).hexdigest()


def _read(
    dialect: Dialect,
    root: source.Mapping,
    file: str,
    environ: Mapping[str, str],
    findings: Findings,
) -> tuple[Settings, Places]:
    if dialect is Dialect.LITELLM:
        return read_litellm(root, file, environ, findings)
    if dialect is Dialect.GROUPS:
        return read_groups(root, file, findings)
    return read_native(root, file, findings)


def _with_absolute_files(settings: Settings, directory: Path) -> Settings:
    def absolute(name: str | None) -> str | None:
        return None if name is None else str(directory / name)

    replace = msgspec.structs.replace
    return replace(
        settings,
        groups_file=absolute(settings.groups_file),
        keys={name: replace(key, file=absolute(key.file)) for name, key in settings.keys.items()},
        backends={
            name: replace(
                backend,
                api_key_file=absolute(backend.api_key_file),
                tls=replace(backend.tls, ca_file=absolute(backend.tls.ca_file)),
            )
            for name, backend in settings.backends.items()
        },
    )


def _with_groups(
    settings: Settings, places: Places, path: Path, findings: Findings
) -> tuple[Settings, Places]:
    """Add the groups and keys of a worker group file."""
    try:
        root = source.parse(source.read_text(path), str(path), findings)
    except ConfigError as error:
        findings.error(places.at("groups_file"), str(error))
        return settings, places
    added, added_places = read_groups(root, str(path), findings)
    for section, entries in (("keys", added.keys), ("groups", added.groups)):
        for name in entries:
            if name in getattr(settings, section):
                first = places.at(section, name)
                message = f"{section}.{name} is already in line {first.line} of {first.file}"
                findings.error(added_places.at(section, name), message)
    merged = msgspec.structs.replace(
        settings,
        keys={**added.keys, **settings.keys},
        groups={**added.groups, **settings.groups},
    )
    return merged, Places({**added_places.by_path, **places.by_path})


def _with_auth(settings: Settings, environ: Mapping[str, str], findings: Findings) -> Settings:
    text = environ.get("SYNAPSE_AUTH")
    if not text:
        return settings
    modes = [mode.value for mode in AuthMode]
    if text not in modes:
        message = f"must be one of {', '.join(modes)} (got {text!r})"
        findings.error(Place("SYNAPSE_AUTH", 0), message)
        return settings
    return msgspec.structs.replace(settings, auth=AuthMode(text))


def _files_of(settings: Settings, environ: Mapping[str, str]) -> tuple[Path, ...]:
    names = [settings.groups_file, environ.get("SYNAPSE_API_KEYS_FILE")]
    names.extend(key.file for key in settings.keys.values())
    for backend in settings.backends.values():
        names.extend((backend.api_key_file, backend.tls.ca_file))
    return tuple(dict.fromkeys(Path(name) for name in names if name))
