"""The supervisor's process: ``python -m synapse_gateway.up STATE_DIRECTORY``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from synapse_gateway.up.state import AlreadyLocked, StateDirectory
from synapse_gateway.up.supervisor import supervise


def main(path: str) -> int:
    """Supervise until told to stop; the exit code."""
    directory = StateDirectory(Path(path))
    try:
        with directory.locked():
            return asyncio.run(supervise(directory))
    except AlreadyLocked:
        sys.stderr.write(f"another supervisor runs in {path}\n")
    except OSError as error:
        sys.stderr.write(f"{path} cannot be written: {error.strerror}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
