"""Ray for the length of a block."""

from __future__ import annotations

import subprocess
import sys

TWICE = """
from sicot import cluster
for _ in range(2):
    with cluster.session(1):
        print("up")
"""


def test_a_process_may_have_one_session_after_another() -> None:
    said = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=180)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines().count("up") == 2
