"""The whole way from a catalogue to a prepared set, on Ray: what is in it, and that interruptions do not show."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sicot import config, errors, storage
from sicot.errors import UserError
from sicot.prepare import flow, images, pipeline, words, writing
from sicot.prepare import plan as planning
from sicot.prepare.prepared import CLASSES, QUARANTINE, ROW, ROW_GROUP, VOCABULARY, PreparedSet
from sicot.prepare.text import Vocabulary, tokenise
from tests.killing import kill_tree

COLOURS = ["red", "green", "blue", "白色"]


def catalogue(path: Path, rows: int = 300, side: int = 24, bad: int = 6, **columns: list[Any]) -> Path:
    """A Parquet catalogue of four classes, sorted by class, the first ``bad`` rows without a readable photo."""
    random = np.random.default_rng(0)
    labels = np.sort(np.minimum(random.geometric(0.5, rows) - 1, 3))
    photos = [images.encode(random.integers(0, 256, (side, side, 3), np.uint8), 80) for _ in labels]
    table = {
        "id": [f"p{n}" for n in range(rows)],
        "image": [b"broken" if n < bad else photo for n, photo in enumerate(photos)],
        "title": [f"{COLOURS[label]} 蓝牙耳机 no{n}" for n, label in enumerate(labels)],
        "label": [f"class-{label}" for label in labels],
        **columns,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path, row_group_size=60)
    return path


def experiment(source: Path, folder: Path, **settings: Any) -> config.Experiment:
    prepare = {
        "images": {"size": 16},
        "word2vec": {"dimension": 6, "epochs": 2},
        "groups": {"head_above": 100, "tail_below": 20},
        "rows_per_block": 40,
        **settings,
    }
    values = {"name": "test", "storage": str(folder), "catalogue": {"path": str(source)}, "prepare": prepare}
    return config.Experiment.model_validate(values)


@pytest.fixture(scope="module")
def made(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """Of 300 rows 6 are bad, in files of 40 rows; 235 or so are for training."""
    folder = tmp_path_factory.mktemp("made")
    return pipeline.prepare(experiment(catalogue(folder / "products.parquet"), folder))


def rows(made: PreparedSet, split: str) -> Iterator[dict[str, Any]]:
    for file in made.parquet(split):
        yield from file.read().to_pylist()


def content(made: PreparedSet) -> dict[str, str]:
    """SHA-256 of every file but the manifest, which names its source."""
    root = Path(made.root)
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_row_is_in_one_split_or_in_quarantine(made: PreparedSet) -> None:
    manifest = made.manifest
    ids = [row["id"] for split in ("train", "val", "test") for row in rows(made, split)]
    bad = storage.read_table(f"{made.root}/quarantine/000000.parquet").to_pylist()
    assert sorted([*ids, *(row["id"] for row in bad)]) == sorted(f"p{n}" for n in range(300))
    assert {row["reason"] for row in bad} == {"image_type"}
    assert manifest.quarantined == {"image_type": 6}
    assert sum(manifest.rows.values()) == 294
    assert [manifest.rows[split] for split in ("val", "test")] == pytest.approx([29, 29], abs=3)


def test_rows_are_what_the_contract_says(made: PreparedSet) -> None:
    vocabulary = made.vocabulary["word"].to_pylist()
    for split in ("train", "val", "test"):
        for file in made.parquet(split):
            assert file.schema_arrow.equals(ROW)
            assert file.metadata.row_group(0).num_rows <= ROW_GROUP
        for row in rows(made, split):
            number = int(row["id"][1:])
            label = made.classes.labels[row["label"]]
            assert row["tokens"] == tokenise(f"{COLOURS[int(label[-1])]} 蓝牙耳机 no{number}", None, made.manifest.text)
            assert [vocabulary[i - 1] if i else None for i in row["words"]] == [
                token if token in vocabulary else None for token in row["tokens"]
            ]
            assert images.decode(row["image"], made.manifest.images).shape == (16, 16, 3)


def test_classes_and_words_are_counted_on_training_rows_alone(made: PreparedSet) -> None:
    train = list(rows(made, "train"))
    labels = [row["label"] for row in train]
    assert made.classes.count.tolist() == np.bincount(labels).tolist()
    assert made.classes.labels == [f"class-{n}" for n in range(4)]
    counts = dict(zip(made.vocabulary["word"].to_pylist(), made.vocabulary["count"].to_pylist(), strict=True))
    assert counts["蓝牙"] == len(train)
    assert counts["red"] == labels.count(0)
    assert not any(word.startswith("no") for word in counts)  # each stands in one title only
    assert made.idf[0] == 0
    assert made.word_vectors().shape == (len(counts) + 1, 6)


def test_training_rows_are_stored_in_a_shuffled_order(made: PreparedSet) -> None:
    numbers = np.array([int(row["id"][1:]) for row in rows(made, "train")])
    assert abs(np.corrcoef(np.arange(len(numbers)), numbers)[0, 1]) < 0.25


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_files_hold_the_rows_asked_for(made: PreparedSet, split: str) -> None:
    sizes = [file.metadata.num_rows for file in made.parquet(split)]
    assert sizes[:-1] == [40] * (made.manifest.rows[split] // 40)
    assert sum(sizes) == made.manifest.rows[split]


@given(st.lists(st.integers(0, 2), max_size=200), st.integers(1, 9), st.integers(1, 5))
def test_a_file_is_written_by_one_task_and_never_too_large(split: list[int], size: int, files: int) -> None:
    names = list(zip(split, writing._numbers(np.array(split, int), size, files).tolist(), strict=True))
    assert max(Counter(names).values(), default=0) <= size
    tasks = {name: {place // (size * files) for place, each in enumerate(names) if each == name} for name in names}
    assert all(len(task) == 1 for task in tasks.values())
    fewest = sum(-(-split.count(code) // size) for code in range(3))
    borders = max(0, -(-len(split) // (size * files)) - 1)  # between tasks; at each, a file of every split may be cut
    assert len(tasks) <= fewest + 3 * borders
    for code in range(3):
        numbers = [number for each, number in names if each == code]
        assert numbers == sorted(numbers)  # so that the rows of a split keep their order


@given(st.lists(st.lists(st.sampled_from(["red", "bag", "鞋子", "?"]), max_size=4), max_size=9), st.integers(0, 9))
def test_words_have_the_ids_of_the_vocabulary_in_whatever_chunks(tokens: list[list[str]], cut: int) -> None:
    known = ["鞋子", "red"]
    columns = {"id": ["x"] * len(tokens), "image": [b""] * len(tokens), "tokens": tokens}
    table = pa.table(columns, pa.schema([ROW.field(name) for name in columns]))
    found = pa.concat_tables([table.slice(cut), table.slice(0, cut)])
    made = writing._table(found, pa.chunked_array([np.zeros(len(tokens), np.int32)]), pa.array(known, pa.string()))
    assert made["words"].to_pylist() == [Vocabulary(known).ids(row) for row in made["tokens"].to_pylist()]


def test_equal_tables_have_an_equal_digest_in_whatever_chunks() -> None:
    labels = [f"class-{n}" for n in range(9)]
    classes = pa.table({"label": labels, "count": [1] * 9, "prior": [1 / 9] * 9, "group": ["tail"] * 9}, CLASSES)
    vocabulary = pa.table({"word": labels, "count": [2] * 9, "idf": [0.5] * 9}, VOCABULARY)
    digests = set()
    for parts in ([(0, 9)], [(0, 4), (4, 5)], [(n, 1) for n in range(9)]):
        one, two = (pa.concat_tables([table.slice(*part) for part in parts]) for table in (classes, vocabulary))
        none = np.zeros(0, np.int64)
        plan = planning.Plan(none, none, none, one, QUARANTINE.empty_table())
        digests.add(pipeline._digest(config.Prepare(), plan, two, []))
    assert len(digests) == 1


def test_neither_blocks_nor_files_of_the_source_change_the_result(made: PreparedSet, tmp_path: Path) -> None:
    table = pq.read_table(Path(made.root).parents[1] / "products.parquet")
    backwards = table.take(np.arange(table.num_rows)[::-1])
    for n in range(3):
        (tmp_path / "parts").mkdir(exist_ok=True)
        pq.write_table(backwards.slice(n * 100, 100), tmp_path / "parts" / f"{n}.parquet", row_group_size=13)
    other = pipeline.prepare(experiment(tmp_path / "parts", tmp_path))
    assert other.manifest.digest == made.manifest.digest
    assert content(other) == content(made)


def test_what_is_prepared_is_not_prepared_again(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = catalogue(tmp_path / "products.parquet", rows=60)
    first = pipeline.prepare(experiment(source, tmp_path))
    start = time.perf_counter()
    again = pipeline.prepare(experiment(source, tmp_path))
    assert time.perf_counter() - start < 0.5
    assert again.manifest == first.manifest
    assert f"already prepared (digest {first.manifest.digest[:12]}" in capsys.readouterr().out
    words_changed = pipeline.prepare(experiment(source, tmp_path, text={"min_count": 1}))
    assert words_changed.manifest.vocabulary > first.manifest.vocabulary
    catalogue(source, rows=80)
    input_changed = pipeline.prepare(experiment(source, tmp_path, text={"min_count": 1}))
    assert sum(input_changed.manifest.rows.values()) == 74
    assert not (tmp_path / "test" / "prepared.part").exists()


def test_a_killed_run_is_continued_and_leaves_no_trace(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = catalogue(tmp_path / "products.parquet", rows=900, side=400)
    killed, undisturbed = experiment(source, tmp_path / "killed"), experiment(source, tmp_path / "undisturbed")
    (tmp_path / "killed.json").write_text(killed.model_dump_json())  # JSON is YAML
    command = [sys.executable, "-m", "jobs.prepare", "--config", str(tmp_path / "killed.json")]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    staged = tmp_path / "killed" / "test" / "prepared.part" / "rows"
    try:
        deadline = time.monotonic() + 90
        while len(list(staged.glob("*.parquet"))) < 3:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.01)
    finally:
        kill_tree(process.pid)  # workers would stage on until they notice, after some seconds
        process.wait()
    with pytest.raises(UserError, match="no prepared set"):
        PreparedSet.open(f"{killed.folder}/prepared")

    result = pipeline.prepare(killed)
    assert "continuing behind" in capsys.readouterr().out
    other = pipeline.prepare(undisturbed)
    assert result.manifest.digest == other.manifest.digest
    assert content(result) == content(other)
    assert not list((tmp_path / "killed").rglob("*.part"))


def test_finished_files_are_kept_when_a_later_stage_fails(
    made: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = experiment(Path(made.root).parents[1] / "products.parquet", tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(words, "vectors", full)
        with pytest.raises(OSError, match="No space left"):
            pipeline.prepare(again)
    root = tmp_path / "test" / "prepared"
    with pytest.raises(UserError, match="no prepared set"):
        PreparedSet.open(str(root))
    times = {path: path.stat().st_mtime_ns for path in root.glob("train/*.parquet")}
    assert len(times) == 6
    (root / "train" / "000003.parquet.0123abcd.part").write_bytes(b"half")  # as a killed task would leave it
    result = pipeline.prepare(again)
    assert {path: path.stat().st_mtime_ns for path in root.glob("train/*.parquet")} == times
    assert content(result) == content(made)


def test_a_photo_that_was_missing_is_tried_again(ray_cluster: None, tmp_path: Path) -> None:
    photo = images.encode(np.zeros((20, 20, 3), np.uint8), 90)
    paths = [str(tmp_path / f"{n}.jpg") for n in range(10)]
    columns = {
        "id": [*"abcdefghij"],
        "image": paths,
        "title": ["bag"] * 10,
        "label": ["x"] * 10,
        "split": ["train"] * 10,
    }
    pq.write_table(pa.table(columns), tmp_path / "products.parquet")
    job = experiment(tmp_path / "products.parquet", tmp_path)
    with pytest.raises(UserError, match=r"10 of 10 rows are bad \(no_image 10\)") as error:
        pipeline.prepare(job)
    folder = str(error.value).split("see ")[1].split(",")[0]
    assert storage.read_table(f"{folder}/000000.parquet").num_rows == 10
    for path in paths:
        Path(path).write_bytes(photo)
    assert pipeline.prepare(job).manifest.rows["train"] == 10


def test_a_catalogue_that_has_moved_gives_the_same_set(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random, sets = np.random.default_rng(0), []
    photos = [images.encode(random.integers(0, 256, (20, 20, 3), np.uint8), 90) for _ in range(12)]
    for home in (tmp_path / "home" / "a", tmp_path / "data"):
        (home / "photos").mkdir(parents=True)
        for n, photo in enumerate(photos):
            (home / "photos" / f"{n}.jpg").write_bytes(photo)
        relative = [f"photos/{n}.jpg,mug,red mug {n}" for n in range(6)]
        elsewhere = [f"{home}/photos/{n}.jpg,mug,blue mug {n}" for n in range(6, 12)]
        (home / "x.csv").write_text("\n".join(["image,label,title", *relative, *elsewhere, "/etc/passwd,mug,"]))
        sets.append(pipeline.prepare(experiment(home / "x.csv", home)))
    first, second = sets
    assert first.manifest.quarantined == {"image_place": 1}
    assert first.manifest.digest == second.manifest.digest
    assert content(first) == content(second)


def test_a_row_that_is_staged_twice_is_counted_once(ray_cluster: None, tmp_path: Path) -> None:
    """In an undisturbed run two tasks have the copies of a row; in a continued one the second is passed over."""
    photos = [images.encode(np.full((20, 20, 3), 20 * n, np.uint8), 90) for n in range(6)]
    row = [{"id": f"{n}", "image": photo, "title": f"red bag {n}", "label": "bag"} for n, photo in enumerate(photos)]
    pq.write_table(pa.Table.from_pylist(row + row[:3]), tmp_path / "x.parquet")
    made = pipeline.prepare(experiment(tmp_path / "x.parquet", tmp_path, rows_per_block=2, max_quarantined=0.5))
    assert made.manifest.quarantined == {"id_duplicate": 3}
    assert made.vocabulary["count"].to_pylist() == [made.manifest.rows["train"]] * 2


def test_given_splits_duplicates_and_unknown_labels(ray_cluster: None, tmp_path: Path) -> None:
    split = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    label = ["bag", "shoe"] * 20 + ["bag"] * 10 + ["shoe"] * 8 + ["hat"] * 2
    names = [f"p{n}" for n in range(57)] + ["p0", "p58", "p59"]
    source = catalogue(tmp_path / "products.parquet", rows=60, bad=0, id=names, label=label, split=split)
    made = pipeline.prepare(experiment(source, tmp_path))
    assert made.manifest.quarantined == {"id_duplicate": 1, "label_unknown": 2}
    assert sum(made.manifest.rows.values()) == 57
    assert made.classes.labels == ["bag", "shoe"]


@pytest.mark.parametrize("empty", ["val", "test"])
def test_an_empty_split_is_said(made: PreparedSet, empty: str) -> None:
    assert "warning" not in pipeline.summary(made)
    rows = {**made.manifest.rows, empty: 0}
    without = PreparedSet(made.root, made.manifest.model_copy(update={"rows": rows}))
    [line] = [line for line in pipeline.summary(without).splitlines() if line.startswith("warning")]
    assert f"the {empty} split is empty" in line


def test_a_task_that_fails_ends_in_one_line(ray_cluster: None, tmp_path: Path) -> None:
    import ray

    dataset = ray.data.from_arrow(pa.table({"number": [1]}))
    for task, line in ((_refuse, "file x, row 3: mend it"), (_fill, "the disk is full")):
        with pytest.raises((UserError, OSError)) as error:
            list(flow.run(dataset, task))
        said = errors._line(error.value)
        assert said is not None
        assert line in said
        assert "\n" not in said


def _refuse(block: pa.Table) -> Iterator[pa.Table]:
    yield block.slice(0, 0)
    raise UserError("file x, row 3: mend it")


def _fill(block: pa.Table) -> Iterator[pa.Table]:
    yield block.slice(0, 0)
    with pa.OSFile("/dev/full", "wb") as file:
        file.write(b"x" * 100_000)


def test_fresh_starts_over(made: PreparedSet, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = catalogue(tmp_path / "products.parquet", rows=40)
    job = experiment(source, tmp_path)
    first = pipeline.prepare(job)
    again = pipeline.prepare(job.model_copy(update={"fresh": True}))
    assert "already prepared" not in capsys.readouterr().out
    assert again.manifest == first.manifest
