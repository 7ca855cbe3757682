"""Four times as many requests as the endpoint can answer: what it answers, what it refuses, and how it is afterwards.

    python -m benchmarks.serving.overload            a minute of each; needs wrk (Debian: wrk)

`rps` counts good answers. Under overload p50 and p99 are those of a few clients among the many, from the request to
the good answer: wrk cannot tell answers from refusals. `refused` are 429 and 503, `errors` all else; `asked` are all
requests a second; `mb` the replicas' memory. wrk shares the machine and takes `load_cores` of it, the more the more it
asks: `of peak, a core` compares good answers per core that it leaves.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx
import numpy as np
import psutil

from benchmarks import record
from benchmarks.serving import load
from benchmarks.serving.start import SIZE, WARM, make, serving
from sicot import ingress
from sicot.errors import door

TIMES = 4
FEW, PAUSE = 32, 0.2
"""Clients whose answers are timed, and how long they rest between, seconds."""
CLIENTS = {800: 0, 4000: ingress.QUEUE}
"""Connections, and how much sooner each asks again, milliseconds. Those that wait in HAProxy until they are answered
ask the less; so many more, which ask again as soon as they are sent away, reach it with several times the peak."""


def main() -> None:
    """Find the peak, ask for four times as much by some clients and by many, look again."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.overload",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--trunk", default="mobilenet_v2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, photos = Path(folder), load.photos(SIZE)
        usual = load.Load(root / "usual", photos, "image/jpeg")
        with serving("ours", make(root, options.trunk), usual) as url:
            usual.run(url, 32, WARM)
            peak = {"load": "peak", "connections": 32, **usual.run(url, 32, 10), "mb": memory()}
            over = []
            for clients, sooner in CLIENTS.items():
                every = max(50, 1000 * clients / (TIMES * peak["rps"]) - sooner)
                much = load.Load(root / f"much-{clients}", photos, "image/jpeg", every)
                row = flood(url, photos[:FEW], much, clients, options.seconds)
                asked = row["rps"] + row["refused"] / options.seconds
                over.append({"load": f"{TIMES} x peak", "connections": clients, **row, "mb": memory(), "asked": asked})
            after = {"load": "afterwards", "connections": 32, **usual.run(url, 32, 5), "mb": memory()}
    record.record("overload", [{**row, **of_peak(row, peak)} for row in (peak, *over, after)])


def flood(url: str, photos: list[bytes], much: load.Load, clients: int, seconds: float) -> dict[str, Any]:
    """What so many clients get, timed by some more of them, one for each photo."""
    with ThreadPoolExecutor(len(photos)) as few:
        until = time.monotonic() + seconds
        asking = [few.submit(answers, url, photo, until) for photo in photos]
        row = much.run(url, clients, seconds)
        took = [each for client in asking for each in client.result()]
    p50, p99 = np.percentile(took, (50, 99))
    return {**row, "p50_ms": float(p50), "p99_ms": float(p99)}


def answers(url: str, photo: bytes, until: float) -> list[float]:
    """Milliseconds until each good answer to a client that asks again and again, until then."""
    took = []
    with httpx.Client(timeout=10, headers={"Content-Type": "image/jpeg", "Connection": "close"}) as client:
        while (begun := time.monotonic()) < until:
            if client.post(url, content=photo).status_code == 200:
                took.append(1000 * (time.monotonic() - begun))
            time.sleep(PAUSE)
    return took


def of_peak(row: dict[str, Any], peak: dict[str, Any]) -> dict[str, float]:
    """Good answers as a share of the peak's; also for each core that the load leaves to the endpoint."""
    left, had = (record.cores() - each["load_cores"] for each in (row, peak))
    share = row["rps"] / peak["rps"]
    return {"of peak": share, "of peak, a core": share * had / left}


def memory() -> int:
    """Of all replicas on this machine, MiB."""
    names = [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]]
    replicas = [process for process in names if "ServeReplica" in process.info["cmdline"][0]]
    return round(sum(process.memory_info().rss for process in replicas) / 2**20)


if __name__ == "__main__":
    door(main)
