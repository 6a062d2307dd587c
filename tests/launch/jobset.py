"""What Kubernetes accepts as a JobSet: jobset.schema.json, and what goes across fields."""

import json
from pathlib import Path
from typing import Any

from jsonschema import validate

SCHEMA = json.loads(Path(__file__).with_name("jobset.schema.json").read_text())


def check_jobset(manifest: Any) -> None:
    """Raises a ValidationError or an AssertionError for what Kubernetes would refuse."""
    validate(manifest, SCHEMA)
    names = [rule["name"] for rule in manifest["spec"]["failurePolicy"].get("rules", [])]
    assert len(set(names)) == len(names), "failurePolicy.rules: names are not unique"
    for job in manifest["spec"]["replicatedJobs"]:
        _check_job(manifest["metadata"]["name"], job)


def _check_job(name: str, job: dict) -> None:
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    last_pod = f"{name}-{job['name']}-{job['replicas'] - 1}-{spec['completions'] - 1}-abcde"
    validate(last_pod, SCHEMA["definitions"]["label"])
    names = [container["name"] for container in pod["containers"]]
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["containerName"] in names
            assert pod["restartPolicy"] == "Never", "podFailurePolicy needs restartPolicy Never"
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod["containers"]:
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
        resources = container["resources"]
        assert resources["requests"] == resources["limits"], "extended resources must be equal"
