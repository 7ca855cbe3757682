"""The Ray Data job that turns a catalogue into a prepared set.

    photos    one pass over the catalogue: check, decode, shrink, tokenise; staged in <folder>/prepared.part
    plan      on the driver, from some 100 bytes a row: splits, classes, quarantine
    words     counted over the staged tokens of the training rows
    files     staged rows into the files of the set, in the order of their keys
    vectors   word2vec over the training files, in their order
    manifest  written last: without it there is no set

Every stage writes files aside and renames them, and passes over what an interrupted run of the same catalogue and
settings has finished. The key of a row is a hash of its content, so rows are stored in a shuffled order, which is
the same whatever the blocks, the machines and the interruptions were.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
from safetensors.numpy import save

import sicot
from sicot import storage
from sicot.catalogue import sources
from sicot.catalogue.schema import SPLITS
from sicot.config import Catalogue, Experiment, Prepare
from sicot.prepare import flow, prepared, staging, words, writing
from sicot.prepare import plan as planning
from sicot.prepare.prepared import GROUPS, Manifest, PreparedSet

EMPTY = {
    "val": "the val split is empty: training cannot stop early, see catalogue.split.val",
    "test": "the test split is empty: there is nothing to evaluate a model on, see catalogue.split.test",
}
"""What is said of a split without rows."""


def prepare(experiment: Experiment) -> PreparedSet:
    """Prepare ``experiment.catalogue`` into ``<experiment.folder>/prepared``; needs a running Ray session.

    What is prepared already is returned at once; what was interrupted is continued. Files of the catalogue that have
    changed are noticed, but not photos that it names by path: ``experiment.fresh`` is for these. :class:`UserError` if
    too many rows are bad (they are listed in ``prepared.part/quarantine`` then) or none is left to train on.
    """
    root, part = f"{experiment.folder}/prepared", f"{experiment.folder}/prepared.part"
    fingerprint = _fingerprint(experiment.catalogue, experiment.prepare)
    if experiment.fresh:
        _discard(root, "manifest.json")
        _discard(part, "fingerprint.json")
    done = _finished(root, fingerprint)
    if done:
        print(f"already prepared (digest {done.manifest.digest[:12]}): {root}", flush=True)
        return done
    if _read(f"{part}/fingerprint.json") != fingerprint:  # another catalogue, or other settings: start anew
        _discard(part, "fingerprint.json")
        storage.write_json(f"{part}/fingerprint.json", fingerprint)
    manifest = _make(experiment, root, part, fingerprint)
    storage.write_json(f"{root}/manifest.json", manifest.model_dump(mode="json"))
    _discard(part, "fingerprint.json")
    result = PreparedSet.open(root)
    print(summary(result), flush=True)
    return result


def _make(experiment: Experiment, root: str, part: str, fingerprint: str) -> Manifest:
    """All stages; returns the manifest that declares the set complete."""
    config = experiment.prepare
    plan = _plan(experiment.catalogue, config, part)
    staged = staging.files(f"{part}/rows")
    vocabulary = words.vocabulary(_count(staged, plan, config.rows_per_block), plan.rows["train"], config.text)
    if not storage.exists(f"{part}/writing.json"):  # the files at the root are of another plan
        _discard(root, "manifest.json")
        storage.write_json(f"{part}/writing.json", root)
    written = writing.write(plan, vocabulary, root, staged, config)
    files = {split: [name for name, _ in written if name.startswith(f"{split}/")] for split in SPLITS}
    vectors = _vectors([f"{root}/{name}" for name in files["train"]], vocabulary, plan.rows["train"], config)
    storage.write_table(f"{root}/classes.parquet", plan.classes)
    storage.write_table(f"{root}/vocabulary.parquet", vocabulary)
    storage.write_bytes(f"{root}/word_vectors.safetensors", save({"vectors": vectors}))
    _write_quarantine(f"{root}/quarantine", plan.quarantine)
    _sweep(root)
    return Manifest(
        digest=_digest(config, plan, vocabulary, written),
        fingerprint=fingerprint,
        images=config.images,
        text=config.text,
        head_above=config.groups.head_above,
        tail_below=config.groups.tail_below,
        rows=plan.rows,
        files=files,
        classes=plan.classes.num_rows,
        vocabulary=vocabulary.num_rows,
        word_dimension=config.word2vec.dimension,
        quarantined=plan.quarantined(),
        source=experiment.catalogue.model_dump(mode="json"),
    )


def summary(made: PreparedSet) -> str:
    """What a prepared set holds, in a few lines for people."""
    manifest = made.manifest
    groups = ", ".join(f"{int((made.classes.group == group).sum())} {group}" for group in GROUPS)
    bad = ", ".join(f"{reason} {count}" for reason, count in sorted(manifest.quarantined.items()))
    lines = {
        "prepared": made.root,
        "rows": ", ".join(f"{manifest.rows[split]} {split}" for split in SPLITS),
        "classes": f"{manifest.classes} ({groups})",
        "vocabulary": f"{manifest.vocabulary} words",
        "quarantined": bad or "none",
        "digest": manifest.digest,
    }
    empty = [f"{'warning':<12} {EMPTY[split]}" for split in EMPTY if not manifest.rows[split]]
    return "\n".join([*(f"{name:<12} {value}" for name, value in lines.items()), *empty])


# ---------------------------------------------------------------- what is there already


def _fingerprint(catalogue: Catalogue, config: Prepare) -> str:
    """Hash of the settings and of the catalogue's files by name, size and time: equal means nothing to do again."""
    settings = [catalogue.model_dump(mode="json"), config.model_dump(mode="json", exclude={"max_quarantined"})]
    said = [sicot.__version__, prepared.VERSION, settings, _listing(catalogue)]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _listing(catalogue: Catalogue) -> list[tuple[str, int, int]]:
    """Name, size and time of the catalogue's files; photos that it names by path are not among them."""
    if catalogue.path == "synthetic":
        return []
    found = sources.find(catalogue)
    if len(found.paths) <= 1000:
        files = found.system.get_file_info(found.paths)
    else:  # one by one would be slow in a bucket
        paths = set(found.paths)
        listed = found.system.get_file_info(pafs.FileSelector(found.root, recursive=True))
        files = [file for file in listed if file.path in paths]
    return sorted((found.name(file.path), file.size or 0, file.mtime_ns or 0) for file in files)


def _finished(root: str, fingerprint: str) -> PreparedSet | None:
    """The set at ``root``, if it is complete and has this fingerprint."""
    manifest = _read(f"{root}/manifest.json")
    same = isinstance(manifest, dict) and manifest.get("fingerprint") == fingerprint
    return PreparedSet.open(root) if same else None


def _read(uri: str) -> object:
    try:
        return storage.read_json(uri)
    except (FileNotFoundError, ValueError):
        return None


def _discard(folder: str, mark: str) -> None:
    """Delete a folder, the file that declares it whole or usable first: what is half deleted must not look so."""
    system, path = storage.open_uri(f"{folder}/{mark}")
    if system.get_file_info(path).type == pafs.FileType.File:
        system.delete_file(path)
    storage.delete_folder(folder)


def _sweep(root: str) -> None:
    """Delete what a killed run has left half-written."""
    system, path = storage.open_uri(root)
    for info in system.get_file_info(pafs.FileSelector(path, recursive=True)):
        if info.base_name.endswith(".part"):
            system.delete_file(info.path)


# ---------------------------------------------------------------- stages


def _plan(catalogue: Catalogue, config: Prepare, part: str) -> planning.Plan:
    """Stage the catalogue's rows, unless all are, and decide what becomes of them."""
    complete = storage.exists(f"{part}/seen.parquet")
    if complete:
        seen = storage.read_table(f"{part}/seen.parquet")
    else:
        storage.delete_folder(f"{part}/bad")  # these are tried again: a photo that was missing may be there now
        seen = _stage(catalogue, config, part)
    rows = staging.load(staging.files(f"{part}/rows"), staging.ROW, staging.SMALL)
    plan = planning.make(
        rows, staging.load(staging.files(f"{part}/bad"), staging.BAD), seen, catalogue.split, config.groups
    )
    if not complete:
        storage.delete_folder(f"{part}/quarantine")
        _write_quarantine(f"{part}/quarantine", plan.quarantine)
        planning.check(plan, config.max_quarantined, catalogue.path, f"{part}/quarantine")
        storage.write_table(f"{part}/seen.parquet", seen)
    return plan


def _stage(catalogue: Catalogue, config: Prepare, part: str) -> pa.Table:
    """Read the whole catalogue and stage what is not; returns key and count of all its rows, sorted by key."""
    staged = staging.load(staging.files(f"{part}/rows"), staging.ROW, ["key"])["key"].to_numpy()
    if len(staged):
        print(f"prepare: continuing behind {len(staged)} rows of an interrupted run", flush=True)
    total = catalogue.synthetic.rows if catalogue.path == "synthetic" else None
    keys = [pa.table({"key": pa.array([], pa.int64())})]
    with flow.progress("photos", total) as bar:
        for block in flow.run(sources.read(catalogue), staging.stage, part, config, staged):
            keys.append(block)
            bar.update(block.num_rows)
    counts = pa.concat_tables(keys).group_by("key").aggregate([([], "count_all")])
    return counts.rename_columns(["key", "count"]).sort_by("key")


def _count(staged: list[str], plan: planning.Plan, size: int) -> list[pa.Table]:
    """Word counts of the training rows, a table for each task."""
    keys = pa.table({"key": plan.train})
    tasks = flow.ranges(-(-keys.num_rows // size), 64, size)
    counts = []
    with flow.progress("words", len(tasks), "parts") as bar:
        for block in flow.run(flow.blocks(keys, tasks), words.count, staged):
            counts.append(block)
            bar.update()
    return counts


def _vectors(files: list[str], vocabulary: pa.Table, rows: int, config: Prepare) -> np.ndarray:
    with flow.progress("vectors", rows * config.word2vec.epochs) as bar:
        return words.vectors(files, vocabulary, rows, config.word2vec, config.seed, bar.update)


def _write_quarantine(folder: str, bad: pa.Table) -> None:
    size = 100_000
    for number, start in enumerate(range(0, bad.num_rows, size)):
        storage.write_table(f"{folder}/{number:06d}.parquet", bad.slice(start, size))


def _digest(config: Prepare, plan: planning.Plan, vocabulary: pa.Table, files: list[tuple[str, str]]) -> str:
    """SHA-256 of settings and content. Word vectors follow from both, up to the last bits of a machine's arithmetic."""
    settings = config.model_dump(mode="json", exclude={"max_quarantined", "rows_per_block"})
    tables = [plan.classes.to_pydict(), vocabulary.select(["word", "count"]).to_pydict()]
    said = [prepared.VERSION, settings, tables, files, sorted(plan.quarantined().items())]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
