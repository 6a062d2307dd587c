"""Real videos by real (tiny) pipelines, as a worker makes them."""

import json
import shutil
import threading
import time

import numpy as np
import pytest

from lumiere_jax.data.video_io import read_comment, read_video
from lumiere_jax.inference.outputs import write_viewable
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving.queue import Job
from lumiere_jax.serving.runner import JobError, Runner
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.watch import Stopped, Watch
from tests.serving.live import PROMPT
from tests.serving.test_uploads import mask, picture, video


def job(task="text_to_video", **options) -> Job:
    names = ("batch_key", "worker", "lease_until", "progress", "video_bytes", "error")
    empty = dict.fromkeys((*names, "started_at", "finished_at"))
    options = {"prompt": PROMPT, "negative_prompt": "", "seed": 0, "base_only": True} | options
    return Job(
        id="0" * 36, task=task, state="running", options=options, attempts=1, previews=0,
        created_at=0.0, client=None, **empty
    )  # fmt: skip


@pytest.fixture(name="runner", scope="module")
def fixture_runner(bundle, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    yield Runner(Settings(bundle=bundle, database="", scratch=scratch))
    assert list(scratch.iterdir()) == []


def pixels(content, tmp_path):
    (tmp_path / "made.mp4").write_bytes(content)
    return read_video(tmp_path / "made.mp4", fps=8)


def test_the_video_is_the_pipelines_own(runner, bundle, tmp_path):
    watch = Watch(2)
    (made,) = runner.run([job(seed=7, base_only=False)], {}, watch)
    assert watch.progress()["fraction"] == 1 and len(watch.previews(1)) == 1
    pipeline = LumierePipeline.from_pretrained(bundle, show_progress=False)
    (wanted,) = pipeline([PROMPT], seeds=[7])
    write_viewable(tmp_path / "wanted.mp4", wanted, 8, PROMPT)
    np.testing.assert_array_equal(
        pixels(made, tmp_path), read_video(tmp_path / "wanted.mp4", fps=8)
    )
    note = json.loads(read_comment(tmp_path / "made.mp4"))
    assert note["flags"]["seed"] == 7 and note["command"] == "sample"
    assert note["checkpoints"] == pipeline.fingerprints() and str(bundle) not in json.dumps(note)


def test_a_batch_gives_each_job_its_own_video(runner, tmp_path):
    jobs = [job(seed=seed, prompt=f"{PROMPT} {seed}") for seed in range(3)]
    together = runner.run(jobs, {}, Watch(1))
    for one, made in zip(jobs, together, strict=True):
        (alone,) = runner.run([one], {}, Watch(1))
        difference = np.abs(pixels(alone, tmp_path).astype(int) - pixels(made, tmp_path))
        assert difference.mean() < 2
    first, second = (pixels(made, tmp_path).astype(int) for made in together[:2])
    assert np.abs(first - second).mean() > 5


def test_jobs_of_a_batch_have_their_own_numbers(runner, tmp_path):
    own = [{}, {"guidance_scale": 30.0}, {"time_power": 2.0, "threshold_percentile": 50.0}]
    jobs = [job(steps=3, **numbers) for numbers in own]
    together = [pixels(made, tmp_path).astype(int) for made in runner.run(jobs, {}, Watch(1))]
    for one, made in zip(jobs, together, strict=True):
        (alone,) = runner.run([one], {}, Watch(1))
        assert np.abs(pixels(alone, tmp_path) - made).mean() < 1
    first, second, third = together
    assert np.abs(first - second).mean() > 3 and (first != third).any()


def test_steps_are_placed_where_it_was_asked(runner, tmp_path):
    even, placed = (
        pixels(runner.run([one], {}, Watch(1))[0], tmp_path)
        for one in (job(steps=3), job(steps=3, time_power=2.0))
    )
    assert (even != placed).any()


def test_a_style_is_mixed_in_and_taken_out_again(runner, tmp_path):
    plain, styled, again = (
        pixels(runner.run([one], {}, Watch(1))[0], tmp_path)
        for one in (job(), job("stylize", style="style", alpha=1.0), job())
    )
    np.testing.assert_array_equal(plain, again)
    assert (plain != styled).any()


@pytest.mark.parametrize(
    ("task", "names", "options", "frames"),
    [
        ("video_to_video", ["video"], {"strength": 0.5}, 8),
        ("animate", ["image"], {"fit": "pad", "num_frames": 6}, 6),
        ("inpaint", ["video", "mask"], {"feather": 1}, 8),
        ("outpaint", ["video"], {"zoom": 0.8}, 8),
        ("cinemagraph", ["image", "mask"], {"paste": False}, 8),
        ("extend", ["video"], {"num_frames": 4, "context": 2}, 12),
    ],
)
def test_tasks_with_files(runner, tmp_path, task, names, options, frames):
    files = {"image": picture(), "mask": mask(), "video": video(tmp_path, 8)}
    one = job(task, steps=1, **options)
    watch = Watch(runner.stages(one))
    (made,) = runner.run([one], {name: files[name] for name in names}, watch)
    assert len(pixels(made, tmp_path)) == frames
    assert watch.progress()["fraction"] == 1


def test_stages_are_counted(runner):
    assert runner.stages(job()) == 1 and runner.stages(job(base_only=False)) == 2
    # Parts of 8 frames of which 2 are shown: 6 new ones each.
    assert runner.stages(job("extend", num_frames=13)) == 3
    assert runner.stages(job("extend", num_frames=12, context=4, base_only=False)) == 4


def test_what_the_pipeline_refuses_is_told_without_paths(runner, tmp_path):
    with pytest.raises(JobError, match="context=9 must be") as caught:
        runner.run([job("extend", num_frames=1, context=9)], {"video": video(tmp_path)}, Watch(1))
    assert "/" not in str(caught.value)


def test_stopped_in_the_middle_of_sampling(runner):
    watch = Watch(1)
    failures = []

    def make():
        try:
            runner.run([job(steps=20_000)], {}, watch)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    while watch.progress()["step"] < 2:
        time.sleep(0.05)
    watch.stop()
    thread.join(300)
    assert not thread.is_alive() and isinstance(failures[0], Stopped)
    assert runner.run([job()], {}, Watch(1))


def test_weights_that_are_gone_are_noticed_as_they_are_loaded(bundle, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    runner = Runner(Settings(bundle=folder, database="", scratch=tmp_path))
    shutil.rmtree(folder / "stunet_conditional")
    with pytest.raises(UserError):
        runner.load(job("animate"))
    runner.load(job())


def test_old_programs_are_forgotten(runner):
    """Clients may ask for ever new lengths."""
    programs = runner._pipeline("stunet").programs
    assert programs is runner._pipeline("stunet_conditional").programs
    programs._most, before = 2, programs._most
    try:
        runner.run([job(steps=1)], {}, Watch(1))
        assert before == 64 and len(programs) == 2
    finally:
        programs._most = before


def test_it_says_when_it_compiles():
    watch = Watch(1)
    watch.start("base", 2)
    assert watch.progress()["stage"] == "base"
    watch.compiling()
    assert watch.progress()["stage"] == "compiling"
    watch.advance()
    assert watch.progress()["stage"] == "base"
