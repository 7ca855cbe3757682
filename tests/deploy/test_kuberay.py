"""The files for KubeRay: its own CRDs take them, and they fit together and fit the project."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from sicot import config
from sicot.config import Experiment
from sicot.endpoint.keys import VARIABLE
from tests.test_cluster_files import pinned

FOLDER = Path(__file__).parents[2] / "deploy" / "kuberay"
FILES = [*FOLDER.glob("*/ray*.yaml"), *FOLDER.glob("jobs/*.yaml")]
JOBS = {"prepare", "train", "search", "evaluate", "register", "predict", "pipeline"}
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


@cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    """The CRD of a kind, as the API server applies it with strict field validation: unknown fields are refused."""
    folder = os.environ.get("SICOT_SCHEMAS")
    if not folder:
        pytest.skip("SICOT_SCHEMAS names no folder of KubeRay's CRDs")
    with gzip.open(Path(folder) / f"ray.io_{kind.lower()}s.yaml.gz") as file:
        crd = yaml.load(file, Loader)
    assert crd["spec"]["names"]["kind"] == kind
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in crd["spec"]["versions"] if each["name"] == "v1"]
    return jsonschema.Draft202012Validator(strict(schema))


def strict(schema: Any) -> Any:
    """A structural schema that takes no field it does not name."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(value) for name, value in schema.items()}
    opened = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & made.keys()
    if made.get("type") == "object" and isinstance(made.get("properties"), dict) and not opened:
        made["additionalProperties"] = False
    return made


def clusters() -> dict[str, Any]:
    return {
        "cluster": read("cluster/raycluster.yaml")["spec"],
        "service": read("service/rayservice.yaml")["spec"]["rayClusterConfig"],
    }


def pods(cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


PODS = [pytest.param(pod, id=f"{name}-{n}") for name, each in clusters().items() for n, pod in enumerate(pods(each))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_crd_takes_the_file(file: Path) -> None:
    manifest = yaml.safe_load(file.read_text())
    assert manifest["apiVersion"] == "ray.io/v1"
    validator(manifest["kind"]).validate(manifest)
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", manifest["metadata"]["name"])  # the operator's own bound


def group(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda spec: change(spec["workerGroupSpecs"][0])


@pytest.mark.parametrize(
    ("name", "breaking"),
    [
        ("cluster/raycluster.yaml", lambda spec: spec.update(enableInTreeAutoscale=True)),
        ("cluster/raycluster.yaml", lambda spec: spec.update(authOptions={"mode": "password"})),
        ("cluster/raycluster.yaml", lambda spec: spec.update(enableInTreeAutoscaling="yes")),
        ("cluster/raycluster.yaml", lambda spec: spec.pop("headGroupSpec")),
        ("cluster/raycluster.yaml", group(lambda each: each.update(minReplicas="1"))),
        ("cluster/raycluster.yaml", group(lambda each: each["template"]["spec"]["containers"][0].update(imag="x"))),
        ("cluster/raycluster.yaml", group(lambda each: each["template"]["spec"].update(volume=[]))),
        ("jobs/train.yaml", lambda spec: spec.update(entrypointNumCPUs=1)),
        ("jobs/train.yaml", lambda spec: spec.update(clusterSelector="sicot")),
        ("service/rayservice.yaml", lambda spec: spec.pop("rayClusterConfig")),
        (
            "service/rayservice.yaml",
            lambda spec: spec["upgradeStrategy"]["clusterUpgradeOptions"].pop("stepSizePercent"),
        ),
        ("service/rayservice.yaml", lambda spec: spec["upgradeStrategy"].update(options={})),
    ],
)
def test_the_crd_refuses_a_broken_file(name: str, breaking: Callable[[dict[str, Any]], Any]) -> None:
    manifest = read(name)
    breaking(manifest["spec"])
    with pytest.raises(jsonschema.ValidationError):
        validator(manifest["kind"]).validate(manifest)


@pytest.mark.parametrize("cluster", clusters().values(), ids=clusters())
def test_a_cluster_asks_for_a_token_grows_and_has_the_pinned_ray(cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"] == {"mode": "token", "secretName": "sicot-token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(group["minReplicas"] < group["maxReplicas"] for group in cluster["workerGroupSpecs"])


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_runs_without_rights_within_limits_and_is_probed_by_kuberay(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "restartPolicy" not in pod  # autoscaler v2 replaces pods itself
    (container,) = pod["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    assert not [name for name in container if name.endswith("Probe")]
    assert "metrics" in [port["name"] for port in container["ports"]]


def test_secrets_are_only_referred_to() -> None:
    for file in FOLDER.rglob("*.yaml"):
        for manifest in yaml.safe_load_all(file.read_text()):
            assert manifest.get("kind") != "Secret"
    for param in PODS:
        (container,) = param.values[0]["containers"]  # type: ignore[index]
        plain = [each["name"] for each in container["env"] if "value" in each]
        assert not [name for name in plain if re.search("KEY|SECRET|TOKEN|PASSWORD", name)]


def test_prometheus_finds_every_pod_under_the_names_that_the_alerts_ask_for() -> None:
    (endpoint,) = read("cluster/podmonitor.yaml")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    assert {"targetLabel": "job", "replacement": "ray"} in endpoint["relabelings"]
    plain = yaml.safe_load((FOLDER.parent / "prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert plain["job_name"] == "ray"
    assert endpoint["metricRelabelings"] == plain["metric_relabel_configs"]


class Loaded(Exception):
    """The settings that a job has read, before it does anything."""


@pytest.mark.parametrize("job", sorted(JOBS))
def test_a_job_runs_on_the_cluster_with_settings_that_it_takes(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = read(f"jobs/{job}.yaml")["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": read("cluster/raycluster.yaml")["metadata"]["name"]}
    program, m, module, *arguments = shlex.split(spec["entrypoint"])
    assert (program, m) == ("python", "-m")
    assert not re.search(r"[;&|<>$`]", spec["entrypoint"])  # KubeRay puts it into a shell's line as it stands
    mounted = arguments.index("/etc/sicot/experiment.yaml")
    arguments[mounted] = str(FOLDER / "cluster/experiment.yaml")

    def load(of: type[config.Job], program: str) -> None:
        raise Loaded(real(of, arguments, program))

    real = config.load
    monkeypatch.setattr(config, "load", load)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(Loaded) as loaded:
        import_module(module).main()
    settings = loaded.value.args[0]
    assert settings.storage.startswith("s3://")
    assert settings.tracking_uri.startswith("http")


def test_every_job_has_its_file() -> None:
    assert {file.stem for file in FOLDER.glob("jobs/*.yaml")} == JOBS
    assert all(read(f"jobs/{job}.yaml")["metadata"]["name"] == f"sicot-{job}" for job in JOBS)


def test_the_settings_are_mounted_where_jobs_look_and_fit_the_nodes() -> None:
    cluster = read("cluster/raycluster.yaml")["spec"]
    for pod in pods(cluster):
        assert pod["volumes"] == [{"name": "experiment", "configMap": {"name": "sicot-experiment"}}]
        assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == "/etc/sicot"
    (generated,) = read("cluster/kustomization.yaml")["configMapGenerator"]
    assert generated == {"name": "sicot-experiment", "files": ["experiment.yaml"]}
    experiment = config.load(Experiment, ["--config", str(FOLDER / "cluster/experiment.yaml")])
    _, gpu = cluster["workerGroupSpecs"]
    assert experiment.train.workers <= gpu["maxReplicas"]
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_endpoint_is_upgraded_step_by_step() -> None:
    upgrade = read("service/rayservice.yaml")["spec"]["upgradeStrategy"]
    assert upgrade["type"] == "NewClusterWithIncrementalUpgrade"
    options = upgrade["clusterUpgradeOptions"]
    assert options["gatewayClassName"]
    assert 0 < options["stepSizePercent"] <= options["maxSurgePercent"] <= 100
    assert options["intervalSeconds"] > 0


def test_ray_serve_takes_the_endpoints_config() -> None:
    spec = read("service/rayservice.yaml")["spec"]
    served = ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"]))
    (application,) = served.applications
    local = yaml.safe_load((FOLDER.parents[1] / "serve_apps/local.yaml").read_text())["applications"][0]
    assert (application.import_path, application.route_prefix) == (local["import_path"], local["route_prefix"])
    settings = config.Serve(**{name: value for name, value in application.args.items() if name != "tracking_uri"})
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    cpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert settings.replicas * settings.threads <= cpus * group["maxReplicas"]
    assert served.http_options.host == "0.0.0.0"  # which the endpoint refuses without keys
    keys = {"secretRef": {"name": "sicot-keys"}}
    assert all(keys in pod["containers"][0]["envFrom"] for pod in pods(spec["rayClusterConfig"]))
    assert VARIABLE in (FOLDER / "service/kustomization.yaml").read_text()  # the secret's key becomes the variable


def test_images_are_named_in_one_way() -> None:
    placed = [{each["name"]: each for each in read(f"{name}/kustomization.yaml")["images"]} for name in clusters()]
    for named, cluster in zip(placed, clusters().values(), strict=True):
        assert {pod["containers"][0]["image"] for pod in pods(cluster)} == named.keys()
        assert all(named[name] == placed[0][name] for name in named)


@pytest.mark.parametrize("name", ["cluster", "service"])
def test_kustomize_renders_what_the_crd_takes(name: str) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("there is no kubectl")
    done = subprocess.run(["kubectl", "kustomize", FOLDER / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rendered = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    kind = {"cluster": "RayCluster", "service": "RayService"}[name]
    validator(kind).validate(rendered[kind])
    assert all(each["metadata"]["namespace"] == "sicot" for each in rendered.values())
    images = re.findall(r"^ +image: (\S+)$", done.stdout, re.MULTILINE)
    assert images
    assert all(re.fullmatch(r"registry\.example\.com/sicot(-gpu)?:[\w.]+", image) for image in images)
