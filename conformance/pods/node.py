"""Looks from inside a pod's network, and breaks pods and nodes, from a privileged pod of the node.

    node.py reach UID HOST:PORT ...      connect to each at once; who was reached
    node.py blackhole UID SECONDS        drop what the pod sends, for so long (0: until `heal`)
    node.py heal UID
    node.py signal UID NAME [COMM]       send a signal to the pod's processes
    node.py crawl UID SECONDS            let the pod run for a tenth of the time only, for so long
    node.py files UID FOLDER             sizes of the files in a folder of the pod's first process
    node.py expose UID                   make the pod's processes the first to go without memory
    node.py cut SECONDS CIDR             drop what the node sends to others than its own pods
    node.py pause COMM SECONDS           stop the node's processes of a name, for so long

UID is a pod's `metadata.uid`. Every fault that could keep its own mending away ends by itself. The
standard library of Python 3.12 is all that it needs; it prints JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CRAWL = 0.05
"""Seconds that a crawling pod runs at a time."""
NOTICE = 1.0
"""Seconds from the word to the cut of a node."""
LIMIT = 3.0
"""Seconds in which a connection is made, or is not: policies drop, they do not reject."""
RTM_NEWRULE, RTM_DELRULE = 32, 33
NLM_REQUEST, NLM_ACK, NLM_CREATE, NLM_EXCL = 0x1, 0x4, 0x400, 0x200
FRA_DST, FRA_PRIORITY, FRA_TABLE = 1, 6, 15
FR_ACT_TO_TBL, FR_ACT_BLACKHOLE = 1, 6
MAIN = 254
"""The routing table `main`."""


def processes(uid: str) -> list[int]:
    """Return the processes of a pod, by the name of its control group."""
    names = (f"pod{uid}", f"pod{uid.replace('-', '_')}")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            groups = (folder / "cgroup").read_text(encoding="utf-8")
            ended = not (folder / "ns" / "net").exists()  # and nobody has asked how
            if any(name in groups for name in names) and not ended:
                found.append(int(folder.name))
    if not found:
        sys.exit(f"no process of pod {uid} on this node")
    return sorted(found)


def enter(uid: str) -> None:
    """Go into the network of a pod."""
    with Path(f"/proc/{processes(uid)[0]}/ns/net").open("rb") as file:
        os.setns(file.fileno(), os.CLONE_NEWNET)  # type: ignore[attr-defined]  # Python 3.12


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute of a netlink message."""
    return struct.pack("=HH", 4 + len(value), kind) + value


def rule(kind: int, priority: int, cidr: str = "") -> None:
    """Add or take away a routing rule (rtnetlink(7)): a way to a network, or none to anybody.

    Rules after the local table, which is the first, and before every other: what arrives is still
    delivered, and nothing is sent.
    """
    address, _, bits = cidr.partition("/")
    action, table = (FR_ACT_TO_TBL, MAIN) if cidr else (FR_ACT_BLACKHOLE, 0)
    body = struct.pack("=8BI", socket.AF_INET, int(bits or 0), 0, 0, table, 0, 0, action, 0)
    body += attribute(FRA_PRIORITY, struct.pack("=I", priority))
    if cidr:
        body += attribute(FRA_DST, socket.inet_aton(address))
    flags = NLM_REQUEST | NLM_ACK | (NLM_CREATE | NLM_EXCL if kind == RTM_NEWRULE else 0)
    head = struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.send(head + body)
        answer = netlink.recv(4096)
    error = -struct.unpack("=i", answer[16:20])[0]
    if error not in (0, errno.EEXIST, errno.ENOENT):
        raise OSError(error, os.strerror(error))


def drop(spared: str = "") -> None:
    """Drop what is sent from here on, but for what goes to a network."""
    if spared:
        rule(RTM_NEWRULE, 1, spared)
    rule(RTM_NEWRULE, 2)


def undrop(spared: str = "") -> None:
    """Let it pass again."""
    rule(RTM_DELRULE, 2)
    if spared:
        rule(RTM_DELRULE, 1, spared)


def later(seconds: float, *arguments: str) -> None:
    """Run another command of this script after a while, whatever happens to the caller."""
    subprocess.Popen(  # noqa: S603 - this script
        [sys.executable, sys.argv[0], "after", str(seconds), *arguments],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def connect(target: str) -> str:
    """Return how a connection ended: open, refused, dropped, or the system's word."""
    host, _, port = target.rpartition(":")
    try:
        async with asyncio.timeout(LIMIT):
            _, writer = await asyncio.open_connection(host, int(port))
    except TimeoutError:
        return "dropped"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return error.strerror or str(error)
    writer.close()
    return "open"


async def reach(targets: list[str]) -> dict[str, str]:
    """Connect to all at once."""
    return dict(zip(targets, await asyncio.gather(*map(connect, targets)), strict=True))


def comm_of(pid: int) -> str:
    """Return the name of a process, empty where it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return ""


def send(uid: str, name: str, comm: str = "") -> list[int]:
    """Send a signal to the processes of a pod, those of one name if it is given."""
    chosen = [pid for pid in processes(uid) if comm_of(pid) not in ("", "pause")]
    if comm:
        chosen = [pid for pid in chosen if comm_of(pid) == comm]
    return send_to(chosen, signal.Signals[name])


def send_to(pids: list[int], number: int) -> list[int]:
    """Send a signal, and return who got it."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids


def named(comm: str) -> list[int]:
    """Return the processes of a name (the kernel keeps 15 letters) in this node's own network."""
    here = Path("/proc/self/ns/net").stat()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            there = (folder / "ns" / "net").stat()
            if there.st_ino == here.st_ino and comm_of(int(folder.name)) == comm[:15]:
                found.append(int(folder.name))
    return found


def reach_from(uid: str, *targets: str) -> dict[str, str]:
    """Connect from a pod's network."""
    enter(uid)
    return asyncio.run(reach(list(targets)))


def blackhole(uid: str, seconds: str) -> None:
    """Drop what a pod sends, for so long."""
    if float(seconds):
        later(float(seconds), "heal", uid)
    enter(uid)
    drop()


def crawl(uid: str, seconds: str) -> None:
    """Let a pod run for a tenth of the time only, for so long."""
    later(0, "crawling", uid, seconds)


def crawling(uid: str, seconds: str) -> None:
    """Stop a pod and let it go on, again and again; the last word is to go on."""
    end = time.monotonic() + float(seconds)
    try:
        while time.monotonic() < end:
            send(uid, "SIGSTOP")
            time.sleep(CRAWL * 9)
            send(uid, "SIGCONT")
            time.sleep(CRAWL)
    finally:
        send(uid, "SIGCONT")


def expose(uid: str) -> list[int]:
    """Make a pod's processes the first that the kernel kills when the pod is out of memory."""
    chosen = [pid for pid in processes(uid) if comm_of(pid) not in ("", "pause")]
    for pid in chosen:
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000", encoding="utf-8")
    return chosen


def files(uid: str, folder: str) -> dict[str, int]:
    """Return the sizes of the files in a folder that the pod's containers mount."""
    for pid in processes(uid):
        top = Path(f"/proc/{pid}/root{folder}")
        if comm_of(pid) not in ("", "pause") and top.is_dir():
            found = (file for file in top.rglob("*") if file.is_file() and not file.is_symlink())
            return {str(file.relative_to(top)): file.stat().st_size for file in found}
    sys.exit(f"no process of pod {uid} has {folder}")


def heal(uid: str) -> None:
    """Let a pod's packets pass again."""
    enter(uid)
    undrop()


def cut(seconds: str, spared: str) -> None:
    """Drop what the node sends to others than its own pods, for so long.

    It begins in a moment: who asks for it is to hear that it was done.
    """
    later(NOTICE, "isolate", spared)
    later(NOTICE + float(seconds), "mend", spared)


def pause(comm: str, seconds: str) -> list[int]:
    """Stop the node's processes of a name, for so long."""
    later(float(seconds), "resume", comm)
    return send_to(named(comm), signal.SIGSTOP)


def resume(comm: str) -> list[int]:
    """Let them go on."""
    return send_to(named(comm), signal.SIGCONT)


def after(seconds: str, verb: str, *rest: str) -> object:
    """Carry a command out later."""
    time.sleep(float(seconds))
    return VERBS[verb](*rest)


VERBS: dict[str, Callable[..., object]] = {
    "reach": reach_from,
    "blackhole": blackhole,
    "heal": heal,
    "signal": send,
    "crawl": crawl,
    "crawling": crawling,
    "expose": expose,
    "files": files,
    "cut": cut,
    "isolate": drop,
    "mend": undrop,
    "pause": pause,
    "resume": resume,
    "after": after,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(VERBS[sys.argv[1]](*sys.argv[2:])))
