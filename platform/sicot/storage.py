"""Files and folders on any file system pyarrow or fsspec opens: local paths, s3://, gs://, memory://.

A reader never meets half a file: it is written aside and then moved to its name, or by an object store shown only when
it is whole. S3 is waited for where it is away for less than a minute.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from sicot.errors import UserError

TRIES = 10
"""Of one request to S3; the pauses between them grow to 20 seconds, and to a minute or so in all."""


class PatientS3(pafs.S3FileSystem):
    """S3 that is asked again for about a minute, in other processes too: Arrow's own, two seconds, does not travel."""

    @classmethod
    def of(cls, system: pafs.S3FileSystem) -> PatientS3:
        """The same S3."""
        _, (options,) = system.__reduce__()
        return cls(**options, retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=TRIES))

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, (options,) = super().__reduce__()
        return _patient, (rebuild, options)


def _patient(rebuild: Callable[[dict[str, Any]], pafs.S3FileSystem], options: dict[str, Any]) -> PatientS3:
    return PatientS3.of(rebuild(options))


def open_uri(uri: str) -> tuple[pafs.FileSystem, str]:
    """File system and path of ``uri``; a bare path is local. :class:`UserError` if no library opens the scheme."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    try:
        system, path = pafs.FileSystem.from_uri(uri)
        return (PatientS3.of(system) if isinstance(system, pafs.S3FileSystem) else system), path
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # not one of Arrow's own; fsspec knows many more
    except OSError as error:
        raise UserError(f"cannot open {uri}: {error}") from error
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise UserError(f"cannot open {uri}: {error}") from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(system)), path


def exists(uri: str) -> bool:
    """Whether there is a file or folder at ``uri``."""
    system, path = open_uri(uri)
    return system.get_file_info(path).type != pafs.FileType.NotFound


def read_bytes(uri: str) -> bytes:
    """The whole file. ``FileNotFoundError`` if there is none."""
    system, path = open_uri(uri)
    with system.open_input_stream(path, compression=None) as stream:
        return stream.read()


@contextmanager
def writing(uri: str) -> Iterator[Any]:
    """A stream to a file that takes its name when the block has ended well; parent folders are made."""
    system, path = open_uri(uri)
    system.create_dir(path.rpartition("/")[0], recursive=True)
    aside = f"{path}.{uuid.uuid4().hex[:8]}.part"
    try:
        with system.open_output_stream(aside, compression=None) as stream:
            yield stream
        system.move(aside, path)
    except BaseException:
        if system.get_file_info(aside).type != pafs.FileType.NotFound:
            system.delete_file(aside)
        raise


def write_bytes(uri: str, content: bytes) -> None:
    """Write the file as a whole; parent folders are made."""
    system, path = open_uri(uri)
    if _is_object_store(system):
        with system.open_output_stream(path, compression=None) as stream:
            stream.write(content)
        return
    with writing(uri) as stream:
        stream.write(content)


def read_json(uri: str) -> Any:
    """The JSON value in the file."""
    return json.loads(read_bytes(uri))


def write_json(uri: str, value: Any) -> None:
    """Write ``value`` as readable JSON with sorted keys, so that equal values are equal files."""
    write_bytes(uri, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """The Parquet file as a table."""
    system, path = open_uri(uri)
    return pq.read_table(path, filesystem=system, columns=columns, partitioning=None)


def write_table(uri: str, table: pa.Table, row_group_size: int | None = None) -> None:
    """Write a Parquet file, see :func:`to_parquet`."""
    write_bytes(uri, to_parquet(table, row_group_size))


def to_parquet(table: pa.Table, row_group_size: int | None = None) -> bytes:
    """The table as a Parquet file; columns named image are left uncompressed (they are JPEG already)."""
    sink = pa.BufferOutputStream()
    codec: Any = {name: "none" if name == "image" else "zstd" for name in table.column_names}
    # dictionary indices and list children are addressed by their own paths: let Parquet choose for those
    pq.write_table(table, sink, compression=codec, row_group_size=row_group_size, use_dictionary=False)
    return sink.getvalue().to_pybytes()


def delete_folder(uri: str) -> None:
    """Remove the folder at ``uri``, if there is one."""
    system, path = open_uri(uri)
    path = path.rstrip("/")
    if system.get_file_info(path).type == pafs.FileType.Directory:
        system.delete_dir(path)


def replace_folder(source: str, uri: str, mark: str | None = None) -> None:
    """Put the local folder ``source`` at ``uri`` in place of what is there: copied aside, then renamed.

    Object stores rename no folders. There, files take the place of others one by one, and those that ``source`` does
    not have are deleted. ``mark`` is the file that declares the folder whole: gone meanwhile, and written last.
    """
    system, path = open_uri(uri)
    path = path.rstrip("/")
    if _is_object_store(system):
        _replace_files(Path(source), system, path, mark)
        return
    aside = f"{path}.{uuid.uuid4().hex[:8]}.part"
    try:
        system.create_dir(aside, recursive=True)
        pafs.copy_files(source, aside, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=system)
        if system.get_file_info(path).type == pafs.FileType.Directory:
            system.delete_dir(path)
        system.move(aside, path)
    except BaseException:
        if system.get_file_info(aside).type == pafs.FileType.Directory:
            system.delete_dir(aside)
        raise


def _replace_files(source: Path, system: pafs.FileSystem, path: str, mark: str | None) -> None:
    names = {str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()}
    found = system.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    there = {file.path.removeprefix(f"{path}/") for file in found if file.type == pafs.FileType.File}
    if mark in there:
        system.delete_file(f"{path}/{mark}")
    for name in sorted(names, key=lambda name: (name == mark, name)):
        pafs.copy_files(
            str(source / name),
            f"{path}/{name}",
            source_filesystem=pafs.LocalFileSystem(),
            destination_filesystem=system,
        )
    for name in there - names - {mark}:
        system.delete_file(f"{path}/{name}")


def _is_object_store(system: pafs.FileSystem) -> bool:
    return system.type_name in ("s3", "gcs")


def local_folder(uri: str, target: str) -> str:
    """A local copy of the folder at ``uri`` in ``target``; a local folder is returned as it is."""
    if "://" not in uri:
        return uri
    system, path = open_uri(uri)
    Path(target).mkdir(parents=True, exist_ok=True)  # files are copied into what is there
    pafs.copy_files(path, target, source_filesystem=system, destination_filesystem=pafs.LocalFileSystem())
    return target
