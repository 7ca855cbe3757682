"""Teach a model new products from a few rows each, without training.

    python -m jobs.enrol --catalogue.path new.parquet             a new version of the champion, as challenger
    python -m jobs.enrol --catalogue.path new.parquet --promote   champion if it passes the gate
    python -m jobs.enrol --withdraw "red teapot" --force          forget one again

Each label that the model was not trained on becomes a class from its photos and words; one that was enrolled before is
known by the new rows alone. The next trained model gets the products too, when it is registered.
"""

from __future__ import annotations

from sicot import cluster, config, enrol, registry, storage, track
from sicot.bundle import Bundle
from sicot.catalogue import sources
from sicot.errors import UserError, door
from sicot.evaluate.run import catalogue_rows, gate_question


class EnrolJob(config.Job):
    """Settings of this job."""

    model: str = "models:/sicot@champion"
    """Model to teach: an MLflow URI or the folder of a bundle."""
    catalogue: config.Catalogue = config.Catalogue()
    withdraw: str | None = None
    """Label of an enrolled product to forget, instead of enrolling."""
    promote: bool = False
    """Make the new version the champion if it passes the gate."""
    force: bool = False
    """Make it the champion without asking the gate."""
    rows: str | None = None
    """What the gate asks: a catalogue or a prepared set; default: the test split the model was trained beside."""
    evaluate: config.Evaluate = config.Evaluate()
    registry: config.Registry = config.Registry()


def main() -> None:
    """Write the new bundle, register it, and say what was done."""
    job = config.load(EnrolJob, program="python -m jobs.enrol")
    if job.promote and job.force:
        raise UserError("give --promote or --force, not both")
    if (job.withdraw is None) == (job.catalogue.path == "synthetic"):
        raise UserError("give --catalogue.path with new products, or --withdraw with the label of one to forget")
    folder = registry.fetch(job.model, job.tracking_uri)
    base, name, uri = Bundle.load(folder), job.registry.name, job.tracking_uri
    with cluster.session(), track.run(job, "enrol", job.withdraw or job.catalogue.path) as run:
        registry.link(run, job.model, folder)
        if job.withdraw is None:
            found = enrol.gather(base, sources.read(job.catalogue))
            print(found.told())
            made, summary = enrol.enrol(base, found.products), found.summary()
        else:
            made, summary = enrol.withdraw(base, job.withdraw), {"withdrawn": job.withdraw}
        place = f"{job.storage.rstrip('/')}/enrol/{made.info.digest[:12]}"
        enrol.save(made, f"{place}/bundle")
        storage.write_json(f"{place}/summary.json", summary)
        version = registry.register(run, registry.fetch(f"{place}/bundle", uri), name)
        print(
            f"version {version} of {name} knows {len(made.classes):,} products, {made.info.enrolled} of them enrolled"
        )
        if job.force:
            registry.crown(name, version, uri)
        if job.promote:
            catalogue = job.catalogue.model_copy(
                update={"path": job.rows or f"{job.storage}/{base.info.name}/prepared"}
            )
            question = gate_question(catalogue_rows(catalogue), job.evaluate)
            print(registry.promote(name, version, uri, question, job.registry.tail_tolerance).reason)
    print(registry.listing(name, uri))


if __name__ == "__main__":
    door(main)
