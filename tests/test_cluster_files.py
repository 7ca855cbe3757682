"""The files a cluster is started with: Ray itself must accept them, and they must fit the rest of the project."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def pinned(name: str) -> str:
    found = re.search(rf"^{name}==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert found, f"requirements.txt does not pin {name}"
    return found[1]


def test_the_cluster_launcher_accepts_the_file(cluster: dict[str, Any]) -> None:
    validate_config(prepare_config(cluster))


@pytest.mark.parametrize("broken", [{"head_node_type": "tail"}, {"max_worker": 3}, {"max_workers": 0}])
def test_the_launcher_would_refuse_a_broken_file(cluster: dict[str, Any], broken: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"head_node_type|max_worker"):
        validate_config(prepare_config({**copy.deepcopy(cluster), **broken}))


def test_cpu_and_gpu_nodes_both_grow_with_the_work(cluster: dict[str, Any]) -> None:
    types = prepare_config(cluster)["available_node_types"]
    growing = {name: node for name, node in types.items() if node["max_workers"] > node["min_workers"]}
    assert any(node["resources"].get("GPU") for node in growing.values())
    assert any(node["resources"]["CPU"] and not node["resources"].get("GPU") for node in growing.values())
    assert cluster["max_workers"] >= sum(node["max_workers"] for node in types.values())


def test_every_image_has_the_pinned_ray_and_a_python_the_project_takes(cluster: dict[str, Any]) -> None:
    images = [cluster["docker"]["image"]]
    images += [node["docker"]["worker_image"] for node in cluster["available_node_types"].values() if "docker" in node]
    assert all(re.fullmatch(rf"rayproject/ray:{re.escape(pinned('ray'))}-py31[12](-gpu)?", each) for each in images)


def test_files_copied_to_the_nodes_exist(cluster: dict[str, Any]) -> None:
    ours = [local for local in cluster["file_mounts"].values() if local != "~/.ray/auth_token"]
    assert all((ROOT / local).exists() for local in ours)


def test_the_dashboard_and_prometheus_listen_on_loopback_alone(cluster: dict[str, Any]) -> None:
    commands = " ".join(cluster["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in commands
    assert "--web.listen-address=127.0.0.1:9095" in commands
    assert "--env RAY_PROMETHEUS_HOST=http://127.0.0.1:9095" in cluster["docker"]["head_run_options"]


def test_every_node_has_the_token_and_asks_for_it(cluster: dict[str, Any]) -> None:
    """Where Ray itself looks for it, as the user of the image."""
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]


def test_prometheus_on_the_head_has_its_files(cluster: dict[str, Any]) -> None:
    (watch,) = [to for to, local in cluster["file_mounts"].items() if local == "deploy/prometheus"]
    asked = re.search(r"--config\.file=\$HOME/(\S+)", " ".join(cluster["head_start_ray_commands"]))
    assert asked
    assert f"/home/ray/{asked[1]}" == f"{watch}/prometheus.yml"
    assert (ROOT / "deploy/prometheus/prometheus.yml").is_file()


def test_the_runtime_environment_makes_the_package_importable() -> None:
    environment = RuntimeEnv(working_dir=str(ROOT), **yaml.safe_load((ROOT / "runtime_env.yaml").read_text()))
    assert (ROOT / environment["env_vars"]["PYTHONPATH"] / "sicot" / "__init__.py").is_file()
    assert not os.path.isabs(environment["env_vars"]["PYTHONPATH"])  # it is read on other machines
    assert {"/.git", "/.venv", "/runs"} <= set(environment["excludes"])
