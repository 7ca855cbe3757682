"""What a million classes cost: samples/s, memory and loss of the shared classifier, against what one would use instead.

    python -m benchmarks.classes                                    1 K to 5 M classes, 1 and 2 workers
    python -m benchmarks.classes --classes 1000000 --workers 1      one size
    python -m benchmarks.classes --device cuda --classes 1000000 10000000 --workers 1

Each method runs in processes of its own on the same features of two streams: the classifier's whole step (logits, loss,
gradients, optimiser), no trunk. `loss` is the whole softmax's on held rows after the same number of samples; `above_mb`
what a worker holds at most above an idle one, `allowed_mb` 1.2 x its weights and optimiser state + 500 MiB.
`ours, fixed` compares with the same number of classes whatever there is.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
from typing import Any

import matplotlib
from tqdm import tqdm

matplotlib.use("Agg")
from matplotlib.figure import Figure

from benchmarks import record
from benchmarks.classes.methods import METHODS
from benchmarks.classes.worker import Setting, measured, work
from sicot import ports

FIXED = 8192  # classes in use of `ours, fixed`


def main() -> None:
    """Measure everything that fits into memory, print, write and draw it."""
    options = _options()
    rows = []
    wanted = list(settings(options))
    with tqdm(wanted, desc="classes", unit=" measurements") as bar:
        for label, setting in bar:
            bar.set_postfix_str(f"{label}, {setting.classes:,} classes, {setting.workers} worker(s)")
            if figures := run(setting):
                rows.append(_row(label, figures))
            else:
                bar.write(f"left out: {label} at {setting.classes:,} classes: the machine has too little memory")
    _ratios(rows)
    place = record.record("classes", rows)
    draw(rows).savefig(place.with_suffix(".png"), dpi=120)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.classes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000, 5_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256, help="products of all workers in a step")
    parser.add_argument("--sample", type=float, default=0.1, help="share of the classes that a step compares with")
    parser.add_argument("--steps", type=int, default=16, help="timed steps")
    parser.add_argument("--warm", type=int, default=4, help="steps before them")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args()


def settings(options: argparse.Namespace) -> Any:
    """Label and setting of each measurement; what would not fit into memory is left out, and said so."""
    memory = record.machine().get("memory_gib", 16) * 2**30
    for classes in options.classes:
        for workers in options.workers:
            share = max(1, round(options.sample * classes))
            for label, method, sampled in [
                *((name, name, share) for name in options.methods),
                *([("ours, fixed", "ours", FIXED)] if "ours" in options.methods else []),
            ]:
                table, logits = 4 * classes * options.dimension, 8 * classes * options.batch
                tables = {"dense": 3 * workers, "adaptive": 3 * workers, "partial_dense_grad": 3}.get(method, 2)
                need = tables * table + (3 * logits if method == "dense" else 0)
                if options.device == "cpu" and need > 0.8 * memory:
                    print(f"left out: {label} at {classes:,} classes needs {need / 2**30:.0f} GiB", flush=True)
                    continue
                yield (
                    label,
                    Setting(
                        method=method,
                        classes=classes,
                        workers=workers,
                        dimension=options.dimension,
                        batch=options.batch,
                        sampled=min(sampled, classes),
                        steps=options.steps,
                        warm=options.warm,
                        device=options.device,
                        threads=max(1, record.cores() // workers),
                    ),
                )


def run(setting: Setting) -> dict[str, Any] | None:
    """One measurement, in as many new processes as it has workers; None if the system has killed one for its memory."""
    spawn = multiprocessing.get_context("spawn")
    (port,) = ports.free()
    processes, pipes = [], []
    for rank in range(setting.workers):
        here, there = spawn.Pipe(duplex=False)
        processes.append(spawn.Process(target=work, args=(rank, setting, port, there), daemon=True))
        processes[-1].start()
        there.close()
        pipes.append(here)
    try:
        return measured([pipe.recv() for pipe in pipes])
    except EOFError as error:
        for process in processes:  # whoever was killed has ended, and others soon fail without it
            process.join(timeout=10)
        if any(process.exitcode == -signal.SIGKILL for process in processes):
            return None
        raise SystemExit(f"error: a worker of {setting} ended before it had measured anything") from error
    finally:
        for process in processes:
            process.kill()  # it has told all it had to tell
            process.join()


def _row(label: str, figures: dict[str, Any]) -> dict[str, Any]:
    names = ("classes", "workers", "sampled", "samples_per_s", "peak_mb", "loss", "state_mb")
    row = {"method": label, **{name: figures[name] for name in names}}
    row["above_mb"] = figures["peak_mb"] - figures["idle_mb"]
    row["allowed_mb"] = 1.2 * figures["state_mb"] + 500
    return row


def _ratios(rows: list[dict[str, Any]]) -> None:
    """How many times as fast each is as `dense`, and as `partial_dense_grad`, at the same size and workers."""
    speeds = {(row["method"], row["classes"], row["workers"]): row["samples_per_s"] for row in rows}
    for row in rows:
        for rival in ("dense", "partial_dense_grad"):
            base = speeds.get((rival, row["classes"], row["workers"]))
            row[f"x_{rival.split('_')[0]}"] = row["samples_per_s"] / base if base else ""


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Samples/s and memory against the number of classes, both logarithmic."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, name, title in zip(
        figure.subplots(1, 2), ("samples_per_s", "peak_mb"), ("samples/s", "peak memory of a worker, MiB"), strict=True
    ):
        for number, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            for workers, style in ((1, "-o"), (2, "--s")):
                points = [
                    (row["classes"], row[name]) for row in rows if (row["method"], row["workers"]) == (method, workers)
                ]
                if points:
                    label = f"{method}, {workers} worker{'s' * (workers > 1)}"
                    axes.plot(*zip(*points, strict=True), style, color=f"C{number}", label=label)
        axes.set(xscale="log", yscale="log", xlabel="classes", title=title)
        axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main()
