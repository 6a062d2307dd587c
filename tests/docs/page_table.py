"""For every page with code blocks, what they take to be there and what is run in their place.

A page that is not here fails a test, and so does a block that is neither a command, nor Python, nor
a table of captions, nor a listing of files that are there. What shrinks commands by flags is in
`shrinking.py`.
"""

import sys

from tests.docs.session import Page

MADE = "python -m tests.docs.made_files"
SMALL_CLIPS = {r"num_frames=16": "num_frames=8", r"resolution=32": "resolution=16"}

MAKING = {
    "README.md": Page(),
    "weights/small/README.md": Page(),
    "docs/quickstart.md": Page(after="test -s circle.mp4 && test -s square.mp4"),
    "docs/editing.md": Page(
        after="""
for name in moving edited wider cinemagraph new long longer styled again; do test -s $name.mp4; done
test -s sweep/contact_sheet.png
for name in moving edited styled; do test -s shipped_$name.mp4; done
""",
    ),
    "docs/bundles.md": Page(
        # A hub on this machine, which runs for the time of one block.
        replaced={r'pipeline = LumierePipeline.from_pretrained\("weights/small"\)\npipeline.push': (
            "from tests.docs.hub_here import LumierePipeline\n"
            'pipeline = LumierePipeline.from_pretrained("weights/small")\npipeline.push'
        )},
        after="test -s x.mp4 && ls programs/programs.json programs/ssr_step.stablehlo",
    ),
    "docs/study.md": Page(
        before=f"""{MADE} study .
# Serves until it says where, and is then ended as by Ctrl-C.
served() {{
  "$@" >served.txt & server=$!
  until grep -q http served.txt; do kill -0 $server; sleep 0.1; done
  kill -INT $server; wait $server || test $? = 130
  {MADE} answers study
}}""",
        replaced={r"(?m)^python -m lumiere_jax.study --mode=serve": r"served \g<0>",
                  r"--host=0\.0\.0\.0 --port=8000": "--port=0"},
        after="ls study/results.json study/results.png",
    ),
}  # fmt: skip

TRAINING = {
    "docs/train.md": Page(
        before="export WITH_SAMPLES=1",
        replaced={r"stunet\.py:small": "stunet.py:tiny"},  # of the weights that stand for ours
        after="ls runs/ssr/checkpoints runs/further/checkpoints",
    ),
    "docs/distillation.md": Page(
        after="test -s x.mp4 && grep -q student benchmarks/distillation.md"
    ),
    "docs/own_videos.md": Page(
        replaced=SMALL_CLIPS, after="test -s mine.mp4 && test -s clips/report.txt"
    ),
    "docs/data.md": Page(
        before=f"{MADE} ucf101 DATA; {MADE} videos clips; {MADE} pictures photos",
        replaced={
            r"resolution=32": "resolution=16",
            r"(?s)\Aconfig\.data\.name.*\Z": (
                "from configs.t2i import get_config\n"
                "from lumiere_jax.data.sources import create_source\n"
                'config = get_config("tiny")\n'
                r"\g<0>"
                'create_source(config.data, "train")\n'
            ),
        },
        elsewhere=(
            "DATA/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",  # of 101 classes, one
        ),
    ),
    "docs/recall.md": Page(
        before=f"{MADE} videos CLIPS && sed -i s/path/file/ CLIPS/captions.csv",
        replaced=SMALL_CLIPS,
        after="test -s recall.png",
    ),
    "benchmarks/README.md": Page(after="ls benchmarks/results/*.json"),
}

BEYOND = {
    # Minutes each; tests/serving has shorter ones of both.
    "benchmarks/serving/README.md": Page(before="export ONLY_FLAGS=1"),
    "docs/serving.md": Page(
        needs=("curl", "jq"),
        before=f"""{MADE} uploads .
{sys.executable} -m lumiere_jax.serve --bundle=weights/small --data=data --port=0 >served.txt 2>&1 &
trap "kill $!" EXIT
until ADDRESS=$(grep -o 'http://[0-9.:]*' served.txt); do kill -0 $!; sleep 0.1; done
echo "$ADDRESS" >address.txt""",
        replaced={
            r'"http://127\.0\.0\.1:8000/v1"': 'open("address.txt").read().strip() + "/v1"',
            r'"seed": 3\}': '"seed": 3, "steps": 1, "base_only": "true"}',
            r"http://127\.0\.0\.1:8000": "$ADDRESS",
        },
        after="test -s circle.mp4 && test -s preview.png && test -s circle_again.mp4",
    ),
    # What it copies to a bucket, and to a cluster, goes nowhere.
    "docs/serving_cluster.md": Page(needs=("openssl",), after="test -s api_keys.txt"),
    "docs/space.md": Page(replaced={r"hf upload .*": "ls space/app.py space/weights/small"}),
    "docs/evaluate.md": Page(
        before=f"{MADE} videos VIDEOS; {MADE} videos OTHER_VIDEOS",
        after="test -s scores/card.json",
    ),
    "docs/open_weights.md": Page(
        before=f"{MADE} deepfloyd .; {MADE} videos VIDEOS",
        replaced={
            r"--base=runs/if_t2i": r"--steps=2 \g<0>",
            r"# in Python: (.*)": r"python -c 'import diffusers; \1'",
        },
    ),
    "docs/text_encoders.md": Page(
        before=f"{MADE} t5 DOWNLOADED",
        after="test -s t5-v1_1-xxl/model.safetensors",
        elsewhere=("config.json", "model.safetensors", "spiece.model"),  # in t5-v1_1-xxl/
    ),
    "launch/README.md": Page(before="HOME_THERE=/home/someone"),
}

PAGES = MAKING | TRAINING | BEYOND
