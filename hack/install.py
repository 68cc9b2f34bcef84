#!/usr/bin/env python3
"""Make the virtual environment that a lock describes, showing what is being done.

usage: hack/install.py gateway | embedded | test

A second run with an unchanged lock does nothing. It uses the standard library alone, and syntax
that Python 3.6 still reads (types are quoted for that): it is to say in a sentence that the
Python is too old.
"""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

LOCKS = ("gateway", "embedded", "test")  # each holds all of those before it
NEEDS_MB = {"gateway": 300, "embedded": 1800, "test": 2000}
OLDEST, NEWEST = (3, 11), (3, 13)
ROOT = Path(__file__).resolve().parent.parent

NETWORK = re.compile(
    "Retrying|ConnectionError|NewConnectionError|ReadTimeout|timed out|IncompleteRead|ProxyError"
    "|SSLError|Connection broken|Name or service not known|Temporary failure in name resolution"
)
WAY_OUT = "make up PYTHON=/path/to/python3.12"


class Problem(Exception):
    """A sentence that says what is wrong and what to do."""


class Steps:
    """Numbered lines with the seconds since the start."""

    def __init__(self, count: int) -> None:
        """There will be `count` steps."""
        self.count = count
        self.number = 0
        self.begun = time.monotonic()

    def next(self, text: str) -> None:
        """Begin a step."""
        self.number += 1
        self.say(f"[{self.number}/{self.count}] {text}")

    def say(self, text: str) -> None:
        """Write a line of the current step."""
        sys.stdout.write(f"{time.monotonic() - self.begun:5.0f} s  {text}\n")
        sys.stdout.flush()


class Shown:
    """Turns pip's output into a line a package."""

    def __init__(self, total: int, steps: Steps) -> None:
        """Of `total` packages, some of which may be for other systems."""
        self.total = total
        self.steps = steps
        self.done = 0
        self.current = ""

    def line(self, line: str) -> None:
        """Take a line of pip's output."""
        found = re.match(r"Collecting ([^ ;]+)", line)
        size = re.match(r"\s+(Downloading|Using cached) (\S+)(?: \(([^)]+)\))?", line)
        if found:
            self.done += 1
            self.current = found.group(1).replace("==", " ")
        elif size and not size.group(2).endswith(".metadata"):
            where = "" if size.group(1) == "Downloading" else " from the cache"
            note = f"{size.group(3) or ''}{where}"
            self.steps.say(f"  {self.done} of {self.total}  {self.current}  {note}")
        elif line.startswith("Ignoring "):  # not for this Python or system
            self.total -= 1
        elif line.startswith("Requirement already satisfied"):
            self.done += 1
        elif line.startswith("Installing collected packages"):
            count = line.count(",") + 1
            self.steps.say(f"  unpacking {count} packages")


def version_of(python: "str | Path") -> "tuple[int, int] | None":
    """Return (major, minor) of an interpreter, None when it does not run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        out = subprocess.run(
            [str(python), "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = out.decode().strip().split(".")
    return int(major), int(minor)


def find_python() -> str:
    """Return a supported interpreter: the one that was named, or the first on the path."""
    named = os.environ.get("PYTHON")
    names = [named] if named else [sys.executable, "python3.13", "python3.12", "python3.11"]
    seen = []
    for name in names:
        version = version_of(name)
        if version is not None and OLDEST <= version <= NEWEST:
            return shutil.which(name) or name
        if version is not None:
            seen.append(f"{name} is {version[0]}.{version[1]}")
    found = ", ".join(seen) or "none was found"
    raise Problem(
        f"Python 3.11, 3.12 or 3.13 is needed ({found}); install one, or name it: {WAY_OUT}"
    )


def check_disk(folder: Path, lock: str) -> None:
    """Refuse early what would fail in the middle."""
    free, needed = shutil.disk_usage(str(folder)).free // 1_000_000, NEEDS_MB[lock]
    if free < needed:
        raise Problem(
            f"the disk of {folder} has {free} MB free and the install needs {needed} MB; free some "
            "space and run this again"
        )


def disk_full(folder: Path) -> Problem:
    """Return the sentence for a disk that filled up on the way."""
    temporary = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - only named, not used
    return Problem(
        f"the disk is full; free some space on the disk of {folder} (and of {temporary}) and run "
        "this again"
    )


def output_of(command: "list[str]") -> "tuple[int, str]":
    """Run a command; its exit code and everything that it wrote."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


def make_venv(python: str, venv: Path) -> Path:
    """Create the virtual environment, or keep the one that is there if it works."""
    inside = venv / "bin" / "python"
    version = version_of(inside)
    if version is not None and OLDEST <= version <= NEWEST:
        code, _ = output_of([str(inside), "-m", "pip", "--version"])
        if code == 0:
            return inside
    code, text = output_of([python, "-m", "venv", "--clear", str(venv)])
    if code == 0:
        return inside
    raise why_no_venv(text, python, venv)


def why_no_venv(text: str, python: str, venv: Path) -> Problem:
    """Return the sentence behind the output of a failed `python -m venv`."""
    if "No space left" in text:
        return disk_full(venv)
    if "ensurepip" in text or "No module named venv" in text:
        major, minor = version_of(python) or OLDEST
        return Problem(
            "this Python cannot make virtual environments: its package ensurepip is missing. On "
            f"Debian and Ubuntu: apt install python{major}.{minor}-venv; or name another Python: "
            f"{WAY_OUT}"
        )
    lines = text.strip().splitlines() or ["no reason given"]
    return Problem(f"{venv} could not be created: {lines[-1]}")


def lock_file(lock: str) -> Path:
    """Return the path of a lock."""
    return ROOT / "locks" / f"{lock}.txt"


def digest(lock: str) -> str:
    """Return what an environment made from `lock` depends on, as one hash."""
    total = hashlib.sha256(lock_file(lock).read_bytes())
    total.update((ROOT / "pyproject.toml").read_bytes())
    total.update(bytes(ROOT))  # an environment that was moved finds the project no more
    return total.hexdigest()


def count_packages(lock: str) -> int:
    """Return how many packages a lock names."""
    lines = lock_file(lock).read_text(encoding="utf-8").splitlines()
    return sum(1 for line in lines if re.match(r"[A-Za-z0-9._-]+==", line))


def install_lock(python: Path, lock: str, log_path: Path, steps: Steps) -> None:
    """Install a lock with pip, a line a package."""
    command = [str(python), "-m", "pip", "install", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "off", "-r", str(lock_file(lock))]
    shown = Shown(count_packages(lock), steps)
    with log_path.open("w", encoding="utf-8") as log:
        pip = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(os.environ, PYTHONUNBUFFERED="1", PIP_NO_COLOR="1"),
        )
        try:
            for raw in pip.stdout or ():
                line = raw.decode(errors="replace").rstrip()
                log.write(line + "\n")
                shown.line(line)
        except BaseException:
            pip.terminate()
            pip.wait()
            raise
    if pip.wait() != 0:
        raise why_no_install(log_path.read_text(encoding="utf-8"), shown.current, log_path)


def why_no_install(text: str, package: str, log_path: Path) -> Problem:
    """Return the sentence behind the output of a failed pip."""
    what = package or "a package"
    more = f"pip's own words are in {log_path}"
    if "No space left on device" in text or "Errno 28" in text:
        return disk_full(log_path.parent)
    if "DO NOT MATCH THE HASHES" in text:
        return Problem(
            f"what was downloaded for {what} is not the file that the lock names: the download "
            "broke, or something on the way changed it; run this again, and if it happens again "
            f"try another network ({more})"
        )
    if NETWORK.search(text):
        return Problem(
            f"the download of {what} failed: the package index does not answer; check the network "
            "(behind a proxy set HTTPS_PROXY, with a mirror PIP_INDEX_URL) and run this again; "
            f"what was downloaded is kept ({more})"
        )
    if "No matching distribution" in text or "Could not find a version" in text:
        here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        return Problem(
            f"there is no ready-made file of {what} for {here}; the locks are tried on Linux "
            f"x86_64 with Python 3.11 to 3.13 ({more})"
        )
    errors = [line for line in text.splitlines() if line.startswith("ERROR:")]
    return Problem(f"{errors[-1] if errors else 'pip failed'} ({more})")


def install_project(python: Path, log_path: Path) -> None:
    """Put the project itself into the environment, as a link to this tree; asks no registry."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--editable", str(ROOT)]
    code, text = output_of(command)
    if code == 0:
        return
    with log_path.open("a", encoding="utf-8") as log:
        log.write(text)
    if "No space left" in text:
        raise disk_full(log_path.parent)
    raise Problem(f"the project itself could not be installed; {log_path} ends with the reason")


def read_stamp(path: Path) -> "dict[str, str]":
    """Return which locks an environment holds, each with the hash that it was made from."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def environment() -> Path:
    """Return where the virtual environment is."""
    return Path(os.environ.get("VENV") or ROOT / ".venv").absolute()


def install(lock: str) -> None:
    """Bring the environment in line with a lock."""
    venv = environment()
    stamp = venv / ".installed.json"
    if read_stamp(stamp).get(lock) == digest(lock) and version_of(venv / "bin" / "python"):
        return
    steps = Steps(4)
    python = find_python()
    major, minor = version_of(python) or OLDEST
    steps.next(f"Python {major}.{minor} at {python}")
    venv.parent.mkdir(parents=True, exist_ok=True)
    check_disk(venv.parent, lock)
    steps.next(f"virtual environment in {venv}")
    inside = make_venv(python, venv)
    if stamp.exists():  # what was there is no more what it says
        stamp.unlink()
    count = count_packages(lock)
    steps.next(f"{count} packages of locks/{lock}.txt, each checked by its hash")
    log_path = venv / "install.log"
    install_lock(inside, lock, log_path, steps)
    steps.next("the project itself")
    install_project(inside, log_path)
    held = LOCKS[: LOCKS.index(lock) + 1]
    stamp.write_text(json.dumps({name: digest(name) for name in held}), encoding="utf-8")
    steps.say("installed")


def main(arguments: "list[str]") -> int:
    """Install the lock that the one argument names; the exit code."""
    if len(arguments) != 1 or arguments[0] not in LOCKS:
        sys.stderr.write(f"usage: hack/install.py {' | '.join(LOCKS)}\n")
        return 2
    try:
        install(arguments[0])
    except Problem as problem:
        sys.stderr.write(f"\n{problem}\n")
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.stderr.write(f"\n{disk_full(environment())}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; run it again to go on\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
