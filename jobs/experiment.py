"""Champion against challenger: what people did with their answers, and what that teaches.

    python -m jobs.register --challenger 4                                           1. name a challenger
    python -m jobs.serve --serve.challenger models:/sicot@challenger --serve.challenger_share 0.2   2. try it
    python -m jobs.experiment report --since 2025-06-01                              3. compare
    python -m jobs.experiment corrections --out corrections                          4. learn from what was corrected

A report gives acceptance, accuracy and conversion of each version with 95 % intervals, for all answers and by head,
medium and tail of the product, and the difference between the arms. Decide beforehand which figure counts and how long
to wait: who looks every day, or at every group, finds something. Change the share in between, and begin with `--since`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic_settings import CliPositionalArg

from sicot import config
from sicot.errors import UserError, door
from sicot.feedback import corrections, figures, report
from sicot.feedback.store import Store


class ExperimentJob(config.Job):
    __doc__ = __doc__

    what: CliPositionalArg[Literal["report", "corrections"]]
    """`report`: compare the arms. `corrections`: write corrected products as a catalogue."""
    feedback: str | None = None
    """Database of answers and feedback, as `serve.feedback` named it; default: feedback.db in `storage`."""
    since: datetime | None = None
    """Report on answers from this time on, such as 2025-06-01 or 2025-06-01T08:00+02:00 (UTC where it is not said)."""
    out: str | None = None
    """Folder or URI for what is written; default: experiment or corrections in `storage`."""


def main() -> None:
    """Do what the command line says."""
    job = config.load(ExperimentJob, program="python -m jobs.experiment")
    url = job.feedback or job.feedback_url
    if url is None:
        raise UserError("name the database: --feedback postgresql://user@host/name")
    store, folder = Store.existing(url), {"report": "experiment"}.get(job.what, job.what)
    out = (job.out or f"{job.storage}/{folder}").rstrip("/")
    if job.what == "report":
        found = figures.collect(store, figures.seconds(job.since))
        report.write(found, out)
        print(f"{report.table(found)}\n\nfigures: {out}/report.json\npicture: {out}/measures.png")
    else:
        written = corrections.write(store, out)
        print(f"{written.rows:,} corrections: --catalogue.path {out}")
        if written.without_photo:
            print(f"  {written.without_photo:,} without a photo were left out: a model learns from photos")


if __name__ == "__main__":
    door(main)
