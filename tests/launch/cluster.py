"""What Kubernetes accepts as servers and workers: cluster.schema.json, and what goes across."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import validate

_SCHEMAS = json.loads(Path(__file__).with_name("cluster.schema.json").read_text())


def check_cluster(objects: list[Any]) -> None:
    """Raises a ValidationError or an AssertionError for what Kubernetes would refuse or ignore."""
    for manifest in objects:
        validate(manifest, _SCHEMAS[manifest["kind"]])
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in objects]
    assert len(set(names)) == len(names), "two objects of one name"
    assert len({manifest["metadata"]["namespace"] for manifest in objects}) == 1
    for named in _named(objects):
        assert named in names, f"there is no {named}"
    for deployment in (o["spec"] for o in objects if o["kind"] == "Deployment"):
        _check_pods(deployment)


def _named(objects: list[Any]) -> Iterator[tuple[str, str]]:
    """What objects say of others: kind and name."""
    labels = {
        o["spec"]["template"]["metadata"]["labels"]["app"]: o["metadata"]["name"]
        for o in objects
        if o["kind"] == "Deployment"
    }
    for manifest in objects:
        kind, spec = manifest["kind"], manifest.get("spec", {})
        notes = manifest["metadata"].get("annotations", {})
        if kind in ("Service", "PodDisruptionBudget"):
            selector = spec["selector"] if kind == "Service" else spec["selector"]["matchLabels"]
            yield "Deployment", labels.get(selector["app"], "")
        if kind == "Service":
            yield "BackendConfig", json.loads(notes["cloud.google.com/backend-config"])["default"]
        if kind == "Ingress":
            yield "ManagedCertificate", notes["networking.gke.io/managed-certificates"]
            yield "Service", spec["defaultBackend"]["service"]["name"]
        if kind == "ScaledObject":
            yield "Deployment", spec["scaleTargetRef"]["name"]
            for trigger in spec["triggers"]:
                yield "TriggerAuthentication", trigger["authenticationRef"]["name"]


def _check_pods(deployment: Any) -> None:
    template = deployment["template"]
    assert deployment["selector"]["matchLabels"] == template["metadata"]["labels"]
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    for container in template["spec"]["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        ports = {port["name"] for port in container.get("ports", [])}
        probes = [container[key] for key in container if key.endswith("Probe")]
        assert {probe["httpGet"]["port"] for probe in probes} <= ports
        resources = container["resources"]
        for device, number in resources.get("limits", {}).items():
            assert resources["requests"][device] == number, "extended resources must be equal"
