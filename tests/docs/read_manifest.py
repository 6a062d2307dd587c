"""Checks that standard input is a JobSet, or servers and workers, that Kubernetes takes."""

import sys

import yaml

from tests.launch.cluster import check_cluster
from tests.launch.jobset import check_jobset

if __name__ == "__main__":
    first, *others = yaml.safe_load_all(sys.stdin)
    if first["kind"] == "JobSet":
        check_jobset(first)
    else:
        check_cluster([first, *others])
