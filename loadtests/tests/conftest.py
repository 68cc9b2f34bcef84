"""Makes the load tests importable by their own name, wherever pytest was started."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
