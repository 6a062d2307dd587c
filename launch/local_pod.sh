#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
A pod on this machine's CPU: some processes, each with some virtual devices.

    launch/local_pod.sh --processes=2 --devices=4 -- ARGUMENTS

Starts lumiere_jax.main (or eval) with ARGUMENTS in every process, puts the number of the process before
each line that it prints, hands SIGTERM and SIGINT on to all, waits for all, and ends with the
first exit code that is not 0: 75 after a preemption, and then the same command continues.

  --processes=NUMBER   how many processes, that is hosts; 2 if not given
  --devices=NUMBER     how many devices each has; 4 if not given
  --program=NAME       main, which trains, if not given, or eval
  --port=NUMBER        of the coordinator, on 127.0.0.1; a free one if not given
  --timeout=SECONDS    when to end all, with exit code 124; never if not given
  --dry_run            print the commands, run none
  --help               print this

The variable LUMIERE_PYTHON names another Python than .venv/bin/python, or else python3.
END
}

processes=2 devices=4 port="" timeout=""
parse "program processes devices port timeout" "dry_run" "$@"
require_number processes 1 1000
require_number devices 1 1000
[[ -z $port ]] || require_number port 1 65535
[[ -z $timeout ]] || require_number timeout 1 100000000
require_program

python=${LUMIERE_PYTHON:-$ROOT/.venv/bin/python}
[[ -n ${LUMIERE_PYTHON:-} || -x $python ]] || python=python3

# free_port: a port that nobody listens on, below those that the system hands out by itself.
free_port() {
  local candidate
  while true; do
    candidate=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null || break
  done
  echo "$candidate"
}
[[ -n $port ]] || port=$(free_port)

# set_process_command NUMBER: sets `process_command` to what the process with this number runs.
set_process_command() {
  process_command=(env
    "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port"
    "JAX_NUM_PROCESSES=$processes"
    "JAX_PROCESS_ID=$1"
    JAX_PLATFORMS=cpu
    "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices"
    "PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}"
    "$python" -u -m "lumiere_jax.$program" "${REST[@]}")
}

if [[ $dry_run == true ]]; then
  for ((i = 0; i < processes; i++)); do
    set_process_command "$i"
    run "${process_command[@]}"
  done
  exit
fi

# --- Start ----------------------------------------------------------------------------------

pids=()
printers=()
pipes=$(mktemp -d)

# forward SIGNAL: hands it to every process that still runs.
forward() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do
    [[ -z $pid ]] || kill -s "$1" "$pid" 2>/dev/null || true
  done
}

# print_with_prefix PREFIX: copies lines; a last one without an end is a line too.
print_with_prefix() {
  local line
  while IFS= read -r line || [[ -n $line ]]; do printf '%s%s\n' "$1" "$line"; done
}

trap 'forward KILL; rm -rf "$pipes"' EXIT
trap 'forward TERM' TERM HUP
trap 'forward INT' INT

# Under job control each process has a group of its own: Ctrl-C reaches this script alone, which
# hands it on, and processes in the background do not ignore it.
set -m
for ((i = 0; i < processes; i++)); do
  mkfifo "$pipes/$i"
  # Opened for both ways first, a pipe's ends do not wait for each other: a process that is ended
  # before it opens its own would leave the printer waiting for ever.
  exec 3<>"$pipes/$i"
  exec 4<"$pipes/$i"
  exec 5>"$pipes/$i" 3>&-
  print_with_prefix "[$i] " <&4 5>&- &
  printers+=($!)
  set_process_command "$i"
  "${process_command[@]}" >&5 2>&1 </dev/null 4<&- 5>&- &
  pids+=($!)
  exec 4<&- 5>&-
  echo "[pod] process $i is PID $!; 'kill -TERM $!' preempts it"
done
set +m

# --- Wait -----------------------------------------------------------------------------------

first=0 # the first exit code that is not 0
running=$processes
last_signal=""
while ((running)); do
  for ((i = 0; i < processes; i++)); do
    pid=${pids[i]}
    if [[ -n $pid ]] && ! kill -0 "$pid" 2>/dev/null; then
      code=0
      wait "$pid" || code=$?
      pids[i]=""
      running=$((running - 1))
      ((first)) || first=$code
      echo "[pod] process $i ended with exit code $code: $(meaning "$code")"
    fi
  done
  if [[ -n $timeout && -z $last_signal ]] && ((SECONDS >= timeout)); then
    echo "[pod] --timeout=$timeout: ending what still runs" >&2
    first=124 last_signal=TERM
    forward TERM
  elif [[ $last_signal == TERM ]] && ((SECONDS >= timeout + 10)); then
    last_signal=KILL # 10 s were enough to save and end
    forward KILL
  fi
  ((running == 0)) || sleep 0.2
done
for pid in "${printers[@]}"; do wait "$pid" || true; done
exit "$first"
