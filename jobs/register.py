"""Register a bundle, promote it to champion, roll back.

    python -m jobs.register --preset demo --promote            the run's bundle; champion if it passes the gate
    python -m jobs.register --model models:/sicot@challenger --promote --rows products.parquet
    python -m jobs.register --model runs/demo/bundle
    python -m jobs.register --rollback                         back to the champion before this one
    python -m jobs.register --challenger 4                     version 4 is the challenger; 0: none is
    python -m jobs.register --list

Products that were enrolled in the champion (`python -m jobs.enrol`) are enrolled in what is registered, too.
The gate asks candidate and champion the same labelled rows; `registry.tail_tolerance` sets how strict it is.
"""

from __future__ import annotations

from pathlib import Path

from sicot import cluster, config, registry, track
from sicot.errors import UserError, door
from sicot.evaluate.run import catalogue_rows, gate_question


class RegisterJob(config.Job):
    """Settings of this job."""

    name: str = "default"
    """Name of the run whose bundle is registered."""
    model: str | None = None
    """What to register: the folder or URI of a bundle, or an MLflow URI; default: `storage`/`name`/bundle."""
    promote: bool = False
    """Make it the champion if it passes the gate."""
    force: bool = False
    """Make it the champion without asking the gate."""
    rollback: bool = False
    """Give the alias champion back to the version that had it before."""
    challenger: int | None = None
    """Give the alias challenger to this version; 0 takes it away."""
    list: bool = False
    """Only list the versions."""
    rows: str | None = None
    """What the gate asks: a catalogue or a prepared set; default: the test split of `storage`/`name`/prepared."""
    catalogue: config.Catalogue = config.Catalogue()
    evaluate: config.Evaluate = config.Evaluate()
    registry: config.Registry = config.Registry()


def main() -> None:
    """Do what the command line says, and list the versions."""
    job = config.load(RegisterJob, program="python -m jobs.register")
    if job.promote + job.force + job.rollback + job.list + (job.challenger is not None) > 1:
        raise UserError("give one of --promote, --force, --rollback, --challenger and --list")
    name, uri = job.registry.name, job.tracking_uri
    if job.rollback:
        print(f"version {registry.rollback(name, uri)} is champion again")
    elif job.challenger is not None:
        registry.challenge(name, job.challenger, uri)
    elif not job.list:
        with track.run(job, "register", job.name) as run:
            register(job, run)
    print(registry.listing(name, uri))


def register(job: RegisterJob, run: track.Run) -> None:
    """Register the bundle, and promote it if that is asked for."""
    name, uri = job.registry.name, job.tracking_uri
    folder = job.storage if "://" in job.storage else str(Path(job.storage).absolute())
    bundle = registry.carry(registry.fetch(job.model or f"{folder}/{job.name}/bundle", uri), name, uri)
    version = registry.register(run, bundle, name)
    if job.force:
        registry.crown(name, version, uri)
    if job.promote:
        catalogue = job.catalogue.model_copy(update={"path": job.rows or f"{folder}/{job.name}/prepared"})
        with cluster.session():
            question = gate_question(catalogue_rows(catalogue), job.evaluate)
            print(registry.promote(name, version, uri, question, job.registry.tail_tolerance).reason)


if __name__ == "__main__":
    door(main)
