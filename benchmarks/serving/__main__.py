"""Requests per second of the endpoint, against what one would serve the same model with instead.

    python -m benchmarks.serving                        MobileNetV2, 512 JPEGs of 128 pixels; needs wrk (Debian: wrk)
    python -m benchmarks.serving --only ours echo       some of the cases, for trying things out

    engine              the bundle's answers in a loop on one core, nothing around them; batches as load would make them
    echo                a Ray Serve deployment that reads the same bodies by the same code and sends them back
    ours                the endpoint, its cache off
    uvicorn-eager       FastAPI on uvicorn, two processes, PyTorch
    litserve-eager      LitServe, two processes, PyTorch, batches
    uvicorn-engine, litserve-engine     those with our engine

Photos are sent as raw bodies; LitServe takes forms only. `bound` is 1 / (1 / echo + 1 / (cores x engine)): what serving
would give if an answer cost as much as its two parts. `load_cores` is what wrk, on the same machine, took of it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks import record
from benchmarks.serving import load
from benchmarks.serving.start import SIZE, WARM, make, serving
from sicot import config
from sicot.bundle import Bundle, Query
from sicot.errors import door

RIVALS = ("uvicorn-eager", "litserve-eager", "uvicorn-engine", "litserve-engine")
CASES = ("engine", "echo", "ours", *RIVALS)


def main() -> None:
    """Start one after the other, load each, stop it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=10.0, help="of load for each line")
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES, metavar="CASE", help="some of the cases")
    parser.add_argument("--trunk", default="mobilenet_v2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, photos = Path(folder), load.photos(SIZE)
        made = make(root, options.trunk)
        raw = load.Load(root / "raw", photos, "image/jpeg")
        form = load.Load(root / "form", [load.form(photo) for photo in photos], "multipart/form-data; boundary=photo")
        rows: list[dict[str, Any]] = []
        for case in options.only:
            if case == "engine":
                rows += engine(made, photos, options.connections, options.seconds)
                continue
            work = form if case.startswith("litserve") else raw
            with serving(case, made, work) as url:
                work.run(url, max(options.connections), WARM)
                for connections in options.connections:
                    rows.append(
                        {"case": case, "connections": connections, **work.run(url, connections, options.seconds)}
                    )
                    print(record.table(rows[-1:]).splitlines()[-1], flush=True)
    record.record("serving", [row | ratios(row, rows) for row in rows])


def engine(folder: str, photos: list[bytes], connections: list[int], seconds: float) -> Iterator[dict[str, Any]]:
    """Photo to answer in one thread, in batches as large as so many connections can fill on every core."""
    torch.set_num_threads(1)
    made, most = Bundle.load(folder), config.Serve().max_batch
    for count in connections:
        size = max(1, min(count // record.cores(), most))
        times, begun = [], time.perf_counter()
        while time.perf_counter() - begun < seconds:
            first = len(times) * size % (len(photos) - size)
            start = time.perf_counter()
            made.predict([Query(photo) for photo in photos[first : first + size]])
            times.append(1000 * (time.perf_counter() - start))
        times.sort()
        p50, p99 = times[len(times) // 2], times[int(0.99 * len(times))]
        rate = size * len(times) / (sum(times) / 1000)
        yield {"case": "engine", "connections": count, "rps": rate, "p50_ms": p50, "p99_ms": p99, "errors": 0}


def ratios(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of our own lines: how many times as fast as each rival, and the share of the bound."""
    of = {each["case"]: each["rps"] for each in rows if each["connections"] == row["connections"]}
    if row["case"] != "ours":
        return {}
    found = {f"x {name}": row["rps"] / of[name] for name in RIVALS if name in of}
    if {"echo", "engine"} <= of.keys():
        found["of bound"] = row["rps"] * (1 / of["echo"] + 1 / (record.cores() * of["engine"]))
    return found


if __name__ == "__main__":
    door(main)
