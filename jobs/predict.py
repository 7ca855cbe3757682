"""Label a catalogue: ranked classes for every row, and the words that were believed.

    python -m jobs.predict --catalogue.path products.parquet --out labels
    python -m jobs.predict --model models:/sicot/3 --catalogue.path s3://shop/new/ --out s3://shop/labels --top 10

Writes labels/predictions/*.parquet, labels/quarantine/*.parquet (rows without an answer, and why), and summary.json.
"""

from __future__ import annotations

from typing import Literal

from sicot import cluster, config, registry, track
from sicot.errors import door
from sicot.evaluate.predict import check, predict
from sicot.evaluate.run import catalogue_rows


class PredictJob(config.Job):
    """Settings of this job."""

    model: str = "models:/sicot@champion"
    """Model to ask: an MLflow URI or the folder of a bundle."""
    catalogue: config.Catalogue = config.Catalogue()
    split: Literal["train", "val", "test"] | None = None
    """Only rows of this split; default: all rows."""
    out: str
    """Folder or URI for the answers."""
    overwrite: bool = False
    """Replace what is in `out`."""
    top: config.Count = 5
    """Ranked classes per row."""
    batch_size: config.Count = 128
    """Rows per step of the model."""


def main() -> None:
    """Label what the command line says."""
    job = config.load(PredictJob, program="python -m jobs.predict")
    check(job.out, job.overwrite)
    bundle = registry.fetch(job.model, job.tracking_uri)
    with cluster.session(), track.run(job, "predict", job.out) as run:
        registry.link(run, job.model, bundle)
        rows = catalogue_rows(job.catalogue, job.split, all_splits=True).dataset
        summary = predict(bundle, rows, job.out, job.top, job.batch_size, job.overwrite)
        run.metrics({"rows": summary["rows"], "answered": summary["answered"], "quarantined": summary["quarantined"]})
    print(f"{summary['answered']:,} of {summary['rows']:,} rows answered: {job.out}/predictions")
    if summary["unknown"]:
        print(f"  {summary['unknown']:,} of them unknown: no known product is sure enough")
    for reason, rows_of in summary["quarantined"].items():
        print(f"  {rows_of:,} {reason}: see {job.out}/quarantine")


if __name__ == "__main__":
    door(main)
