#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
The job on one TPU machine. tpu_vm.sh and queued_resource.sh call this on every machine.

    launch/worker.sh install
    launch/worker.sh start -- ARGUMENTS
    launch/worker.sh tail
    launch/worker.sh stop

  install   makes the environment ~/lumiere_job/venv from requirements.txt and the extras "tpu,eval"
  start     runs lumiere_jax.main with ARGUMENTS in the background, log in ~/lumiere_job/log
  tail      follows the log until the job ends, then ends with its exit code
  stop      sends SIGTERM and waits for the job to save and end

  --program=NAME    main, which trains, if not given, or eval (start)
  --lines=NUMBER    how much of the log to show first; 100 if not given (tail)
  --grace=SECONDS   how long to wait for the save; 600 if not given (stop)
  --dry_run         print the commands, run none
  --help            print this

The variable LUMIERE_PYTHON names another Python, LUMIERE_JOB another folder than ~/lumiere_job.
END
}

case $command in
  --help | -h) usage && exit 0 ;;
  install | start | tail | stop) shift ;;
  *) fail "give one of install, start, tail, stop, not '$command' (--help shows the usage)" ;;
esac
parse "program lines grace" "dry_run" "$@"

job=${LUMIERE_JOB:-$HOME/$FOLDER}
python=${LUMIERE_PYTHON:-$job/venv/bin/python}

# The machines bring an older Python than this project needs: uv fetches the right one.
install_environment() {
  local uv=(python3 -m uv)
  run env PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
  run "${uv[@]}" venv --quiet --python 3.11 --allow-existing "$job/venv"
  run "${uv[@]}" pip install --quiet --python "$job/venv/bin/python" \
    -r "$ROOT/requirements.txt" -e "${ROOT}[tpu,eval]"
}

is_running() {
  [[ -f $job/pid && ! -f $job/exit_code ]] && kill -0 "$(cat "$job/pid")" 2>/dev/null
}

start() {
  require_program
  local job_command=("$python" -u -m "lumiere_jax.$program" --distributed "${REST[@]}")
  if [[ $dry_run == true ]]; then
    run cd "$ROOT"
    run "${job_command[@]}"
    return
  fi
  ! is_running || fail "a job runs here already (process $(cat "$job/pid")): stop it first"
  mkdir -p "$job"
  rm -f "$job/pid" "$job/exit_code"
  printf '\n== %s %s\n' "$(date -u +%FT%TZ)" "$(quoted "${job_command[@]}")" >>"$job/log"
  cd "$ROOT"
  (supervise "${job_command[@]}") </dev/null >>"$job/log" 2>&1 &
  while [[ ! -f $job/pid ]]; do sleep 0.1; done
  echo "started process $(cat "$job/pid"); its log is $job/log"
}

# supervise COMMAND...: runs it, though the connection may end, and keeps its exit code.
supervise() {
  local status=0
  trap '' HUP
  "$@" &
  echo $! >"$job/pid.new"
  mv "$job/pid.new" "$job/pid"
  wait $! || status=$?
  echo "== exit code $status: $(meaning "$status")"
  echo "$status" >"$job/exit_code.new"
  mv "$job/exit_code.new" "$job/exit_code"
}

# await_exit_code: the supervisor writes it soon after the process has ended.
await_exit_code() {
  local tries
  for ((tries = 0; tries < 100; tries++)); do
    [[ ! -f $job/exit_code ]] || return 0
    sleep 0.1
  done
}

follow() {
  require_number lines 1 1000000
  if [[ $dry_run == true ]]; then
    run tail -n "$lines" -F "$job/log"
    return
  fi
  [[ -f $job/log ]] || fail "no job was started here: there is no $job/log"
  if is_running; then
    tail -n "$lines" -F --pid="$(cat "$job/pid")" "$job/log"
    await_exit_code
  else
    tail -n "$lines" "$job/log"
  fi
  [[ ! -f $job/exit_code ]] || exit "$(cat "$job/exit_code")"
}

stop() {
  require_number grace 1 86400
  if [[ $dry_run == true ]]; then
    run pkill -TERM --pidfile "$job/pid"
    return
  fi
  if ! is_running; then
    echo "no job runs here"
    return
  fi
  kill -TERM "$(cat "$job/pid")"
  while is_running; do
    ((SECONDS < grace)) || fail "the job still runs $grace s after SIGTERM; see $job/log"
    sleep 0.5
  done
  await_exit_code
  tail -n 1 "$job/log"
}

[[ $command == start ]] || no_rest
case $command in
  install) install_environment ;;
  start) start ;;
  tail) follow ;;
  stop) stop ;;
esac
