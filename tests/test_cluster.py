"""Ray for the length of a block."""

from __future__ import annotations

import os
import re
import subprocess
import sys

TWICE = """
import os
import ray
from sicot import cluster
nice = ray.remote(lambda: os.nice(0))
for urgent in (False, True):
    with cluster.session(1, urgent=urgent):
        print("up", ray.get(nice.remote()) - os.nice(0))
"""


def test_a_process_may_have_one_session_after_another_and_an_endpoint_s_gives_way_to_nobody() -> None:
    said = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=180)
    assert said.returncode == 0, said.stderr
    assert re.findall(r"^up (\d+)$", said.stdout, re.MULTILINE) == [str(min(15, 19 - os.nice(0))), "0"]
