"""The scripts that call gcloud: what they would run, and what they make of its answers."""

import shlex

import pytest

from tests.launch.scripts import REPOSITORY, assert_user_error, dry_run, run_script

PLACE = ("--name=stunet", "--zone=us-east5-a", "--project=films")
WHERE = ["--zone=us-east5-a", "--project=films"]
SCOPES = "--scopes=https://www.googleapis.com/auth/cloud-platform"
KINDS = {
    "tpu_vm.sh": ("tpu-vm", ["--worker=all"]),
    "queued_resource.sh": ("queued-resources", ["--node=all", "--worker=all"]),
}
WORKER = "lumiere_job/source/launch/worker.sh"
both = pytest.mark.parametrize("script", KINDS)


@pytest.mark.parametrize(
    ("slice_type", "version"),
    [
        ("v4-16", "tpu-ubuntu2204-base"),
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-128", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
    ],
)
def test_create_a_tpu_vm(slice_type, version):
    commands = dry_run("tpu_vm.sh", "create", *PLACE, f"--type={slice_type}")
    expected = ["gcloud", "compute", "tpus", "tpu-vm", "create", "stunet", *WHERE]
    expected += [f"--accelerator-type={slice_type}", f"--version={version}", SCOPES]
    assert commands == [expected]


def test_create_passes_on_what_was_chosen():
    flags = ("--type", "v5p-8", "--version", "mine", "--spot", "--service_account=a@b")
    commands = dry_run("tpu_vm.sh", "create", *PLACE, *flags, "--", "--network=my net")
    assert commands[0][-5:] == [
        "--version=mine", SCOPES, "--service-account=a@b", "--spot", "--network=my net"
    ]  # fmt: skip


def test_request_one_slice():
    commands = dry_run("queued_resource.sh", "create", *PLACE, "--type=v5p-8", "--spot")
    expected = ["gcloud", "compute", "tpus", "queued-resources", "create", "stunet", *WHERE]
    expected += ["--node-id=stunet", "--accelerator-type=v5p-8"]
    expected += ["--runtime-version=v2-alpha-tpuv5", SCOPES, "--spot"]
    assert commands == [expected]


def test_request_several_slices():
    (command,) = dry_run("queued_resource.sh", "create", *PLACE, "--type=v6e-256", "--slices=4")
    assert "--node-count=4" in command and "--node-prefix=stunet" in command
    assert not any(word.startswith("--node-id") or word == "--spot" for word in command)


@both
def test_setup_copies_the_repository_to_all_machines(script):
    kind, everywhere = KINDS[script]
    archive, copy, install = dry_run(script, "setup", *PLACE, TMPDIR="/a b")
    assert archive == [
        "git", "-C", str(REPOSITORY), "archive", "--format=tar.gz",
        "--output=/a b/lumiere_jax.tar.gz", "HEAD",
    ]  # fmt: skip
    gcloud = ["gcloud", "compute", "tpus", kind]
    source, target = "/a b/lumiere_jax.tar.gz", "stunet:lumiere_jax.tar.gz"
    assert copy == [*gcloud, "scp", source, target, *WHERE, *everywhere]
    assert install[:-1] == [*gcloud, "ssh", "stunet", *WHERE, *everywhere]
    shell, flag, script_text = shlex.split(install[-1].removeprefix("--command="))
    assert (shell, flag) == ("bash", "-c")
    steps = script_text.split(" && ")
    assert "tar -xzf lumiere_jax.tar.gz -C lumiere_job/source" in steps
    assert steps[-1] == f"{WORKER} install"


@both
def test_run_reaches_the_workers_word_for_word(script):
    kind, everywhere = KINDS[script]
    arguments = ["--config=configs/stunet.py:full", "--workdir=gs://b/it's a run", "--x=$HOME;`ls`"]
    (command,) = dry_run(script, "run", *PLACE, "--", *arguments)
    assert command[:-1] == ["gcloud", "compute", "tpus", kind, "ssh", "stunet", *WHERE, *everywhere]
    remote = shlex.split(command[-1].removeprefix("--command="))
    assert remote == [WORKER, "start", "--program=main", "--", *arguments]
    (other,) = dry_run(script, "run", *PLACE, "--program=eval", "--", *arguments)
    assert other[:-1] == command[:-1]
    assert other[-1] == command[-1].replace("--program=main", "--program=eval")


def test_tail_follows_one_machine():
    (command,) = dry_run("tpu_vm.sh", "tail", *PLACE, "--worker=3")
    assert command[5:] == ["stunet", *WHERE, "--worker=3", f"--command={WORKER} tail --lines=100"]
    (command,) = dry_run("queued_resource.sh", "tail", *PLACE, "--node=1", "--lines=5")
    assert command[5:] == [
        "stunet", *WHERE, "--node=1", "--worker=0", f"--command={WORKER} tail --lines=5"
    ]  # fmt: skip


@both
def test_stop_reaches_all_machines(script):
    (command,) = dry_run(script, "stop", *PLACE, "--grace=60")
    assert command[-1] == f"--command={WORKER} stop --grace=60"
    assert command[-2] == "--worker=all"


def test_delete():
    (command,) = dry_run("tpu_vm.sh", "delete", *PLACE)
    assert command[3:] == ["tpu-vm", "delete", "stunet", *WHERE, "--quiet"]
    (command,) = dry_run("queued_resource.sh", "delete", *PLACE)
    assert command[3:] == ["queued-resources", "delete", "stunet", *WHERE, "--force", "--quiet"]


def test_wait_looks_at_the_state():
    (command,) = dry_run("queued_resource.sh", "wait", *PLACE)
    assert command[3:] == [
        "queued-resources", "describe", "stunet", *WHERE, "--format=value(state.state)"
    ]  # fmt: skip


@pytest.fixture(name="wait")
def fixture_wait(tmp_path):
    """Waits for a queued resource whose states a stand-in for gcloud gives, the last for ever."""

    def wait(*states: str, flags: tuple[str, ...] = ()):
        (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
        gcloud = tmp_path / "gcloud"
        gcloud.write_text(
            f"#!/bin/bash\ncd {shlex.quote(str(tmp_path))}\n"
            'if [[ $* == *yaml* ]]; then echo "stateInitiator: SERVICE"; exit; fi\n'
            "state=$(head -n 1 states); [[ $(wc -l < states) == 1 ]] || sed -i.old 1d states\n"
            '[[ $state != lost ]] || { echo "no connection" >&2; exit 1; }\n'
            'echo "$state"\n'
        )
        gcloud.chmod(0o755)
        sleep = tmp_path / "sleep"
        sleep.write_text("#!/bin/bash\n/bin/sleep 0.01\n")
        sleep.chmod(0o755)
        path = f"{tmp_path}:/usr/local/bin:/usr/bin:/bin"
        return run_script("queued_resource.sh", "wait", *PLACE, *flags, PATH=path)

    return wait


def test_wait_ends_when_the_slices_are_there(wait):
    result = wait(
        "WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "lost", "PROVISIONING", "ACTIVE"
    )
    assert result.returncode == 0, result.stderr
    states = [line.split()[-1] for line in result.stdout.splitlines()]
    assert states == ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("FAILED", "the request stunet failed, for the reason above"),
        ("SUSPENDED", "the slices of stunet were taken away"),
        ("SUSPENDING", "the job resumes from its workdir"),
        ("DELETING", "is being deleted"),
        ("lost", "could not be read 5 times in a row"),
    ],
)
def test_wait_gives_up_where_no_slices_will_come(wait, state, message):
    result = wait("PROVISIONING", state)
    assert result.returncode == 1
    assert "stateInitiator: SERVICE" in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last
    if state in ("FAILED", "SUSPENDED"):
        assert "queued_resource.sh delete --zone=us-east5-a --project=films --name=stunet" in last


def test_wait_gives_up_after_the_timeout(wait):
    result = wait("WAITING_FOR_RESOURCES", flags=("--timeout=1",))
    assert result.returncode == 124
    assert "still WAITING_FOR_RESOURCES after 1 s" in result.stderr


def test_a_failing_gcloud_ends_the_script(tmp_path):
    gcloud = tmp_path / "gcloud"
    gcloud.write_text("#!/bin/bash\nexit 7\n")
    gcloud.chmod(0o755)
    result = run_script("tpu_vm.sh", "delete", *PLACE, PATH=f"{tmp_path}:/usr/bin:/bin")
    assert result.returncode == 7


def test_worker_installs_what_was_tested():
    commands = dry_run("worker.sh", "install", LUMIERE_JOB="/job")
    assert commands[1][-4:] == ["--python", "3.11", "--allow-existing", "/job/venv"]
    assert commands[2][-4:] == [
        "-r", f"{REPOSITORY}/requirements.txt", "-e", f"{REPOSITORY}[tpu,eval]"
    ]  # fmt: skip


def test_worker_dry_runs():
    environment = {"LUMIERE_JOB": "/job"}
    _, command = dry_run("worker.sh", "start", "--", "--workdir=a b", **environment)
    python = ["/job/venv/bin/python", "-u", "-m", "lumiere_jax.main"]
    assert command == [*python, "--distributed", "--workdir=a b"]
    start = ("worker.sh", "start", "--program=eval", "--", "--task=held_out")
    _, command = dry_run(*start, **environment)
    assert command == [*python[:-1], "lumiere_jax.eval", "--distributed", "--task=held_out"]
    assert dry_run("worker.sh", "tail", **environment) == [["tail", "-n", "100", "-F", "/job/log"]]
    assert dry_run("worker.sh", "stop", **environment) == [
        ["pkill", "-TERM", "--pidfile", "/job/pid"]
    ]


def test_tail_without_a_job(tmp_path):
    result = run_script("worker.sh", "tail", LUMIERE_JOB=str(tmp_path))
    assert_user_error(result, "no job was started here")
