"""A check-up finds what would waste a run: each of sixteen faults, put back into a recipe.

The sixteen were found in the `full` configs, by calculation and small experiments, before anyone
trained them. Of some, no config can express the fault any more, and so no row looks for it:

- video-to-video handed the few steps of its strength to super-resolution, too (4);
- samplers returned NaN where the steps of a discrete schedule repeat (5);
- weights of a style were blended in bfloat16 (7);
- Adafactor took steps in proportion to a parameter (8), but what starts at zero has a row;
- untagged HD video was decoded by the matrix of SD (10);
- whole clips travelled as float32 and were cropped on the device (12), but bytes have a row.
"""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.data.folder import FolderReport
from lumiere_jax.data.limits import Limits
from lumiere_jax.data.sources import create_source
from lumiere_jax.data.video_io import write_mp4
from lumiere_jax.planning.check_up import finding, noise, optimization, report, run, source
from lumiere_jax.planning.check_up import input as data_input
from lumiere_jax.planning.check_up.finding import Finding
from lumiere_jax.planning.plan import Plan
from lumiere_jax.planning.topology import GIB
from lumiere_jax.text import TextConfig
from tests.tiny_runs import example_config, tiny_config, write_pictures
from tests.warm_python import REPOSITORY

DRAWN = ("a large red circle moving right on a plain black background",)
REAL = ("a dog runs along a beach",)


def stage_of(name, variant="full", /, **fields):
    """A stage of `configs/`, for shapes, with fields whose dots are written as `__`."""
    config = example_config(name, variant)
    fields = {field.replace("__", "."): value for field, value in fields.items()}
    config.update_from_flattened_dict(fields)
    return Stage.from_config(config, shapes_only=True)


def plan_of(stage, **fields):
    """What the compiler might say of a step of this stage on 256 chips."""
    train = stage.config.train
    known = {
        "config": "", "mode": "train", "topology": "v5p:4x8x8", "num_slices": 1, "chips": 256,
        "mesh": {"data": 16, "fsdp": 16, "space": 1}, "remat": "none", "batch": train.batch_size,
        "repeats": 1, "trainable": 10**9, "frozen": 10**9, "fits": True, "hbm": 95 * GIB,
        "needed": 80 * GIB, "arguments": 40 * GIB, "model_flops": 1.0, "seconds": 2.0,
        "compile_seconds": 60.0, "versions": {}, "date": "",
    }  # fmt: skip
    return Plan(**known | fields)


def rows_of(stage, **plan):
    return {row.name: row for row in report.without_data(stage, plan_of(stage, **plan))}


NOISE = {
    "diffusion__log_snr_shift": -3.6, "diffusion__interpolated_shift": False,
    "sampling__num_steps": 50, "sampling__last_log_snr": 0.0, "sampling__time_power": 1.0,
}  # fmt: skip

UPSAMPLED = {"ssr__augmentation": 0.1, "ssr__noise_on": "upsampled", "ssr__factor": 8}


@pytest.mark.parametrize(
    ("name", "fault", "cure", "row", "told"),
    [
        ("stunet", NOISE, NOISE | {"sampling__last_log_snr": 10.0}, "last sampling step",
         "log-SNR 3.3 after 50 steps: noise of 24.2 grey levels"),  # 1
        ("stunet", NOISE, NOISE | {"diffusion__interpolated_shift": True}, "training times",
         "10% for detail"),  # 2
        ("ssr", UPSAMPLED, UPSAMPLED | {"ssr__noise_on": "low_resolution"}, "augmentation",
         "noise of 4.4 grey levels"),  # 6
        ("t2i", {"data__name": "video_folder"}, {"data__name": "image_folder"}, "pictures",
         "1 of 1 sources give frames of videos"),  # 11
        ("ssr", {"ssr__crop": 1024}, {"ssr__crop": 256}, "bytes to a device", "whole clips"),  # 12
        ("stunet", {"sampling__prompts": DRAWN}, {"sampling__prompts": REAL}, "sample prompts",
         "1 of 1 are about drawn shapes"),  # 15
    ],
)  # fmt: skip
def test_fault_of_a_full_config_is_found_and_its_cure_is_ok(name, fault, cure, row, told):
    found = rows_of(stage_of(name, **fault))[row]
    assert found.verdict in ("look", "wrong") and told in found.figure and found.advice
    assert rows_of(stage_of(name, **cure))[row].verdict == "ok"


@pytest.mark.parametrize(
    ("name", "seconds"),  # on v5p (benchmarks/results/plans.jsonl), where they are known
    [("t2i", None), ("stunet", 3.2), ("t2i_ssr", None), ("ssr", 0.05), ("stunet_conditional", 3.2)],
)
def test_full_config_has_nothing_wrong(name, seconds):
    rows = rows_of(stage_of(name), seconds=seconds).values()
    assert [row for row in rows if row.verdict == "wrong"] == []


def test_last_step_of_a_distillations_teacher():  # 1
    config = example_config("stunet")
    with config.unlocked():
        config.distillation = {"start_steps": 32, "steps": (16,)}
    config.sampling.num_steps = 16
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in NOISE.items()})
    (row,) = noise.last_step(Stage.from_config(config, shapes_only=True))
    assert row.verdict == "wrong" and "after 32 steps: noise of 36.7" in row.figure


def test_video_stage_that_kept_the_shift_of_its_images():  # 3
    saved = REPOSITORY / "weights" / "small" / "t2i"
    kept, derived = (
        rows_of(
            stage_of("stunet", f"from={saved}", data__num_frames=16, diffusion__shift_by_frames=x)
        )
        for x in (False, True)
    )
    row = kept["shift"]
    assert row.verdict == "wrong" and "of which t2i had -2.5" in row.figure
    assert "--config.diffusion.log_snr_shift=-5.3" in row.advice
    assert derived["shift"].verdict == "ok"
    full = stage_of("stunet", diffusion__log_snr_shift=-1.4)
    assert rows_of(full)["shift"].verdict == "wrong"


def test_warm_up_that_outlasts_the_run():
    found = {
        steps: rows_of(stage_of("stunet", train__num_steps=steps, optimizer__warmup_steps=10_000))
        for steps in (1000, 30_000, 1_000_000)
    }
    assert [rows["warm-up"].verdict for rows in found.values()] == ["wrong", "look", "ok"]
    assert "--config.optimizer.warmup_steps=50" in found[1000]["warm-up"].advice


def test_optimizer_that_leaves_what_starts_at_zero(monkeypatch):  # 8
    config = stage_of("stunet").config.optimizer
    for name in ("adamw", "adafactor", "muon"):
        (row,) = optimization.zero_start(dataclasses.replace(config, name=name))
        assert row.verdict == "ok"
    (row,) = optimization.zero_start(dataclasses.replace(config, gradient_clip=0.0))
    assert row.verdict == "wrong"
    in_proportion = optax.adafactor(1e-4, multiply_by_parameter_scale=True)
    monkeypatch.setattr(optimization, "create_optimizer", lambda *_: in_proportion)
    (row,) = optimization.zero_start(config)
    assert row.verdict == "wrong" and "moves 0.0011 of" in row.figure


@pytest.fixture(name="small_slow", scope="module")
def fixture_small_slow(tmp_path_factory):
    """A folder with a video of 48×32 pixels at 8 frames/s, and one of 72×64 at 16."""
    folder = tmp_path_factory.mktemp("videos")
    generator = np.random.default_rng(0)
    for name, (height, width, fps) in {"small": (32, 48, 8), "good": (64, 72, 16)}.items():
        frames = generator.uniform(-1, 1, (2 * fps, height, width, 3)).astype(np.float32)
        write_mp4(folder / f"{name}.mp4", frames, fps)
        (folder / f"{name}.txt").write_text(f"noise that is {name}")
    return folder


def folder_config(folder, **fields):
    asked = {"data.name": "video_folder", "data.folder": str(folder), "data.num_frames": 16,
             "data.resolution": 64, "data.fps": 16, "sampling.prompts": REAL}  # fmt: skip
    config = tiny_config("stunet")
    config.update_from_flattened_dict(asked | fields)
    return Stage.from_config(config, shapes_only=True).config


def test_source_that_is_too_small_and_too_slow(small_slow):  # 9
    taken = {"data.min_size": 1, "data.min_rate": 0.0, "data.max_repeats": 1.0}
    config = folder_config(small_slow, **taken)
    looks = source.look(create_source(config.data, "train"), config.data)
    rows = {row.name: row for row in source.findings(looks, config)}
    assert rows["size of the source"].verdict == "wrong"
    assert "50% are enlarged, up to 2.0×" in rows["size of the source"].figure
    assert rows["rate of the source"].verdict == "wrong"
    assert "the slowest repeats 50% of its frames" in rows["rate of the source"].figure
    assert rows["repeated frames"].verdict == "look"  # a quarter of the frames of both
    assert rows["captions"].verdict == rows["files left out"].verdict == "ok"


def test_files_that_are_left_out_are_told(small_slow):
    config = folder_config(small_slow)
    looks = source.look(create_source(config.data, "train"), config.data)
    rows = {row.name: row for row in source.findings(looks, config)}
    assert rows["files left out"].verdict == "look"
    assert "50%, 1 are used: 1 too small" in rows["files left out"].figure
    sound = {name for name, row in rows.items() if row.verdict == "ok"}
    assert sound == rows.keys() - {"files left out"}


def test_each_source_of_a_mixture_has_its_rows(small_slow, tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    config = folder_config("", **{"data.name": "mixture", "data.min_size": 1})
    parts = ({"name": "video_folder", "folder": str(small_slow)},
             {"name": "image_folder", "folder": str(pictures)})  # fmt: skip
    data = dataclasses.replace(config.data, num_frames=1, mixture=parts)
    looks = source.look(create_source(data, "train"), data)
    rows = {row.name for row in source.findings(looks, dataclasses.replace(config, data=data))}
    assert {"size of the source (video_folder)", "captions (image_folder)"} <= rows
    assert "rate of the source (image_folder)" not in rows


def test_clips_that_were_prepared_without_limits():
    config = stage_of("stunet").config
    for least, verdict in ((0, "ok"), (1, "look")):
        limits = Limits(min_size=least)
        seen = source.Look(name="prepared", captions=("a dog",), limits=limits)
        (row,) = source.repeats(seen, config)
        assert row.verdict == verdict


def test_captions_that_say_nothing():
    config = stage_of("stunet").config
    verdicts = {
        ("a dog runs", "a cat sleeps"): "ok",
        ("a video", "a video", "a video"): "wrong",
        ("a dog runs", ""): "wrong",
        (" ".join(["long"] * 130), "a dog runs"): "look",
    }
    for captions, verdict in verdicts.items():
        (row,) = source.captions(source.Look(name="video_folder", captions=captions), config)
        assert row.verdict == verdict


def test_input_that_does_not_keep_up(monkeypatch):  # 13
    stage = stage_of("stunet")  # 256 clips in 2 s: 128 clips a second
    monkeypatch.setattr(data_input, "num_cores", lambda: 8)
    (row,) = data_input.rate(data_input.Delivery(160, 10.0, 1), plan_of(stage))
    assert row.verdict == "wrong" and "128 are needed" in row.figure and "16 from" in row.figure
    assert "wait for 88% of the time" in row.advice and "on each of 8 cores" in row.advice
    (row,) = data_input.rate(data_input.Delivery(2000, 10.0, 8), plan_of(stage))
    assert row.verdict == "ok"
    (row,) = data_input.rate(data_input.Delivery(160, 10.0, 1), plan_of(stage, seconds=None))
    assert row.verdict == "-"


def test_samples_that_take_their_share_of_the_time():  # 15
    often = {"sampling__prompts": REAL, "sampling__num_steps": 50, "train__sample_every": 500,
             "train__sample_minutes": 0.0, "train__eval_every": 0}  # fmt: skip
    stage = stage_of("stunet", **often)
    row = rows_of(stage)["samples, evaluation"]
    assert row.verdict == "wrong" and "6.2% of the time for samples" in row.figure  # 100 of 1600
    hourly = rows_of(stage_of("stunet", **often | {"train__sample_minutes": 60.0}))
    row = hourly["samples, evaluation"]
    assert row.verdict == "ok" and "1.8% of the time for samples (every 60 minutes)" in row.figure


def test_samples_that_do_not_fit():  # 14
    stage = stage_of("ssr")
    plan = plan_of(stage, mode="training_samples", fits=False, hbm=16 * GIB, needed=24 * GIB)
    (row,) = run.memory(plan)
    assert row.name == "memory of samples" and row.verdict == "wrong"


def test_clip_that_does_not_fit():  # 16
    fields = {"hbm": 16 * GIB, "needed": 44 * GIB, "advice": ["share a clip: mesh.space=2"]}
    row = rows_of(stage_of("stunet"), fits=False, **fields)["memory of a step"]
    assert row.verdict == "wrong" and row.figure == "44 of 16 GiB on a chip"
    assert "mesh.space=2" in row.advice


def test_length_and_checkpoints():
    stage = stage_of("stunet", train__num_steps=1800, train__checkpoint_every=10,
                     train__checkpoint_minutes=0.0)  # fmt: skip
    plan = plan_of(stage, trainable=GIB, frozen=GIB)
    (row,) = run.length(stage, plan, clips=2304)
    assert "200 epochs of 2,304; 1 hours, 256 chip-hours" in row.figure and row.verdict == "ok"
    (row,) = run.length(stage, plan, clips=255)
    assert row.verdict == "wrong"
    (row,) = run.checkpoints(stage, plan)  # two moments, average and parameter; bfloat16
    assert row.figure == "18 GiB every 10 steps, which are 20 s" and row.verdict == "look"


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_what_averaging_leaves_is_the_error_of_least_squares(factor):
    size = 24
    up = jax.image.resize(jnp.eye(size), (size * factor, size), "bilinear")
    covariance = np.linalg.inv(np.asarray(up, np.float64).T @ np.asarray(up, np.float64))
    middle = covariance[size // 2, size // 2]  # of both axes: its product with itself, rooted
    assert noise.left_by_averaging(factor) == pytest.approx(middle, rel=1e-3)
    mean_of_a_square = 1 / factor
    assert noise.left_by_averaging(factor) > mean_of_a_square


def test_measured_input_and_a_source_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(data_input, "SECONDS", 0.1)
    stage = Stage.from_config(tiny_config("t2i"), shapes_only=True)
    delivery = data_input.measure(stage, create_source(stage.config.data, "train"))
    assert delivery.clips >= 2 and delivery.seconds > 0 and math.isfinite(delivery.rate)
    without = dataclasses.replace(stage.config, text=TextConfig(name="t5", dim=64))
    stage = dataclasses.replace(stage, config=without)  # whose folder is not here
    assert data_input.measure(stage, create_source(stage.config.data, "train")).clips >= 2
    absent = Stage.from_config(
        tiny_config("stunet", data__name="video_folder", data__folder=str(tmp_path / "no")),
        shapes_only=True,
    )
    rows = {row.name: row for row in report.with_data(absent, plan_of(absent))}
    assert rows["source"].verdict == "look" and "there is no folder" in rows["source"].advice
    assert "are needed" in rows["clips a second"].figure


def test_example_of_the_page_has_every_row():
    page = (REPOSITORY / "docs" / "train.md").read_text()
    example = page.partition("```output")[2].partition("```")[0]
    shown = re.findall(r"^  (\S.*?)  +(?:ok|look|wrong|-)  ", example, re.MULTILINE)
    config = folder_config("clips")
    seen = source.Look(name="video_folder", captions=("a dog",), sizes=((64, 64),), rates=(16.0,),
                       report=FolderReport("clips", used=1))  # fmt: skip
    stage = Stage.from_config(config, shapes_only=True)
    samples = plan_of(stage, mode="training_samples")
    rows = [*report.of_config(stage), *source.findings([seen], config)]
    rows += report.of_run(stage, plan_of(stage), samples, data_input.Delivery(1, 1.0, 1), 1)
    assert shown == [row.name for row in rows]


def test_table_has_aligned_columns_and_advice_where_it_helps():
    rows = [Finding("a", "1", "ok", "unseen"), Finding("longer", "2 " * 60, "wrong", "help")]
    lines = finding.table(rows).splitlines()
    assert lines[0] == "check-up: 1 wrong, 0 to look at, 1 ok"
    assert lines[1] == "  a       ok     1" and lines[2].startswith("  longer  wrong  2 2")
    assert lines[-1] == " " * 17 + "→ help" and max(map(len, lines)) <= 100
