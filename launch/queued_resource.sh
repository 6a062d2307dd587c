#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
A training job on one or more TPU slices that Google Cloud hands out when they are free.

    launch/queued_resource.sh create --name=NAME --zone=ZONE --project=PROJECT --type=TYPE [-- GCLOUD FLAGS]
    launch/queued_resource.sh wait   --name=NAME --zone=ZONE --project=PROJECT
    launch/queued_resource.sh setup  --name=NAME --zone=ZONE --project=PROJECT
    launch/queued_resource.sh run    --name=NAME --zone=ZONE --project=PROJECT -- ARGUMENTS
    launch/queued_resource.sh tail   --name=NAME --zone=ZONE --project=PROJECT
    launch/queued_resource.sh stop   --name=NAME --zone=ZONE --project=PROJECT
    launch/queued_resource.sh delete --name=NAME --zone=ZONE --project=PROJECT

  create   puts a request into the queue
  wait     waits until the slices are there (ACTIVE); ends with 1 where they will not come
  setup    copies the last commit of this repository to all machines and installs it
  run      starts lumiere_jax.main (or eval) with ARGUMENTS on all machines; the same command resumes
  tail     follows the log of one machine until the job ends
  stop     sends SIGTERM to all processes, which save and end with exit code 75
  delete   gives request and slices back; their disks are lost, the bucket stays

  --name=NAME               of the request, and of its slice
  --zone=ZONE               such as us-east5-a
  --project=PROJECT         of Google Cloud
  --type=TYPE               v4-CORES, v5litepod-CHIPS, v5p-CORES or v6e-CHIPS (create)
  --slices=NUMBER           how many slices, joined by the data centre's network; 1 (create)
  --version=VERSION         TPU software version; the usual one of the type if not given (create)
  --service_account=EMAIL   what the machines act as (create)
  --spot                    cheaper, and may be taken away at any time (create)
  --interval=SECONDS        between two looks at the state; 30 if not given (wait)
  --timeout=SECONDS         when to give up, with exit code 124; never if not given (wait)
  --program=NAME            main, which trains, if not given, or eval (run)
  --node=NUMBER             of which slice to follow a log; 0 if not given (tail)
  --worker=NUMBER           of which machine of it; 0 if not given (tail)
  --lines=NUMBER            how much of the log to show first; 100 if not given (tail)
  --grace=SECONDS           how long to wait for the save; 600 if not given (stop)
  --dry_run                 print the commands, run none
  --help                    print this
END
}

slices=1 node=0 worker=0 interval=30 timeout=""
case $command in
  --help | -h) usage && exit 0 ;;
  create | wait | setup | run | tail | stop | delete) shift ;;
  *) fail "give one of create, wait, setup, run, tail, stop, delete, not '$command' (--help shows the usage)" ;;
esac
parse "name zone project type slices version service_account program interval timeout node worker lines grace" \
  "dry_run spot" "$@"
locate

GCLOUD=(gcloud compute tpus queued-resources)
EVERYWHERE=(--node=all --worker=all)

create() {
  require_number slices 1 1000
  set_creation_flags --runtime-version
  local nodes=("--node-id=$name")
  ((slices == 1)) || nodes=("--node-count=$slices" "--node-prefix=$name")
  run "${GCLOUD[@]}" create "$name" "${PLACE[@]}" "${nodes[@]}" "${creation_flags[@]}" \
    ${REST[@]+"${REST[@]}"}
}

# give_up MESSAGE: ends with exit code 1, after what Google Cloud says of the state.
give_up() {
  "${GCLOUD[@]}" describe "$name" "${PLACE[@]}" '--format=yaml(state)' >&2 || true
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# wait_until_active: looks at the state again and again; prints it whenever it changes.
wait_until_active() {
  require_number interval 1 86400
  [[ -z $timeout ]] || require_number timeout 1 100000000
  local look=("${GCLOUD[@]}" describe "$name" "${PLACE[@]}" '--format=value(state.state)')
  local state="" before="" failures=0
  local again="launch/queued_resource.sh delete ${PLACE[*]} --name=$name, then create it again"
  if [[ $dry_run == true ]]; then
    run "${look[@]}"
    return
  fi
  while true; do
    if state=$("${look[@]}"); then
      failures=0
      [[ $state == "$before" ]] || printf '%s %s\n' "$(date -u +%H:%M:%S)" "${state:-(no state)}"
      before=$state
    else
      failures=$((failures + 1)) # a lost connection is no reason to stop waiting
      ((failures < 5)) || give_up "the state of $name could not be read 5 times in a row"
    fi
    case $state in
      ACTIVE) return ;;
      FAILED) give_up "the request $name failed, for the reason above: mend it, run $again" ;;
      SUSPENDING | SUSPENDED)
        give_up "the slices of $name were taken away (preempted, or stopped): run $again; the job resumes from its workdir"
        ;;
      DELETING) give_up "the request $name is being deleted: create it again when it is gone" ;;
    esac
    if [[ -n $timeout ]] && ((SECONDS >= timeout)); then
      echo "error: $name is still ${state:-without state} after $timeout s; it stays in the queue" >&2
      exit 124
    fi
    sleep "$interval"
  done
}

is_in "$command" "create run" || no_rest
case $command in
  create) create ;;
  wait) wait_until_active ;;
  delete) run "${GCLOUD[@]}" delete "$name" "${PLACE[@]}" --force --quiet ;;
  setup) setup_job ;;
  run) run_job ;;
  tail) tail_job "--node=$node" "--worker=$worker" ;;
  stop) stop_job ;;
esac
