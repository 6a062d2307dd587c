"""What Kubernetes accepts as a JobSet (v1alpha2, of JobSet 0.10.1), as far as ours go.

Written by hand after the API's documentation: https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2
and https://kubernetes.io/docs/reference/kubernetes-api. A field that is not named here is refused,
as kubectl refuses fields that the API does not know.
"""

import re
from collections.abc import Callable
from typing import Any

Check = Callable[[Any, str], None]


def check_jobset(manifest: Any) -> None:
    """Raises an AssertionError that names the first field that Kubernetes would refuse."""
    _JOBSET(manifest, "")
    spec = manifest["spec"]
    rules = spec["failurePolicy"].get("rules", [])
    names = [rule["name"] for rule in rules]
    assert len(set(names)) == len(names), "failurePolicy.rules: names are not unique"
    for job in spec["replicatedJobs"]:
        _check_job(manifest["metadata"]["name"], job)


def _check_job(name: str, job: dict) -> None:
    """What Kubernetes checks across fields."""
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    last_pod = f"{name}-{job['name']}-{job['replicas'] - 1}-{spec['completions'] - 1}-abcde"
    _label(last_pod, "name of the last pod")
    names = [container["name"] for container in pod["containers"]]
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        assert ("onExitCodes" in rule) != ("onPodConditions" in rule), "one of the two"
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["containerName"] in names
            assert pod["restartPolicy"] == "Never", "podFailurePolicy needs restartPolicy Never"
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod["containers"]:
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
        resources = container["resources"]
        assert resources["requests"] == resources["limits"], "extended resources must be equal"


def _object(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    fields = required | (optional or {})

    def check(value: Any, path: str) -> None:
        assert isinstance(value, dict), f"{path} is no object: {value!r}"
        assert value.keys() <= fields.keys(), f"{path} has {value.keys() - fields.keys()}"
        assert required.keys() <= value.keys(), f"{path} lacks {required.keys() - value.keys()}"
        for key, field in value.items():
            fields[key](field, f"{path}.{key}")

    return check


def _list(item: Check, least: int = 1) -> Check:
    def check(value: Any, path: str) -> None:
        assert isinstance(value, list) and len(value) >= least, f"{path}: {value!r}"
        for index, element in enumerate(value):
            item(element, f"{path}[{index}]")

    return check


def _map(value_check: Check) -> Check:
    def check(value: Any, path: str) -> None:
        assert isinstance(value, dict), f"{path} is no map: {value!r}"
        for key, element in value.items():
            _qualified_name(key, path)
            value_check(element, f"{path}.{key}")

    return check


def _one_of(*values: str) -> Check:
    def check(value: Any, path: str) -> None:
        assert value in values, f"{path} is {value!r}, not one of {values}"

    return check


def _matches(pattern: str, longest: int = 1000) -> Check:
    def check(value: Any, path: str) -> None:
        assert isinstance(value, str) and len(value) <= longest, f"{path}: {value!r}"
        assert re.fullmatch(pattern, value), f"{path} is {value!r}, which is not {pattern}"

    return check


def _integer(lowest: int, highest: int = 2**31 - 1) -> Check:
    def check(value: Any, path: str) -> None:
        assert type(value) is int and lowest <= value <= highest, f"{path}: {value!r}"

    return check


def _boolean(value: Any, path: str) -> None:
    assert type(value) is bool, f"{path}: {value!r}"


_label = _matches("[a-z]([-a-z0-9]*[a-z0-9])?", 63)
_label_value = _matches("([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", 63)
_text = _matches("[^\n]+")


def _qualified_name(key: str, path: str) -> None:
    prefix, _, name = key.rpartition("/")
    _matches("[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", 63)(name, f"{path}: key")
    _matches("([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?", 253)(prefix, f"{path}: prefix")


_CHIPS = _object({"google.com/tpu": _integer(1, 8)})
_CONTAINER = _object(
    {
        "name": _label,
        "image": _matches(r"[^\s]+"),
        "resources": _object({"requests": _CHIPS, "limits": _CHIPS}),
    },
    {
        "command": _list(_text),
        "args": _list(_text),
        "env": _list(_object({"name": _matches("[A-Z_]+"), "value": _text})),
        "volumeMounts": _list(
            _object({"name": _label, "mountPath": _matches("/[^:]+")}, {"readOnly": _boolean}),
            least=0,
        ),
        "ports": _list(
            _object({"containerPort": _integer(1, 65535)}, {"name": _matches("[a-z0-9-]+", 15)})
        ),
    },
)
_CSI = _object({"driver": _text}, {"readOnly": _boolean, "volumeAttributes": _map(_text)})
_POD = _object(
    {
        "restartPolicy": _one_of("Never", "OnFailure"),
        "containers": _list(_CONTAINER),
    },
    {
        "terminationGracePeriodSeconds": _integer(0),
        "serviceAccountName": _label,
        "volumes": _list(_object({"name": _label, "csi": _CSI}), least=0),
        "nodeSelector": _map(_label_value),
        "tolerations": _list(
            _object({"key": _text, "operator": _one_of("Exists"), "effect": _one_of("NoSchedule")})
        ),
    },
)
_POD_FAILURE_RULE = _object(
    {"action": _one_of("FailJob", "FailIndex", "Ignore", "Count")},
    {
        "onExitCodes": _object(
            {"operator": _one_of("In", "NotIn"), "values": _list(_integer(1, 255))},
            {"containerName": _label},
        ),
        "onPodConditions": _list(
            _object({"type": _text, "status": _one_of("True", "False", "Unknown")})
        ),
    },
)
_JOB = _object(
    {"template": _object({"spec": _POD}, {"metadata": _object({}, {"annotations": _map(_text)})})},
    {
        "parallelism": _integer(1),
        "completions": _integer(1),
        "completionMode": _one_of("Indexed", "NonIndexed"),
        "backoffLimit": _integer(0),
        "podFailurePolicy": _object({"rules": _list(_POD_FAILURE_RULE)}),
    },
)
_REASONS = (
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
)
_JOBSET_FAILURE_RULE = _object(
    {
        "name": _matches("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", 128),
        "action": _one_of("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
    },
    {
        "onJobFailureReasons": _list(_one_of(*_REASONS)),
        "onJobFailureMessagePatterns": _list(_text),
        "targetReplicatedJobs": _list(_label),
    },
)
_JOBSET = _object(
    {
        "apiVersion": _one_of("jobset.x-k8s.io/v1alpha2"),
        "kind": _one_of("JobSet"),
        "metadata": _object({"name": _label}, {"namespace": _label, "annotations": _map(_text)}),
        "spec": _object(
            {
                "replicatedJobs": _list(
                    _object(
                        {"name": _label, "template": _object({"spec": _JOB})},
                        {"replicas": _integer(1)},
                    )
                )
            },
            {
                "failurePolicy": _object(
                    {"maxRestarts": _integer(0)},
                    {
                        "restartStrategy": _one_of("Recreate", "BlockingRecreate"),
                        "rules": _list(_JOBSET_FAILURE_RULE),
                    },
                )
            },
        ),
    }
)
