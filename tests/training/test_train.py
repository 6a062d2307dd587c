import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import jax
import numpy as np
import pytest
from etils import epath
from flax.traverse_util import flatten_dict
from PIL import Image

from lumiere_jax.cascade.state import POWER_WIDTHS
from lumiere_jax.checkpoints import averages, checkpoint
from lumiere_jax.checkpoints.exporting import export
from lumiere_jax.data import sources
from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.models.parameters import merge
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.training import samples
from lumiere_jax.training import train as training
from lumiere_jax.training.reporting import NonFiniteError
from tests.tiny_runs import (
    ONE_STEP,
    SMALLEST,
    STEPS,
    assert_same_arrays,
    metric,
    saved_arrays,
    tiny_config,
    train,
    training_command,
)

REPOSITORY = Path(__file__).parents[2]
KILLED_RUN = SMALLEST | {"train__num_steps": 16, "train__checkpoint_every": 4}


def start_training(
    workdir: Path, devices: int, program: str = "", *flags: str, **fields
) -> subprocess.Popen:
    """The ordinary command, with the shrunken config set by its flags."""
    xla_flags = os.environ["XLA_FLAGS"] + f" --xla_force_host_platform_device_count={devices}"
    warm, *arguments = training_command("t2i", workdir, **KILLED_RUN | fields)
    return subprocess.Popen(
        [program or warm, *arguments, *flags],
        cwd=REPOSITORY,
        env=os.environ | {"XLA_FLAGS": xla_flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[str, str]:
    stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == 0, stderr
    return stdout, stderr


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_run_that_is_killed_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """Of eight devices; the processes share a step that the first of them compiled and kept."""
    monkeypatch.setenv("JAX_LOG_COMPILES", "1")
    flag, compiled = f"--programs={tmp_path}/programs", "XLA compilation of jit(step_function)"
    eight = {"train__batch_size": 8}
    stdout, stderr = finish(start_training(tmp_path / "whole", 8, sys.executable, flag, **eight))
    assert "INFO" not in stderr and "oneDNN" not in stderr
    (path,) = (tmp_path / "programs").iterdir()
    assert "there is no training step" in stdout and f"is kept in {path}" in stdout
    assert compiled in stderr
    monkeypatch.delenv("JAX_LOG_COMPILES")  # nobody reads it meanwhile, and a full pipe holds up
    process = start_training(tmp_path / "killed", 8, "", flag, **eight)
    wait_for(tmp_path / "killed" / "checkpoints" / "8", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "checkpoints" / "16").exists()
    monkeypatch.setenv("JAX_LOG_COMPILES", "1")
    stdout, stderr = finish(start_training(tmp_path / "killed", 8, "", flag, **eight))
    assert "restored step" in stdout and "compiling" not in stderr  # its programs were kept
    assert f"the training step was made ahead: loaded {path}" in stdout and compiled not in stderr
    head, _, program = path.read_bytes().partition(b"\n")
    head = json.loads(head)
    assert head["program"] == "training step" and head["bytes"] == len(program)
    assert head["key"]["devices"].startswith("8 × cpu")
    for name in ("loss", "gradient_norm"):
        whole = metric(tmp_path / "whole", name)
        assert list(whole) == list(range(1, 17))
        assert metric(tmp_path / "killed", name) == whole
    arrays = saved_arrays(tmp_path / "whole", 16)
    assert_same_arrays(arrays, saved_arrays(tmp_path / "killed", 16))
    assert len({array.tobytes() for array in arrays.values()}) > 100  # not all zeros


def test_interrupt_is_told_in_one_line_and_the_run_goes_on(tmp_path):
    process = start_training(tmp_path, 1, train__num_steps=100_000)
    wait_for(tmp_path / "checkpoints" / "4", process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 130
    assert stderr.endswith("\ninterrupted\n") and "Traceback" not in stderr
    assert "stopping after this step" in stderr
    newest = len(metric(tmp_path, "loss"))  # not one step is lost
    assert f"saved step {newest};" in stdout and saved_arrays(tmp_path, newest)
    assert list(metric(tmp_path, "loss")) == list(range(1, newest + 1))


def test_a_second_run_is_kept_out_of_a_workdir_and_a_killed_one_is_not_waited_for(tmp_path):
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print(flush=True); input()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match="is used by another training that runs"):
            train(tiny_config("t2i", **ONE_STEP), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        other.kill()
    with training._claimed(epath.Path(tmp_path)), pytest.raises(UserError):
        train(tiny_config("t2i", **ONE_STEP), tmp_path)


def test_the_watchdog_hears_of_what_takes_long_between_steps(tmp_path, monkeypatch):
    """Or it would end a healthy run of many hosts while they evaluate, sample or compile."""
    heard = []

    class Watchdog(training.Watchdog):
        def beat(self, note):
            heard.append(note)
            super().beat(note)

        @contextlib.contextmanager
        def paused(self):
            heard.append("compiling")
            with super().paused():
                yield

    monkeypatch.setattr(training, "Watchdog", Watchdog)
    due = {"train__eval_every": 1, "train__eval_batches": 2, "train__sample_every": 1}
    config = tiny_config("t2i", **SMALLEST | ONE_STEP | due)
    training.train(config, tmp_path)  # nothing is compiled already
    assert heard[-1] == "step 1" and heard.count("step 1") == 1
    clips = len(config.sampling.prompts)
    between = due["train__eval_batches"] + clips * config.sampling.num_steps
    assert heard.count("what is due after step 1") == between
    assert heard.count("compiling") >= 2  # held-out losses, and a step of the sampler
    assert heard[0] == "compiling"


class Interruption(Exception):
    pass


def test_stunet_resumes_bit_for_bit_and_a_finished_run_does_nothing(
    cascade, tmp_path, monkeypatch, capsys
):
    """In this process: frozen parameters, held-out loss and best checkpoints, all resumed."""
    config = tiny_config("stunet", cascade["t2i"])

    def interrupt(*arguments):
        raise Interruption

    with monkeypatch.context() as patch, pytest.raises(Interruption):
        # Step 2 is saved, and then the run stops while it writes samples.
        patch.setattr(samples, "write_training_samples", interrupt)
        train(tiny_config("stunet", cascade["t2i"], train__sample_every=2), tmp_path)
    assert list(metric(tmp_path, "loss")) == [1, 2]
    config.init_from = str(tmp_path / "moved")  # it was needed for the start alone
    shown = []
    monkeypatch.setattr(samples, "write_training_samples", lambda *given: shown.append(given[3]))
    state = train(config, tmp_path)
    assert "restored step 2" in capsys.readouterr().out
    for name in ("loss", "gradient_norm", "eval_loss"):
        assert metric(tmp_path, name) == metric(cascade["stunet"], name)
    for step in (2, STEPS):
        assert_same_arrays(saved_arrays(tmp_path, step), saved_arrays(cascade["stunet"], step))

    # What an interruption in the last step would have left out is made up for.
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert "eval_loss" in lines[-1]
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:-1]))
    train(config, tmp_path)
    assert shown == [STEPS, STEPS]
    assert metric(tmp_path, "eval_loss") == metric(cascade["stunet"], "eval_loss")

    samples.sheet(tmp_path, STEPS).parent.mkdir(parents=True)
    samples.sheet(tmp_path, STEPS).touch()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    again = train(config, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before and len(shown) == 2
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_what_a_run_leaves(cascade):
    for stage, frames in (("stunet", 8), ("ssr", 8)):
        workdir = cascade[stage]
        assert list(metric(workdir, "eval_loss")) == [2, 4]
        assert all(0 < loss < 10 for loss in metric(workdir, "eval_loss").values())
        folder = workdir / "samples" / f"{STEPS:08d}"
        with Image.open(folder / "samples.png") as sheet:
            sheet.load()
            assert sheet.width > 128
        for name in ("00", "01"):
            with Image.open(folder / f"{name}.gif") as gif:
                assert gif.n_frames == frames
            with av.open(folder / f"{name}.mp4") as video:
                assert sum(1 for _ in video.decode(video=0)) == frames
        assert json.loads((workdir / "config.json").read_text())["stage"] == stage
    for workdir in cascade.values():
        with Image.open(workdir / "loss.png") as plot:
            plot.load()
            assert len(plot.convert("RGB").getcolors(1 << 20)) > 10
        assert list(workdir.glob("events.out.tfevents.*"))
        rates = metric(workdir, "clips_per_second"), metric(workdir, "steps_per_second")
        for step, clips in rates[0].items():
            assert clips == 2 * rates[1][step] > 0


@dataclasses.dataclass
class BrokenSource:
    """Shapes, of which one clip is not finite."""

    source: MovingShapes
    fingerprint: str = "broken"

    def __len__(self):
        return 2  # both are in every batch

    def example(self, index, seed=0):
        video, caption = self.source.example(index, seed)
        return (video * np.float32(np.inf) if index else video), caption


def test_loss_that_is_not_finite_names_the_first_leaf(tmp_path, monkeypatch):
    source = BrokenSource(MovingShapes(num_frames=1, resolution=16))
    monkeypatch.setattr(training.sources, "create_source", lambda *_: source)
    with pytest.raises(NonFiniteError, match=r"step 1: loss nan.*gradient of '\w+/\w+(/\w+)*'"):
        train(tiny_config("t2i", train__checkpoint_every=1, **SMALLEST), tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert not (tmp_path / "loss.png").exists()


@pytest.mark.parametrize(
    ("stage", "fields", "message"),
    [
        ("t2i", {"stage": "vae"}, "stage 'vae' is unknown"),
        ("t2i", {"model__name": "vit"}, "model.name 'vit' is unknown"),
        ("t2i", {"data__name": "imagenet"}, "no data source 'imagenet'"),
        ("t2i", {"data__size": 1}, "1 clips, fewer than the global batch of 2"),
        ("t2i", {"optimizer__name": "sgd"}, "optimizer.name 'sgd'"),
        ("t2i", {"data__resolution": 17}, "17×17 is not divisible by 2"),
        ("stunet", {"data__num_frames": 7}, "7 frames are not divisible by 2"),
        ("stunet", {}, "starts from a trained stage 't2i'.*init_from"),
        ("ssr", {}, "starts from a trained stage 't2i_ssr'.*init_from"),
        ("t2i", {"init_from": "stunet"}, "stage 'stunet'; stage 't2i' starts from another run of"),
        ("stunet", {"init_from": "ssr"}, "of stage 'ssr'; stage 'stunet'.*from stage 't2i'"),
        ("stunet", {"init_from": "nowhere"}, "no checkpoint in .*nowhere"),
        (
            "stunet",
            {"init_from": "t2i", "model__widths": (16, 16)},
            r"model.widths=\(8, 16\), .* asks for \(16, 16\).*same model fields",
        ),
        (
            "stunet",
            {"init_from": "t2i", "model__layers_per_level": 0},
            "model.layers_per_level=1, .* asks for 0.*same model fields",
        ),
        (
            "stunet",
            {"init_from": "t2i", "text__dim": 32},
            r"text.dim=\d+, .* asks for 32",
        ),
        (
            "stunet",
            {"init_from": "t2i", "diffusion__prediction": "epsilon"},
            "diffusion.prediction='x0', but .* 'epsilon'.*another --config.init_from",
        ),
    ],
)
def test_run_that_cannot_start(cascade, tmp_path, stage, fields, message):
    config = tiny_config(stage, **fields)
    if config.init_from:
        config.init_from = str(cascade.get(config.init_from, tmp_path / config.init_from))
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["t2i", "stunet", "ssr"])
def test_a_run_starts_from_the_weights_of_another_of_its_stage(cascade, tmp_path, capsys, name):
    config = tiny_config(name, cascade[name], optimizer__learning_rate=0.0, **ONE_STEP)
    state = train(config, tmp_path / "further")
    assert f"initializing from step {STEPS} of {cascade[name]}" in capsys.readouterr().out
    expected = flatten_dict(checkpoint.load(cascade[name])[1])
    params = flatten_dict(merge(state.trainable, state.frozen))
    assert params.keys() == expected.keys()
    for path, array in params.items():
        np.testing.assert_array_equal(array, expected[path], err_msg="/".join(path))


def test_a_mixture_is_trained_and_resumed_but_not_on_other_data(tmp_path, capsys):
    def run(num_steps, size=70, **fields):
        shapes = {"name": "moving_shapes", "max_objects": 2, "weight": 3}
        mixture = (shapes, {"name": "moving_shapes", "size": size})
        data = {"data__name": "mixture", "data__mixture": mixture, "data__flip": True}
        fields = SMALLEST | data | {"train__ema_snapshots": 2} | fields
        return train(tiny_config("t2i", train__num_steps=num_steps, **fields), tmp_path / "mixed")

    run(2)
    with pytest.raises(UserError, match="trained on the data mixture-.*allow_other=True"):
        run(4, size=71)
    run(4)
    assert "restored step 2" in capsys.readouterr().out
    saved, _, step = checkpoint.load(tmp_path / "mixed")
    assert step == 4
    source = sources.create_source(saved.data, "train")
    assert source.fingerprint == saved.data.fingerprint and source.slots == (750, 250)
    # As if it had ended before it wrote its snapshot, and had been further before.
    snapshots = tmp_path / "mixed" / "ema_snapshots"
    (snapshots / "4").rename(snapshots / "9")
    run(4)
    assert {path.name for path in snapshots.iterdir()} == set("124")
    state = run(5, size=71, data__allow_other=True)
    assert checkpoint.load(tmp_path / "mixed")[0].data.fingerprint != source.fingerprint
    check_choice_of_average(tmp_path, state)


def check_choice_of_average(folder, state):
    """Of a run that kept snapshots after its steps 1, 2, 4 and 5."""
    assert {path.name for path in (folder / "mixed" / "ema_snapshots").iterdir()} == set("1245")
    for name, width in POWER_WIDTHS.items():
        export([str(folder / "mixed")], folder / name, "float32", ema_width=width)
        exported, expected = (
            flatten_dict(tree)
            for tree in (checkpoint.load(folder / name / "t2i")[1], state.powers[name])
        )
        assert exported.keys() == expected.keys()
        for path, array in expected.items():
            np.testing.assert_allclose(exported[path], array, rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match=r"--ema_width=0.01: 4 snapshots .* no nearer .* 0.05 or"):
        export([str(folder / "mixed")], folder / "narrower", ema_width=0.01)
    with pytest.raises(UserError, match="has no snapshots.*train.ema_snapshots=20"):
        averages.load(folder, 0.1)


def test_folder_with_too_few_videos(tmp_path):
    (tmp_path / "videos").mkdir()
    config = tiny_config("t2i", data__name="video_folder", data__folder=str(tmp_path / "videos"))
    with pytest.raises(UserError, match="videos"):
        train(config, tmp_path / "run")


def test_workdir_that_cannot_be_one(tmp_path):
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "run", "/proc/run"):
        with pytest.raises(UserError, match=f"--workdir={workdir} cannot be used"):
            train(tiny_config("t2i"), workdir)
