import hashlib
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from lumiere_jax.data.video_io import read_video
from lumiere_jax.evaluation.generation import Generator, LoadedGenerator, Request
from lumiere_jax.runtime.errors import UserError


class Pipeline:
    """Makes clips of one colour, which the seed alone decides."""

    fps = 8.0

    def __init__(self):
        self.batches = []

    def __call__(self, prompts, *, seeds, batch_size, num_steps):
        assert len(prompts) == len(seeds) == min(batch_size, 7) and num_steps == 2
        self.batches.append(list(seeds))
        return np.stack([np.full((4, 8, 8, 3), seed / 100 - 1, np.float32) for seed in seeds])


REQUESTS = [Request(f"class/{i:02d}_0", f"prompt {i}", 10 * i) for i in range(7)]


def run(output, pipeline, *, settings=None, poll=lambda: None, suffix="mkv", batch=3):
    generator = Generator(base=output, suffix=suffix, options={"num_steps": 2})
    loaded = LoadedGenerator(generator, pipeline, {"weights": "a", "batch": batch}, batch)
    (folder,) = loaded.generate(output, settings or {"step": 7}, {0: REQUESTS}, poll)
    return folder


def contents(folder) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_request_has_its_file(tmp_path):
    pipeline = Pipeline()
    folder = run(tmp_path, pipeline)
    assert pipeline.batches == [[0, 10, 20], [30, 40, 50], [60, 60, 60]]
    for request in REQUESTS:
        video = read_video(folder / f"{request.name}.mkv", fps=8)
        assert video.shape == (4, 8, 8, 3)
        assert (np.abs(video - request.seed * 1.275) < 0.51).all()


def test_batches_stay_the_same_after_an_interruption(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Pipeline(), poll=interrupt)
    assert len(contents(tmp_path / "cut")) == 3 + 1
    videos = tmp_path / "cut" / "videos" / "0" / "class"
    (videos / "01_0.mkv").unlink()
    times = (videos / "00_0.mkv").stat().st_mtime_ns
    pipeline = Pipeline()
    run(tmp_path / "cut", pipeline)
    assert pipeline.batches == [[0, 10, 20], [30, 40, 50], [60, 60, 60]]
    assert (videos / "00_0.mkv").stat().st_mtime_ns == times  # written once
    run(tmp_path / "whole", Pipeline())
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    pipeline = Pipeline()
    run(tmp_path / "cut", pipeline)
    assert pipeline.batches == []


def test_finished_videos_stay_with_another_size_of_batches(tmp_path):
    run(tmp_path, Pipeline())
    note = tmp_path / "videos" / "0" / "generation.json"
    before = json.loads(note.read_text())
    assert before["model"] == {"weights": "a"}
    before["model"]["batch"] = "3"  # as it was noted once
    note.write_text(json.dumps(before))
    (note.parent / "class" / "01_0.mkv").unlink()
    pipeline = Pipeline()
    run(tmp_path, pipeline, batch=8)
    assert pipeline.batches == [[10 * i for i in range(7)]]


@pytest.mark.parametrize(("given", "parts", "size", "told"), [
    (None, 1, 8, ""), (None, 32, 32, "batch_size=32: it fills the devices"),
    (8, 32, 8, "filled up with 24 copies.*32 videos take no longer"), (64, 32, 64, ""),
])  # fmt: skip
def test_a_batch_fills_the_devices_or_says_so(tmp_path, capsys, given, parts, size, told):
    mesh = SimpleNamespace(shape={"data": parts, "fsdp": 1, "space": 1})
    assert Generator(base=tmp_path, batch_size=given)._batch_size(mesh) == size
    out = capsys.readouterr()
    assert re.search(told, out.out + out.err) if told else not out.out + out.err


def test_other_settings_are_refused(tmp_path):
    run(tmp_path, Pipeline())
    before = contents(tmp_path)
    with pytest.raises(
        UserError, match="made with other settings .step: 7, now 8.; give another --output"
    ):
        run(tmp_path, Pipeline(), settings={"step": 8})
    assert contents(tmp_path) == before


def test_videos_of_which_nothing_is_known_are_refused(tmp_path):
    run(tmp_path, Pipeline())
    (tmp_path / "videos" / "0" / "generation.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(UserError, match="does not say how its videos were made; give another"):
        run(tmp_path, Pipeline())
    assert contents(tmp_path) == before


def test_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be used"):
        run(tmp_path / "file", Pipeline())


def test_mp4(tmp_path):
    run(tmp_path, Pipeline(), suffix="mp4")
    assert len(list(tmp_path.rglob("*.mp4"))) == 7
