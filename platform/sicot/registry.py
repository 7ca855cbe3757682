"""Models by name: register a bundle, fetch it, promote it through a gate, roll back.

Every registered version is a `challenger` first; the one that people are served is the `champion`.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.artifacts
import mlflow.pyfunc
from mlflow.entities import LoggedModel, LoggedModelInput, LoggedModelOutput
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Schema

from sicot import cache, enrol, storage, track
from sicot.bundle import Bundle
from sicot.errors import UserError

CHALLENGER, CHAMPION = "challenger", "champion"
DIGEST, BUNDLE, PREVIOUS, GATE = "sicot.digest", "sicot.bundle", "sicot.previous_champion", "sicot.gate"

PYFUNC = ModelSignature(
    inputs=Schema(
        [
            ColSpec(DataType.binary, "image", required=False),
            ColSpec(DataType.string, "title", required=False),
            ColSpec(Array(DataType.string), "tags", required=False),
        ]
    ),
    outputs=Schema(
        [
            ColSpec(Array(DataType.string), "labels"),
            ColSpec(Array(DataType.double), "probabilities"),
            ColSpec(DataType.boolean, "unknown"),
            ColSpec(Array(DataType.string), "words"),
            ColSpec(Array(DataType.double), "weights"),
        ]
    ),
)
"""What a registered model takes and gives when it is loaded as a pyfunc."""
PYFUNC_NEEDS = (
    *("mlflow", "torch", "torchvision", "numpy", "pandas", "pyarrow", "pillow", "safetensors"),
    *("jieba", "pydantic", "pydantic-settings", "pyyaml", "faiss-cpu", "openvino"),
)

Figures = Mapping[str, Mapping[str, Any]]
"""`top1` and `tail` by regime: image, and image_text where the model uses words."""
Ask = Callable[[Sequence[str]], Sequence[Figures]]
"""Bundle folders → figures of each, measured on the same rows, with the same rows as tail."""


@dataclass(frozen=True)
class Version:
    """A registered model version."""

    number: int
    aliases: list[str]
    digest: str
    run_id: str
    created: int
    """Milliseconds since 1970."""


@dataclass(frozen=True)
class Decision:
    """What the gate said."""

    promoted: bool
    reason: str
    candidate: Figures | None = None
    champion: Figures | None = None


def register(run: track.Run, bundle_folder: str, name: str) -> int:
    """Register the bundle in a local folder as a new version of `name` with the alias `challenger`.

    A bundle that is registered already keeps its version, so a job that is run again does not register twice.
    Returns the version.
    """
    digest = digest_of(bundle_folder)
    client = run.client
    with track.talking(run.uri):
        if not client.search_registered_models(f"name = {name!r}"):
            client.create_registered_model(name)
        same = [v for v in client.search_model_versions(f"name = {name!r}") if v.tags.get(DIGEST) == digest]
        number = max(int(v.version) for v in same) if same else _add_version(run, bundle_folder, name)[0]
        client.set_registered_model_alias(name, CHALLENGER, str(number))
    return number


def supersede(uri: str, before: str, bundle_folder: str, note: str, tracking_uri: str) -> str | None:
    """Register a bundle that was made from another version, and give it that version's alias; no other one moves.

    The gate is not asked. MLflow cannot compare and move an alias in one step: who may do this at the same time must be
    kept from it elsewhere. A champion that was crowned meanwhile by somebody else is noticed but for an instant.

    Args:
        uri: the alias, as `models:/name@alias`.
        before: the version it must mean, as `models:/name/version`; the new one is filed under the same run.
        bundle_folder: local.
        note: what the new version is, for people; MLflow shows it.
        tracking_uri: MLflow's store.

    Returns:
        The new version, as `models:/name/version`. None if the alias means another than ``before``. Then, and when this
        fails, the new version is taken out again.

    Raises:
        UserError: there is no such model, or the server does not answer.
    """
    client = track.connect(tracking_uri)
    name, _, alias = uri.removeprefix("models:/").partition("@")
    with track.talking(tracking_uri):
        run = track.Run(tracking_uri, _version(client, before).run_id)
        number, model_id = _add_version(run, bundle_folder, name, note)
        made = f"models:/{name}/{number}"
        try:
            if resolve(uri, tracking_uri) != before:
                return None
            _give(client, name, alias, number)
        finally:
            if resolve(uri, tracking_uri) != made:
                client.delete_model_version(name, str(number))
                client.delete_logged_model(model_id)
    return made


def carry(bundle_folder: str, name: str, uri: str) -> str:
    """A local folder with the bundle and the products enrolled in the champion that it was not trained on.

    The given folder where there is nothing to carry. What the bundle has enrolled itself stays; a product that was
    withdrawn from the champion since the bundle got it comes back with it.
    """
    client = track.connect(uri)
    with track.talking(uri):
        known = client.search_registered_models(f"name = {name!r}")
    champion = _alias(client, name, CHAMPION) if known else None
    if champion is None:
        return bundle_folder
    theirs = fetch(f"models:/{name}/{champion}", uri)
    if not _enrolled(theirs):
        return bundle_folder
    new = Bundle.load(bundle_folder)
    made, left = enrol.carry(Bundle.load(theirs), new)
    print(f"{made.info.enrolled} enrolled products of version {champion} carried over")
    for label, reason in left.items():
        print(f"  left behind: {label}: {reason}")
    if made is new:
        return bundle_folder
    with cache.aside() as aside:
        enrol.save(made, str(aside / "bundle"))
        return cache.keep(aside / "bundle")


def resolve(uri: str, tracking_uri: str) -> str:
    """The version that an alias means now, as `models:/name/version`; other URIs come back as they are.

    :class:`UserError` if there is no such model, or the server does not answer.
    """
    if not uri.startswith("models:/") or "@" not in uri:
        return uri
    version = _version(track.connect(tracking_uri), uri)
    return f"models:/{version.name}/{version.version}"


def find(uri: str, tracking_uri: str) -> str | None:
    """:func:`resolve`, or None where no version of the model has the alias."""
    name, sign, alias = uri.removeprefix("models:/").partition("@")
    if uri.startswith("models:/") and sign and _alias(track.connect(tracking_uri), name, alias) is None:
        return None
    return resolve(uri, tracking_uri)


def fetch(uri: str, tracking_uri: str) -> str:
    """A local folder with the bundle; what is downloaded is kept in the user's cache. No code of it is run.

    What the cache has, undamaged, is not downloaded again; `runs:/` alone is, since it does not say what it holds.

    Args:
        uri: `models:/name@alias`, `models:/name/version`, `runs:/id/path`, or the folder or URI of a bundle.
        tracking_uri: MLflow's store; not asked for folders.

    Raises :class:`UserError` if there is no such model or bundle, or the server does not answer.
    """
    if uri.startswith(("models:/", "runs:/")):
        return _fetch_logged(uri, tracking_uri)
    if "://" not in uri:
        folder = Path(uri).absolute()
        if not (folder / "bundle.json").exists():
            raise UserError(f"no bundle at {uri}: give the folder of a bundle, or models:/name@champion")
        return str(folder)
    system, path = storage.open_uri(uri)
    try:
        with system.open_input_stream(f"{path.rstrip('/')}/bundle.json") as note:
            if kept := cache.find(cache.name(note.read())):
                return kept
        with cache.aside() as aside:
            return cache.keep(Path(storage.local_folder(uri, str(aside / "bundle"))))
    except FileNotFoundError as error:
        raise UserError(f"no bundle at {uri}") from error


def promote(name: str, version: int, uri: str, ask: Ask, tail_tolerance: float = 0.01) -> Decision:
    """Make a version the champion if it passes the gate.

    In every regime of the champion, overall accuracy must not drop, and tail accuracy not by more than
    `tail_tolerance`. Where there is no champion yet, the version becomes it without a rival.

    Args:
        name: registered model.
        version: the candidate.
        uri: MLflow's store.
        ask: measures candidate and champion on the same rows.
        tail_tolerance: a share in [0, 1].
    """
    client = track.connect(uri)
    _get(client, name, str(version))
    champion = _alias(client, name, CHAMPION)
    if champion == version:
        return Decision(True, f"version {version} is the champion already")
    if champion is None:
        with track.talking(uri):
            client.set_registered_model_alias(name, CHAMPION, str(version))
        return Decision(True, f"version {version} is the first champion")
    mine, theirs = ask([fetch(f"models:/{name}/{number}", uri) for number in (version, champion)])
    lost = gate(mine, theirs, tail_tolerance)
    with track.talking(uri):
        client.set_model_version_tag(name, str(version), GATE, json.dumps({"lost": lost, "against": champion}))
    if lost:
        return Decision(False, f"version {version} stays challenger: {'; '.join(lost)}", mine, theirs)
    crown(name, version, uri)
    return Decision(True, f"version {version} is champion in place of version {champion}", mine, theirs)


def gate(candidate: Figures, champion: Figures, tail_tolerance: float) -> list[str]:
    """Why the candidate must not replace the champion; empty if it may.

    A candidate that does not use words answers photo and words as it answers the photo alone.
    """
    lost = []
    for regime, theirs in champion.items():
        mine = candidate.get(regime, candidate["image"])
        for what, tolerance in (("top1", 0.0), ("tail", tail_tolerance)):
            new, old = mine[what], theirs[what]
            if new is not None and old is not None and new < old - tolerance - 1e-9:
                lost.append(f"{regime} {what} {new:.4f} against {old:.4f}")
    return lost


def crown(name: str, version: int, uri: str) -> None:
    """Make a version the champion without asking the gate; its predecessor is kept in mind for :func:`rollback`."""
    client = track.connect(uri)
    _get(client, name, str(version))
    with track.talking(uri):
        _give(client, name, CHAMPION, version)


def challenge(name: str, version: int, uri: str) -> None:
    """Make a version the challenger; 0 takes the alias from the one that has it: there is no challenger then."""
    client = track.connect(uri)
    if version:
        _get(client, name, str(version))
    with track.talking(uri):
        if version:
            client.set_registered_model_alias(name, CHALLENGER, str(version))
        else:
            client.delete_registered_model_alias(name, CHALLENGER)


def rollback(name: str, tracking_uri: str) -> int:
    """Give `champion` back to the version that had it before; returns that version.

    The one that loses it does not go on as the challenger.
    """
    client = track.connect(tracking_uri)
    champion = _alias(client, name, CHAMPION)
    if champion is None:
        raise UserError(f"{name} has no champion: nothing to roll back")
    previous = _get(client, name, str(champion)).tags.get(PREVIOUS)
    if previous is None:
        raise UserError(f"version {champion} is the first champion of {name}: nothing to roll back to")
    _get(client, name, previous)
    is_challenger = _alias(client, name, CHALLENGER) == champion
    with track.talking(tracking_uri):
        client.set_registered_model_alias(name, CHAMPION, previous)
        if is_challenger:
            client.delete_registered_model_alias(name, CHALLENGER)
    return int(previous)


def versions(name: str, tracking_uri: str) -> list[Version]:
    """All versions of a registered model, newest first."""
    client = track.connect(tracking_uri)
    with track.talking(tracking_uri):
        aliases = client.get_registered_model(name).aliases
        found = client.search_model_versions(f"name = {name!r}")
    return sorted(
        (
            Version(
                number=int(v.version),
                aliases=sorted(alias for alias, number in aliases.items() if str(number) == str(v.version)),
                digest=v.tags.get(DIGEST, ""),
                run_id=v.run_id or "",
                created=v.creation_timestamp,
            )
            for v in found
        ),
        key=lambda version: -version.number,
    )


def listing(name: str, tracking_uri: str) -> str:
    """The versions as a table for people."""
    lines = [f"{name:<10} {'made':<17} {'digest':<13} aliases"]
    for each in versions(name, tracking_uri):
        made = datetime.fromtimestamp(each.created / 1000).strftime("%Y-%m-%d %H:%M")
        lines.append(f"{each.number:<10} {made:<17} {each.digest[:12]:<13} {', '.join(each.aliases)}".rstrip())
    return "\n".join(lines)


def link(run: track.Run, uri: str, bundle_folder: str) -> None:
    """Note on a run which model it is about; in MLflow it is then listed with that model version."""
    run.tags({"sicot.model": uri, DIGEST: digest_of(bundle_folder)})
    if uri.startswith("models:/"):
        with track.talking(run.uri):
            version = _version(run.client, uri)
            run.tags({"sicot.model_version": version.version})
            if version.model_id:
                run.client.log_inputs(run.id, models=[LoggedModelInput(version.model_id)])


def digest_of(bundle_folder: str | Path) -> str:
    """The digest that names the model in a local bundle folder."""
    return _note(bundle_folder)["digest"]


def _enrolled(bundle_folder: str) -> int:
    return _note(bundle_folder)["enrolled"]


def _note(bundle_folder: str | Path) -> dict[str, Any]:
    """What bundle.json says; of all its entries, there are digest and enrolled."""
    try:
        note = json.loads((Path(bundle_folder) / "bundle.json").read_text())
        return {"enrolled": 0, **note, "digest": note["digest"]}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"no bundle at {bundle_folder}: it must hold a bundle.json") from error


def _fetch_logged(uri: str, tracking_uri: str) -> str:
    """:func:`fetch` for what MLflow keeps."""
    client = track.connect(tracking_uri)
    source = uri
    if uri.startswith("models:/"):
        version = _version(client, uri)
        if BUNDLE in version.tags and (kept := cache.find(version.tags[BUNDLE])):
            return kept
        source = client.get_model_version_download_uri(version.name, version.version)
    with cache.aside() as aside:
        with track.talking(tracking_uri):
            got = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(aside), tracking_uri=tracking_uri))
        found = sorted(got.rglob("bundle.json"), key=lambda path: len(path.parts))
        if not found:
            raise UserError(f"{uri} holds no sicot bundle: register one with `python -m jobs.register`")
        return cache.keep(found[0].parent)


def _alias(client: Any, name: str, alias: str) -> int | None:
    with track.talking(client.tracking_uri):
        number = client.get_registered_model(name).aliases.get(alias)
    return int(number) if number is not None else None


def _give(client: Any, name: str, alias: str, version: int) -> None:
    """Move an alias to a version, which remembers the champion it follows."""
    previous = _alias(client, name, alias)
    if alias == CHAMPION and previous is not None and previous != version:
        client.set_model_version_tag(name, str(version), PREVIOUS, str(previous))
    client.set_registered_model_alias(name, alias, str(version))


def _get(client: Any, name: str, version: str) -> Any:
    """The model version; :class:`UserError` if there is none."""
    with track.talking(client.tracking_uri):
        return client.get_model_version(name, version)


def _version(client: Any, uri: str) -> Any:
    """The model version of `models:/name@alias` or `models:/name/version`."""
    name, sign, which = uri.removeprefix("models:/").partition("@")
    if not sign:
        name, _, which = name.partition("/")
    if not name or not which:
        raise UserError(f"{uri} is no model: write models:/name@alias or models:/name/version")
    try:
        with track.talking(client.tracking_uri):
            return client.get_model_version_by_alias(name, which) if sign else client.get_model_version(name, which)
    except UserError as error:
        raise UserError(f"no model {uri}: {error}; `python -m jobs.register --list` shows what there is") from error


def _add_version(run: track.Run, bundle_folder: str, name: str, note: str | None = None) -> tuple[int, str]:
    """A new model version, without an alias yet, and the id of the logged model it is of."""
    digest = digest_of(bundle_folder)
    model = _log_model(run, bundle_folder, digest)
    tags = {DIGEST: digest, BUNDLE: cache.name((Path(bundle_folder) / "bundle.json").read_bytes())}
    made = run.client.create_model_version(
        name, model.artifact_location, run_id=run.id, tags=tags, description=note, model_id=model.model_id
    )
    return int(made.version), model.model_id


def _log_model(run: track.Run, bundle_folder: str, digest: str) -> LoggedModel:
    """Log the bundle as a model of the run, with the code that makes it a pyfunc for other people's tools."""
    package = Path(__file__).parent
    with tempfile.TemporaryDirectory() as aside, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow would like an example of the input
        mlflow.pyfunc.save_model(
            path=f"{aside}/model",
            python_model=str(package / "pyfunc.py"),
            artifacts={"bundle": str(bundle_folder)},
            code_paths=[str(package)],
            pip_requirements=[f"{name}=={metadata.version(name).partition('+')[0]}" for name in PYFUNC_NEEDS],
            signature=PYFUNC,
        )
        client = run.client
        experiment = client.get_run(run.id).info.experiment_id
        model = client.create_logged_model(experiment, "sicot", source_run_id=run.id, tags={DIGEST: digest})
        try:
            client.log_model_artifacts(model.model_id, f"{aside}/model")
        except BaseException:
            client.finalize_logged_model(model.model_id, "FAILED")
            raise
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(run.id, [LoggedModelOutput(model.model_id, step=0)])
    return model
