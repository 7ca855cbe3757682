"""A node that is lost for good, on a cluster of its own: the shared one of the other tests must keep its nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_training_goes_on_with_the_workers_that_are_left(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.train.lost_node", str(tmp_path)]
    done = subprocess.run(
        command, env={**os.environ, "RAY_ADDRESS": "joined"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "lost a node" in done.stdout
    assert "epochs 6" in done.stdout
    assert "files of rows 1" in done.stdout  # two wrote the first checkpoint, one the last
