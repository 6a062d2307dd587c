#!/usr/bin/env bash
# Plans the full configs for TPU slices, one after the other, and prints tables. Hours on 2 cores;
# what is done is kept in .cache/plan, so the same command goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
output=benchmarks/results/plans.jsonl
mkdir -p benchmarks/results
: >"$output.part"

plan() { # plan CONFIG[:VARIANT] TOPOLOGY FLAG...
  local config=${1%:*} variant=full topology=$2
  [[ $1 != *:* ]] || variant=${1#*:}
  shift 2
  "$python" -m lumiere_jax.plan --config="configs/$config.py:$variant" --topology="$topology" \
    --output="$output.part" "$@"
}

for slice in v5p:2x2x4=16 v5p:4x8x8=256 v5e:16x16=256 v6e:16x16=256; do
  plan stunet "${slice%=*}" --config.train.batch_size="${slice#*=}"
done
for slice in v5e:16x16 v6e:16x16; do
  plan stunet "$slice" --config.train.batch_size=256 --config.model.remat=full
done
plan ssr v5p:2x2x1 --config.train.batch_size=4
plan ssr v5e:4x4 --config.train.batch_size=16
plan ssr v5p:2x2x1 --mode=sample --config.mesh.data=1 --config.mesh.space=4
plan ssr v5e:4x4 --mode=sample --config.mesh.data=1 --config.mesh.space=16
plan stunet:if_xl v5p:2x2x4 --config.train.batch_size=16
plan t2i_ssr v5p:2x2x4 --config.train.batch_size=32
plan t2i v5p:2x2x4 --config.train.batch_size=128
for slice in v6e:2x4 tpu7x:2x2x1 v5p:2x2x1 v5e:4x4; do
  plan stunet "$slice" --mode=cascade --ssr=configs/ssr.py:full
done
mv "$output.part" "$output"
"$python" benchmarks/plan_table.py --input="$output"
