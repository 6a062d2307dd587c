"""Checks that standard input is a JobSet that Kubernetes takes."""

import sys

import yaml

from tests.launch.jobset import check_jobset

if __name__ == "__main__":
    check_jobset(yaml.safe_load(sys.stdin))
