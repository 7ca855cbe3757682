"""Every format in, the same rows out; nothing dropped; what is wrong with a catalogue is said in one line."""

from __future__ import annotations

import io
import json
import pickle
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from sicot.catalogue import formats, sources, synthetic
from sicot.catalogue.columns import split_name, to_rows
from sicot.catalogue.places import Places
from sicot.catalogue.schema import ROW
from sicot.config import Catalogue, Columns, Synthetic
from sicot.errors import UserError
from sicot.prepare.photos import fetch
from sicot.storage import open_uri, read_bytes, write_bytes

NOT_NAMED = {"image_uri": None, "image_name": None}


@pytest.fixture(scope="module")
def products() -> list[dict[str, Any]]:
    table = synthetic.rows(Synthetic(rows=60, classes=6, image_size=16, no_text=0.2), range(60))
    return table.drop_columns(list(NOT_NAMED)).to_pylist()


def rows_of(**settings: Any) -> list[dict[str, Any]]:
    """The catalogue's rows, by id."""
    blocks = list(sources.read(Catalogue(**settings)).iter_batches(batch_size=None, batch_format="pyarrow"))
    table = pa.concat_tables(blocks)
    assert table.schema.equals(ROW)
    return sorted(table.to_pylist(), key=lambda row: row["id"])


def by_task(rows: pa.Table) -> pa.Table:
    """The rows, with the task that has them in hand."""
    import ray

    return rows.append_column("task", pa.array([ray.get_runtime_context().get_task_id()] * rows.num_rows))


def write_parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def write_photos(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The photos as files; the rows with their names instead."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        (folder / f"{row['id']}.jpg").write_bytes(row["image"])
    return [row | {"image": f"{row['id']}.jpg"} for row in rows]


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def one_line(**settings: Any) -> str:
    """What the user is told."""
    with pytest.raises(UserError) as caught:
        sources._plan(sources.find(Catalogue(**settings)), Catalogue(**settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- each format


def samples(path: Path) -> list[dict[str, Any]]:
    """The rows of a tar file, as it has them."""
    return [row for table, _ in formats.webdataset(*open_uri(str(path)), Catalogue()) for row in table.to_pylist()]


def test_no_more_of_a_tar_file_is_read_than_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_PHOTO", 1000)
    monkeypatch.setattr(formats, "MAX_TEXT", 100)
    read: list[int] = []
    whole = tarfile.ExFileObject.read
    monkeypatch.setattr(tarfile.ExFileObject, "read", lambda *of: read.append(len(got := whole(*of))) or got)
    members = {
        "a.mp4": b"film" * 5000, "a.jpg": b"photo" * 5000, "a.json": b'{"id": "' + b"x" * 200 + b'"}', "a.txt": b"mug",
        "b.jpg": b"photo", "b.txt": b"mug" * 100, "b.cls": b"7" * 200,
    }  # fmt: skip
    first, second = samples(write_tar(tmp_path / "x.tar", members))
    assert (len(first["image"]), first["id"], first["title"]) == (1001, "x.tar#a", "mug")
    assert (second["image"], second["label"], second["title"]) == (b"photo", None, None)
    assert sum(read) == 1001 + len("mug") + len("photo")


def test_large_photos_of_a_tar_file_come_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "PIECE_BYTES", 1000)
    path = write_tar(tmp_path / "x.tar", {f"{n}.jpg": b"photo" * 100 for n in range(7)})
    pieces = list(formats.webdataset(*open_uri(str(path)), Catalogue()))
    assert [(table.num_rows, row) for table, row in pieces] == [(3, 0), (3, 3), (1, 6)]


def test_json_that_is_too_deep_is_a_row_without_fields(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.jpg": b"photo", "a.json": b'{"label": ' + b"[" * 300_000})
    assert [(row["image"], row["label"]) for row in samples(path)] == [(b"photo", None)]


@pytest.mark.usefixtures("ray_cluster")
class TestFormats:
    def test_parquet_with_bytes_in_several_files(self, tmp_path: Path, products: list[dict[str, Any]]) -> None:
        write_parquet(tmp_path / "a.parquet", products[:40], row_group_size=7)
        write_parquet(tmp_path / "b.parquet", products[40:])
        expected = sorted((row | NOT_NAMED for row in products), key=lambda row: row["id"])
        assert rows_of(path=str(tmp_path)) == expected
        assert rows_of(path=f"{tmp_path}/*.parquet") == expected
        assert len(rows_of(path=f"{tmp_path}/[b]*")) == 20

    def test_columns_by_other_names_and_ids_from_file_and_row(
        self, tmp_path: Path, products: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sources, "ROWS_PER_TASK", 10)
        rows = [{"photo": row["image"], "sku": n % 4} for n, row in enumerate(products)]
        write_parquet(tmp_path / "mine.parquet", rows, row_group_size=10)
        got = rows_of(path=str(tmp_path / "mine.parquet"), columns=Columns(image="photo", label="sku"))
        by_id = {row["id"]: row for row in got}
        assert set(by_id) == {f"mine.parquet#{n}" for n in range(60)}
        for number, row in enumerate(rows):
            assert by_id[f"mine.parquet#{number}"]["image"] == row["photo"]
            assert by_id[f"mine.parquet#{number}"]["label"] == str(number % 4)
        assert all(row["title"] is row["tags"] is row["split"] is None for row in got)

    def test_csv_with_photos_beside_it(self, tmp_path: Path, products: list[dict[str, Any]]) -> None:
        rows = write_photos(tmp_path / "photos", products)
        table = pa.Table.from_pylist([row | {"tags": " | ".join(row["tags"] or [])} for row in rows])
        pacsv.write_csv(table, tmp_path / "products.csv")
        got = rows_of(path=str(tmp_path / "products.csv"), images=str(tmp_path / "photos"), tags_separator="|")
        for row, product in zip(got, sorted(products, key=lambda row: row["id"]), strict=True):
            assert row["image"] is None
            assert row["image_name"] == f"{product['id']}.jpg"
            assert Path(row["image_uri"]).read_bytes() == product["image"]
            assert (row["title"], row["label"], row["split"]) == (product["title"], product["label"], product["split"])
            assert (row["tags"] or []) == (product["tags"] or [])

    @pytest.mark.parametrize("name", ["long.csv", "long.parquet"])
    def test_a_long_file_is_dealt_out_to_tasks(self, tmp_path: Path, name: str) -> None:
        count = 3 * sources.ROWS_PER_TASK
        numbers = [str(n) for n in range(count)]
        table = pa.table({"id": numbers, "image": [f"photos/{n}.jpg" for n in numbers], "title": ["a, b\nc"] * count})
        (pacsv.write_csv if name.endswith("csv") else pq.write_table)(table, tmp_path / name)
        rows = sources.read(Catalogue(path=str(tmp_path / name)))
        tables = rows.map_batches(by_task, batch_size=None, batch_format="pyarrow").iter_batches(
            batch_size=None, batch_format="pyarrow"
        )
        seen = pa.concat_tables(tables)
        assert sorted(seen["id"].to_pylist()) == sorted(numbers)
        assert set(seen["image_uri"].to_pylist()) == {f"{tmp_path}/photos/{n}.jpg" for n in numbers}
        assert set(seen["title"].to_pylist()) == {"a, b\nc"}
        assert len(set(seen["task"].to_pylist())) == 3

    @pytest.mark.parametrize(("name", "mode"), [("shard-0.tar", "w"), ("shard-0.tar.gz", "w:gz")])
    def test_webdataset(self, tmp_path: Path, products: list[dict[str, Any]], name: str, mode: str) -> None:
        members = {}
        for row in products:
            fields = {key: value for key, value in row.items() if key not in ("image", "id")}
            members |= {f"x/{row['id']}.jpg": row["image"], f"x/{row['id']}.json": json.dumps(fields).encode()}
        write_tar(tmp_path / name, members, mode)
        for row, product in zip(rows_of(path=str(tmp_path)), sorted(products, key=lambda row: row["id"]), strict=True):
            assert row == product | NOT_NAMED | {"id": f"{name}#x/{product['id']}"}

    def test_webdataset_with_txt_and_cls_and_broken_members(self, tmp_path: Path) -> None:
        members = {
            "a.png": b"photo", "a.txt": "红色 手提包".encode(), "a.cls": b"7",
            "b.jpg": b"photo", "b.json": b"{no json",
            "c.json": json.dumps({"id": 12, "label": [1], "title": "\ud800", "tags": "x, y", "split": "dev"}).encode(),
            "d.webp": b"photo", "d.json": json.dumps({"label": 3, "tags": ["x", 4, None]}).encode(), "d.txt": b"\xff",
        }  # fmt: skip
        write_tar(tmp_path / "shard.tar", members)
        rows = {row["id"]: row for row in rows_of(path=str(tmp_path / "shard.tar"))}
        empty = dict.fromkeys(ROW.names)
        assert rows == {
            "12": empty | {"id": "12", "tags": ["x", "y"], "split": "val"},
            "shard.tar#a": empty | {"id": "shard.tar#a", "image": b"photo", "title": "红色 手提包", "label": "7"},
            "shard.tar#b": empty | {"id": "shard.tar#b", "image": b"photo"},
            "shard.tar#d": empty | {"id": "shard.tar#d", "image": b"photo", "label": "3", "tags": ["x", "4"]},
        }

    def test_a_folder_for_each_class(self, tmp_path: Path) -> None:
        for name in ("train/mug/1.jpg", "train/red bag/2.PNG", "validation/mug/3.webp", "test/mug/deep/4.jpeg"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"photo")
        (tmp_path / "train/mug/.DS_Store").write_bytes(b"")
        rows = rows_of(path=str(tmp_path))
        assert all(row["image_name"] == row["id"] for row in rows)
        got = {row["id"]: (row["label"], row["split"], row["image_uri"]) for row in rows}
        assert got == {
            "train/mug/1.jpg": ("mug", "train", f"{tmp_path}/train/mug/1.jpg"),
            "train/red bag/2.PNG": ("red bag", "train", f"{tmp_path}/train/red bag/2.PNG"),
            "validation/mug/3.webp": ("mug", "val", f"{tmp_path}/validation/mug/3.webp"),
            "test/mug/deep/4.jpeg": ("deep", "test", f"{tmp_path}/test/mug/deep/4.jpeg"),
        }

    def test_the_embedded_catalogue(self) -> None:
        small = Synthetic(rows=30, classes=4, image_size=16)
        expected = sorted(synthetic.rows(small, range(30)).to_pylist(), key=lambda row: row["id"])
        assert rows_of(synthetic=small) == expected

    def test_a_file_that_breaks_off_is_named_with_its_row(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("image,title\n" + "x.jpg,bag\n" * 10)
        (tmp_path / "b.csv").write_text("image,title\n" + "x.jpg,bag\n" * 500_000 + "x.jpg,red, blue\n")
        with pytest.raises(Exception, match=r"b\.csv, line 500002: 3 values where the header has 2 names"):
            rows_of(path=str(tmp_path))


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A loopback S3 server; what to put behind a URI's question mark to reach it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        query = f"endpoint_override=127.0.0.1:{port}&scheme=http&allow_bucket_creation=true&region=us-east-1"
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield query
        server.terminate()


def test_s3(s3: str, products: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    query = s3
    open_uri(f"s3://shop?{query}")[0].create_dir("shop")
    lines = ["image,label"]
    for row in products[:5]:
        write_bytes(f"s3://shop/all/photos/{row['id']}.jpg?{query}", row["image"])
        lines.append(f"photos/{row['id']}.jpg,{row['label']}")
    write_bytes(f"s3://shop/all/products.csv?{query}", "\n".join(lines).encode())
    for path in ("all/products.csv", "all/*.csv", "all"):
        config = Catalogue(path=f"s3://shop/{path}?{query}")
        found = pickle.loads(pickle.dumps(sources.find(config)))  # noqa: S301  as it travels to a task
        rows = [
            row
            for work in sources._plan(found, config)
            for table in sources._task(found, config, work.table())
            for row in table.to_pylist()
        ]
        assert [row["id"].rpartition("/")[2] for row in rows] == [f"products.csv#{n}" for n in range(5)]
        for row, product in zip(rows, products, strict=False):
            assert read_bytes(row["image_uri"]) == product["image"]
            assert fetch(None, row["image_uri"], row["image_name"], 10**6) == product["image"]
            assert len(fetch(None, row["image_uri"], row["image_name"], 99) or b"") == 100
            assert row["label"] == product["label"]


# ---------------------------------------------------------------- columns of any type


def cast(**columns: Any) -> list[dict[str, Any]]:
    table = pa.table(columns)
    ids = [str(n) for n in range(table.num_rows)]
    return to_rows(table, Catalogue(), ids, Places("/shop", ("/shop",))).to_pylist()


def test_labels_of_any_type_become_strings_or_null() -> None:
    columns: list[tuple[Any, list[str | None]]] = [
        (pa.array([1, None]), ["1", None]),
        (pa.array([3.0, float("nan")]), ["3", None]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["mug", "杯"]).dictionary_encode(), ["mug", "杯"]),
        (pa.array(["mug", None], pa.large_string()), ["mug", None]),
        (pa.array([b"mug", b"\xff\xfe"]), ["mug", None]),
        (pa.array([[1], [2]]), [None, None]),
        (pa.array([{"a": 1}, None]), [None, None]),
        (pa.nulls(2), [None, None]),
    ]
    for column, expected in columns:
        assert [row["label"] for row in cast(image=pa.array([b"1", b"2"]), label=column)] == expected, column.type


def test_images_are_bytes_or_absolute_uris_or_null() -> None:
    def images(column: Any) -> list[tuple[bytes | str | None, ...]]:
        rows = [(row["image"], row["image_uri"], row["image_name"]) for row in cast(image=column)]
        return [tuple(value for value in row if value) for row in rows]

    assert images(pa.array([b"1", None], pa.large_binary())) == [(b"1",), ()]
    assert images(pa.array(["a.jpg", "/shop/b.jpg", "/b.jpg", "s3://c/d.jpg", " ", None])) == [
        ("/shop/a.jpg", "a.jpg"), ("/shop/b.jpg", "b.jpg"), ("/b.jpg",), ("s3://c/d.jpg", "s3://c/d.jpg"), (), (),
    ]  # fmt: skip
    hugging_face = pa.array([{"bytes": b"1", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, None])
    assert images(hugging_face) == [(b"1",), ("/shop/b.jpg", "b.jpg"), ()]
    assert images(pa.array([1, 2])) == [()] * 2


def test_tags_are_lists_or_one_string() -> None:
    def tags(column: Any) -> list[list[str] | None]:
        return [row["tags"] for row in cast(image=pa.nulls(len(column)), tags=column)]

    assert tags(pa.array([["a", "b"], None, []])) == [["a", "b"], None, []]
    assert tags(pa.array([[1, 2]], pa.large_list(pa.int64()))) == [["1", "2"]]
    assert tags(pa.array(["a, b,,c ", "", None])) == [["a", "b", "c"], [], None]
    assert tags(pa.array([[[1]], None])) == [None, None]
    assert tags(pa.array([5])) == [["5"]]


@pytest.mark.parametrize(
    ("text", "name"),
    [("Training", "train"), ("valid", "val"), (" dev ", "val"), ("TEST", "test"), ("", None), (None, None)],
)
def test_splits_go_by_their_usual_names(text: str | None, name: str | None) -> None:
    assert split_name(text) == name


def test_an_unknown_split_is_not_made_part_of_the_training_set() -> None:
    assert cast(image=pa.nulls(1), split=pa.array(["Hold-out"]))[0]["split"] == "hold-out"


# ---------------------------------------------------------------- what the user is told


def test_nothing_at_the_path(tmp_path: Path) -> None:
    assert one_line(path=str(tmp_path / "no.parquet")).startswith("catalogue.path: there is no file or folder")
    assert "holds no catalogue" in one_line(path=f"{tmp_path}/*.parquet")


def test_a_scheme_that_no_library_opens() -> None:
    assert "gopher://shop/x.csv" in one_line(path="gopher://shop/x.csv")


def test_a_folder_without_a_catalogue(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "photo.jpg").write_bytes(b"1")  # in no class's folder
    assert "neither Parquet, CSV or tar files nor photos" in one_line(path=str(tmp_path))
    assert "holds no catalogue" in one_line(path=str(tmp_path), format="csv")
    assert "--catalogue.format" in one_line(path=str(tmp_path / "notes.txt"))


def test_several_formats_in_one_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"image": b"1"}])
    (tmp_path / "b.csv").write_text("image\n1.jpg\n")
    assert "parquet and csv files: choose with --catalogue.format" in one_line(path=str(tmp_path))
    assert sources.find(Catalogue(path=str(tmp_path), format="csv")).paths == [f"{tmp_path}/b.csv"]


@pytest.mark.parametrize("name", ["empty.parquet", "empty.csv", "empty.tar"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert one_line(path=str(tmp_path / name)) == f"{tmp_path / name} is empty"


def test_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("image,label\n")
    write_tar(tmp_path / "c.tar", {})
    assert one_line(path=str(tmp_path / "a.parquet")) == f"{tmp_path}/a.parquet has no rows"
    assert one_line(path=str(tmp_path / "b.csv")) == f"{tmp_path}/b.csv has no rows"
    assert one_line(path=str(tmp_path / "c.tar")) == f"{tmp_path}/c.tar has no samples"


def test_no_image_column(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"picture": b"1", "title": "bag"}])
    (tmp_path / "b.csv").write_text("picture,title\n1.jpg,bag\n")
    write_tar(tmp_path / "c.tar", {"1.gif": b"1", "1.cls": b"2"})
    for name in ("a.parquet", "b.csv"):
        line = one_line(path=str(tmp_path / name))
        assert line.startswith(f"{tmp_path / name} has no column 'image'")
        assert "it has picture, title" in line
        assert "--catalogue.columns.image" in line
    assert "has no photos" in one_line(path=str(tmp_path / "c.tar"))
    assert ".cls, .gif" in one_line(path=str(tmp_path / "c.tar"))


@pytest.mark.parametrize(
    ("name", "says"),
    [("x.parquet", "is no readable Parquet file"), ("x.tar", "is no readable tar file")],
)
def test_a_file_that_is_not_what_it_is_called(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(b"this is neither" * 100)
    assert one_line(path=str(tmp_path / name)).startswith(f"{tmp_path / name} {says}")


def test_a_truncated_parquet_file(tmp_path: Path, products: list[dict[str, Any]]) -> None:
    path = write_parquet(tmp_path / "x.parquet", products)
    path.write_bytes(path.read_bytes()[:-50])
    assert one_line(path=str(path)).startswith(f"{path} is no readable Parquet file")


def test_a_damaged_parquet_page_is_named_with_its_row(tmp_path: Path, products: list[dict[str, Any]]) -> None:
    path = write_parquet(tmp_path / "x.parquet", products, compression="zstd")
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.parquet cannot be read behind row 0"):
        list(formats.parquet(*open_uri(str(path)), Catalogue(), [0], 0))


def test_a_truncated_tar_file_is_named_with_its_sample(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {f"{n}.jpg": b"photo" * 500 for n in range(5)})
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UserError, match=r"x\.tar cannot be read behind sample \d"):
        list(formats.webdataset(*open_uri(str(path)), Catalogue()))


def test_a_csv_row_with_a_comma_too_many(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image,title\n1.jpg,bag\n2.jpg,red, striped bag\n")
    line = one_line(path=str(tmp_path / "x.csv"))
    assert f"{tmp_path}/x.csv, line 3: 3 values where the header has 2 names" in line
    assert '"double quotes"' in line


def test_a_csv_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("image,title\n1.jpg,bag\n2.jpg,红色\n".encode("gbk"))
    assert one_line(path=str(tmp_path / "x.csv")) == (
        f"{tmp_path}/x.csv, row 2: column 'title' is not UTF-8 text: save the file as UTF-8"
    )


def test_a_folder_of_photos_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image\n1.jpg\n")
    line = one_line(path=str(tmp_path / "x.csv"), images=str(tmp_path / "photos"))
    assert line == f"catalogue.images: there is no folder {tmp_path}/photos"
