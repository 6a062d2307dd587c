# shellcheck shell=bash
# What the scripts of launch/ share: flags, messages, dry runs, and the job on TPU machines.
# Written for bash 3.2 too, which is what macOS brings.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
FOLDER=lumiere_job # in the home of every TPU machine: source, environment, log, exit code
REST=()

# What the flags of several scripts are without being given.
name="" zone="" project="" type="" version="" service_account="" spot="" dry_run=""
lines=100 grace=600 program=main
command=${1:-} # the first argument of the script

# --- Messages and commands ------------------------------------------------------------------

# fail MESSAGE: ends the script as a mistake of the user does.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# quoted WORD...: the words as one line that a shell reads back as the same words.
quoted() {
  local word line="" quote="'" escaped="'\\''" plain='^[A-Za-z0-9_./:=,@%+-]+$'
  for word in "$@"; do
    if [[ ! $word =~ $plain ]]; then word="'${word//$quote/$escaped}'"; fi
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# run COMMAND...: runs it, or prints it under --dry_run.
run() {
  if [[ $dry_run == true ]]; then quoted "$@"; else "$@"; fi
}

# meaning CODE: the exit code of a training process in words.
meaning() {
  case $1 in
    0) echo "done" ;;
    2) echo "a mistake in the command or config; its message says which" ;;
    75) echo "preempted after a checkpoint was saved; the same command continues" ;;
    76) echo "another process hangs or is gone; the same command continues" ;;
    124) echo "stopped by --timeout" ;;
    130) echo "interrupted" ;;
    137) echo "killed (SIGKILL): out of memory, or by hand" ;;
    143) echo "ended by SIGTERM before it could save" ;;
    *) echo "failed; the log says why" ;;
  esac
}

# --- Flags ----------------------------------------------------------------------------------

# is_in WORD LIST: whether a list, separated by spaces, has the word.
is_in() {
  case " $2 " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

# parse FLAGS SWITCHES ARGUMENT...: sets the variable `flag` for every --flag=VALUE (or --flag
# VALUE), "true" for every switch, and REST to what stands after --. Calls usage for --help.
parse() {
  local flags=$1 switches=$2 flag
  shift 2
  while (($#)); do
    flag=${1%%=*}
    flag=${flag#--}
    case $1 in
      --help | -h)
        usage
        exit 0
        ;;
      --)
        shift
        REST=(${@+"$@"})
        return
        ;;
      --*) ;;
      *) fail "unexpected argument '$1' (--help shows the usage; arguments of the program stand after --)" ;;
    esac
    if is_in "$flag" "$switches"; then
      [[ $1 != *=* ]] || fail "--$flag takes no value"
      printf -v "$flag" true
    elif ! is_in "$flag" "$flags"; then
      fail "unknown flag --$flag (--help lists the flags)"
    elif [[ $1 == *=* ]]; then
      printf -v "$flag" '%s' "${1#*=}"
    else
      (($# > 1)) && [[ $2 != --* ]] || fail "--$flag needs a value: --$flag=VALUE"
      printf -v "$flag" '%s' "$2"
      shift
    fi
    shift
  done
}

# require FLAG...: fails at the first flag without a value.
require() {
  local flag
  for flag in "$@"; do
    [[ -n ${!flag} ]] || fail "--$flag is missing (--help lists the flags)"
  done
}

# require_number FLAG LOWEST HIGHEST: fails where the flag is no whole number in this range.
require_number() {
  local value=${!1}
  if [[ ! $value =~ ^[0-9]{1,9}$ ]] || ((10#$value < $2 || 10#$value > $3)); then
    fail "--$1=$value: give a whole number from $2 to $3"
  fi
  printf -v "$1" '%s' $((10#$value))
}

# require_name FLAG: fails where the flag is no name that Google Cloud accepts.
require_name() {
  require "$1"
  [[ ${!1} =~ ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
    fail "--$1=${!1}: names have lower-case letters, digits and '-', and start with a letter"
}

# require_program: fails where --program is no job for several machines, or has no arguments.
require_program() {
  is_in "$program" "main eval" || fail "--program=$program: give main, which trains, or eval"
  ((${#REST[@]})) || fail "the arguments of lumiere_jax.$program are missing: put them after --"
}

# no_rest: fails where something stands after --.
no_rest() {
  ((${#REST[@]} == 0)) || fail "'$command' takes nothing after --, but there is '${REST[0]}'"
}

# runtime_version TYPE: the TPU software version for JAX on a slice of this type.
runtime_version() {
  case $1 in
    v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) fail "--type=$1: give v4-CORES, v5litepod-CHIPS, v5p-CORES or v6e-CHIPS, such as v5p-8" ;;
  esac
}

# locate: checks the flags that say which machines are meant, and sets `PLACE` to the last two.
locate() {
  require_name name
  require zone project
  PLACE=("--zone=$zone" "--project=$project")
}

# set_creation_flags VERSION_FLAG: sets `creation_flags` to what creating slices takes in common.
set_creation_flags() {
  require type
  [[ -n $version ]] || version=$(runtime_version "$type")
  creation_flags=("--accelerator-type=$type" "$1=$version"
    --scopes=https://www.googleapis.com/auth/cloud-platform)
  [[ -z $service_account ]] || creation_flags+=("--service-account=$service_account")
  [[ -z $spot ]] || creation_flags+=(--spot)
}

# --- The job on the machines of a slice -----------------------------------------------------
# These read the arrays GCLOUD (the command group), EVERYWHERE (the flags that reach all
# machines) and PLACE of the calling script.

# everywhere COMMAND...: runs a command on all machines, from their home folder.
everywhere() {
  run "${GCLOUD[@]}" ssh "$name" "${PLACE[@]}" "${EVERYWHERE[@]}" --command="$(quoted "$@")"
}

# setup_job: copies the last commit of this repository to all machines and installs it there.
setup_job() {
  local archive="${TMPDIR:-/tmp}/lumiere_jax.tar.gz" unpack
  if [[ -n $(git -C "$ROOT" status --porcelain --untracked-files=no) ]]; then
    echo "note: changes that are not committed are not copied" >&2
  fi
  run git -C "$ROOT" archive --format=tar.gz --output="$archive" HEAD
  run "${GCLOUD[@]}" scp "$archive" "$name:lumiere_jax.tar.gz" "${PLACE[@]}" "${EVERYWHERE[@]}"
  unpack="rm -rf $FOLDER/source && mkdir -p $FOLDER/source"
  unpack+=" && tar -xzf lumiere_jax.tar.gz -C $FOLDER/source && $FOLDER/source/launch/worker.sh install"
  everywhere bash -c "$unpack"
}

# run_job: starts the program with the arguments REST on all machines.
run_job() {
  require_program
  everywhere "$FOLDER/source/launch/worker.sh" start "--program=$program" -- "${REST[@]}"
}

# tail_job WHERE...: follows the log of the machine that these flags say.
tail_job() {
  require_number lines 1 1000000
  run "${GCLOUD[@]}" ssh "$name" "${PLACE[@]}" "$@" \
    --command="$(quoted "$FOLDER/source/launch/worker.sh" tail --lines="$lines")"
}

# stop_job: asks all processes to save and end.
stop_job() {
  require_number grace 1 86400
  everywhere "$FOLDER/source/launch/worker.sh" stop --grace="$grace"
}
