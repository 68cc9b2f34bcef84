"""Which BPF programs and maps the kernel holds."""

from __future__ import annotations

import ctypes
import json
import os

from hack.cluster.settings import ClusterError
from hack.cluster.shell import run

SYSCALL = 321  # bpf(2) on x86-64
NEXT_ID = {"prog": 11, "map": 12}  # BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID


class IdAttribute(ctypes.Structure):
    """The part of union bpf_attr that the two commands read and write."""

    _fields_ = (
        ("start_id", ctypes.c_uint32),
        ("next_id", ctypes.c_uint32),
        ("open_flags", ctypes.c_uint32),
    )


def numbers(kind: str) -> list[int]:
    """Numbers of all programs or maps.

    They are walked without opening any, which `bpftool map list` does: closing the last handle of a
    map of programs empties it in the background, and a second close meanwhile keeps it for ever
    (the kernel takes a reference for each, and gives one back).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    attribute = IdAttribute()
    found = []
    while (
        libc.syscall(SYSCALL, NEXT_ID[kind], ctypes.byref(attribute), ctypes.sizeof(attribute)) == 0
    ):
        found.append(attribute.next_id)
        attribute.start_id = attribute.next_id
    return found


def objects() -> set[str]:
    """All programs and maps, as `prog 7` and `map 9`; none where the kernel does not tell."""
    if os.geteuid() != 0:
        return set()
    return {f"{kind} {number}" for kind in NEXT_ID for number in numbers(kind)}


def name(thing: str) -> str:
    """The name of one of `objects`, empty if it is gone by now."""
    kind, number = thing.split()
    try:
        return str(json.loads(run(["bpftool", "--json", kind, "show", "id", number])).get("name"))
    except (ClusterError, ValueError):
        return ""
