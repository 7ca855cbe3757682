"""Measure a model on any labelled catalogue.

    python -m jobs.evaluate --catalogue.path products.parquet                   the champion, all labelled rows
    python -m jobs.evaluate --model models:/sicot/3 --catalogue.path runs/demo/prepared --split test
    python -m jobs.evaluate --model runs/demo/bundle --catalogue.path products.csv --out report

Prints the figures, and writes report.json, report.md, a model card and plots.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from sicot import cluster, config, registry, track
from sicot.errors import door
from sicot.evaluate import report
from sicot.evaluate.run import catalogue_rows, evaluate


class EvaluateJob(config.Job):
    """Settings of this job."""

    model: str = "models:/sicot@champion"
    """Model to measure: an MLflow URI or the folder of a bundle."""
    catalogue: config.Catalogue = config.Catalogue()
    split: Literal["train", "val", "test"] | None = None
    """Only rows of this split; default: all labelled rows, or the test split of a prepared set."""
    evaluate: config.Evaluate = config.Evaluate()
    out: str | None = None
    """Folder or URI of the report, replaced if it is there; default: one in `storage`/evaluate."""


def main() -> None:
    """Evaluate what the command line says."""
    job = config.load(EvaluateJob, program="python -m jobs.evaluate")
    bundle = registry.fetch(job.model, job.tracking_uri)
    name = f"{PurePosixPath(job.catalogue.path).stem or 'catalogue'}-{registry.digest_of(bundle)[:12]}"
    out = job.out or f"{job.storage.rstrip('/')}/evaluate/{name}"
    with cluster.session(), track.run(job, "evaluate", name) as run:
        registry.link(run, job.model, bundle)
        result = evaluate(bundle, catalogue_rows(job.catalogue, job.split), out, job.evaluate, run)
    print(f"\n{job.model} on {result.report['rows']['from']}, percent with 95 % intervals\n")
    print(report.table(result.metrics))
    print(f"\nreport: {out}/report.md")


if __name__ == "__main__":
    door(main)
