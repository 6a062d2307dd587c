#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
A training job on all machines of one TPU VM slice.

    launch/tpu_vm.sh create --name=NAME --zone=ZONE --project=PROJECT --type=TYPE [-- GCLOUD FLAGS]
    launch/tpu_vm.sh setup  --name=NAME --zone=ZONE --project=PROJECT
    launch/tpu_vm.sh run    --name=NAME --zone=ZONE --project=PROJECT -- ARGUMENTS
    launch/tpu_vm.sh tail   --name=NAME --zone=ZONE --project=PROJECT
    launch/tpu_vm.sh stop   --name=NAME --zone=ZONE --project=PROJECT
    launch/tpu_vm.sh delete --name=NAME --zone=ZONE --project=PROJECT

  create   makes the slice; it fails where no capacity is free (queued_resource.sh waits for it)
  setup    copies the last commit of this repository to all machines and installs it
  run      starts lumiere_jax.main (or eval) with ARGUMENTS on all machines; the same command resumes
  tail     follows the log of one machine until the job ends
  stop     sends SIGTERM to all processes, which save and end with exit code 75
  delete   gives the slice back; its disks are lost, the bucket stays

  --name=NAME               of the slice
  --zone=ZONE               such as us-east5-a
  --project=PROJECT         of Google Cloud
  --type=TYPE               v4-CORES, v5litepod-CHIPS, v5p-CORES or v6e-CHIPS (create)
  --version=VERSION         TPU software version; the usual one of the type if not given (create)
  --service_account=EMAIL   what the machines act as (create)
  --spot                    cheaper, and may be taken away at any time (create)
  --program=NAME            main, which trains, if not given, or eval (run)
  --worker=NUMBER           whose log to follow, or all; 0 if not given (tail)
  --lines=NUMBER            how much of the log to show first; 100 if not given (tail)
  --grace=SECONDS           how long to wait for the save; 600 if not given (stop)
  --dry_run                 print the commands, run none
  --help                    print this
END
}

worker=0
case $command in
  --help | -h) usage && exit 0 ;;
  create | setup | run | tail | stop | delete) shift ;;
  *) fail "give one of create, setup, run, tail, stop, delete, not '$command' (--help shows the usage)" ;;
esac
parse "name zone project type version service_account program worker lines grace" \
  "dry_run spot" "$@"
locate

GCLOUD=(gcloud compute tpus tpu-vm)
EVERYWHERE=(--worker=all)

create() {
  set_creation_flags --version
  run "${GCLOUD[@]}" create "$name" "${PLACE[@]}" "${creation_flags[@]}" ${REST[@]+"${REST[@]}"}
}

is_in "$command" "create run" || no_rest
case $command in
  create) create ;;
  delete) run "${GCLOUD[@]}" delete "$name" "${PLACE[@]}" --quiet ;;
  setup) setup_job ;;
  run) run_job ;;
  tail) tail_job "--worker=$worker" ;;
  stop) stop_job ;;
esac
