import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_api_page_is_what_the_code_says() -> None:
    done = subprocess.run(  # noqa: S603 - a script of this tree
        [sys.executable, str(ROOT / "hack" / "generate_api_doc.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
