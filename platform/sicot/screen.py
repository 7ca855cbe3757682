"""The last screen of the pipeline: what came out, and where to look next."""

from __future__ import annotations

from typing import Any

from sicot import track
from sicot.config import Experiment

NAMES = {"image": "photo", "image_text": "photo + words", "text": "words"}


def show(experiment: Experiment, summary: dict[str, Any], dashboard: str) -> None:
    """Print the summary for people."""
    print(f"\n━━ {experiment.name}: test split" + " " * 12 + "all   macro    head  medium    tail")
    for name, metrics in summary["test"].items():
        if name.endswith("_image"):
            continue
        print(_row(NAMES.get(name, name.removeprefix("image_")), metrics))
    if summary["baseline"]:
        print(_row("photo, visual-only model", summary["baseline"]["image"]))
    for name, difference in summary["sicot_minus_visual"].items():
        regime = NAMES[name.removesuffix("_tail")]
        several = difference["seeds"] > 1
        interval = f" ± {100 * difference['ci95']:.1f}" if several else ""
        seeds = f"{difference['seeds']} seeds, 95 % interval" if several else "one seed, no interval"
        print(
            f"   tail, SICoT ({regime}) minus visual only: {100 * difference['mean']:+.1f}{interval} points ({seeds})"
        )
    served, seconds = summary["served"], summary["seconds"]
    print(
        f"   endpoint: {served['requests']} requests, {served['agree']:.0%} as the bundle answers, "
        f"p50 {served['p50_ms']} ms"
    )
    print("   seconds: " + ", ".join(f"{step} {value:.0f}" for step, value in seconds.items()))
    root, store = experiment.folder, track.mask(experiment.tracking_uri)
    ui = store if store.startswith("http") else f"mlflow ui --host 127.0.0.1 --backend-store-uri {store}"
    model = f"models:/{experiment.registry.name}@champion"
    print("\n━━ where to look next (commands want the environment: . .venv/bin/activate)")
    for what, where in {
        "summary": f"{root}/summary.json",
        "report, plots, card": f"{root}/report",
        "MLflow": ui,
        "the web page": f"python -m jobs.serve --model {model}",
        "evaluate": f"python -m jobs.evaluate --model {model} --catalogue.path …",
        "tune": f"python -m tuning.search --config {root}/config.yaml",
        "Ray dashboard": f"{dashboard} while a job runs",
    }.items():
        print(f"   {what:<20} {where}")


def _row(name: str, metrics: dict[str, Any]) -> str:
    cells = [f"{100 * metrics[key]:7.1f}" if metrics.get(key) is not None else "      –" for key in COLUMNS]
    return f"   {name:<28}" + " ".join(cells)


COLUMNS = ("top1", "macro", "head", "medium", "tail")
