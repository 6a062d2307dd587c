"""The eval binary as a user runs it, with the real weights of I3D."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lumiere_jax.data.pixels import to_uint8
from lumiere_jax.data.sources import create_source
from lumiere_jax.data.video_io import read_video, write_lossless, write_mp4
from lumiere_jax.evaluation import command, tasks
from lumiere_jax.evaluation.clips import ClipRule
from lumiere_jax.evaluation.features import BLOCK
from lumiere_jax.evaluation.profiles import PROFILES
from lumiere_jax.metrics import i3d_weights
from lumiere_jax.metrics.frechet import Moments
from lumiere_jax.runtime import errors
from tests.evaluation import small_network
from tests.pod.local_processes import LocalPod
from tests.warm_python import python

REPOSITORY = Path(__file__).parents[2]
RULE = ClipRule(num_frames=9)
SMALL = "tests.evaluation.small_network"


@pytest.fixture(scope="module", autouse=True)
def fixture_weights(tmp_path_factory):
    """Weights converted once, for this process and those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        i3d_weights.load()
        yield


@pytest.fixture(scope="module", name="videos")
def fixture_videos(tmp_path_factory) -> Path:
    """Moving noise: two blocks of faded clips, and a few as they are; I3D takes long here."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for index in range(BLOCK + 2):
        clip = np.cumsum(rng.normal(size=(10, 16, 16, 3)), axis=0).clip(-1, 1).astype(np.float32)
        for name, video, count in (("real", clip, 4), ("generated", 0.3 * clip, BLOCK + 2)):
            (folder / name).mkdir(exist_ok=True)
            if index < count:
                write_lossless(folder / name / f"{index:02d}.mkv", video, 8)
    return folder


def flags(videos: Path, output: Path, *more: str, program: str = SMALL) -> list[str]:
    return [
        *(python(), "-m", program),
        f"--generated={videos}/generated",
        f"--real={videos}/real",
        f"--output={output}",
        "--num_frames=9",
        "--bootstrap=2",
        *more,
    ]


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        arguments, cwd=REPOSITORY, env=os.environ | environment, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip


def read_card(output: Path) -> dict:
    """All of the card but where and when it was made."""
    result = json.loads((output / "card.json").read_text())
    assert result.pop("run")["packages"]["jax"]
    return result


@pytest.fixture(scope="module", name="card")
def fixture_card(videos, tmp_path_factory) -> dict:
    """Of a few of the clips, by I3D."""
    output = tmp_path_factory.mktemp("scored")
    few = "--max_generated=4", "--max_real=3"
    arguments = flags(videos, output, *few, program="lumiere_jax.eval")
    result = run([*arguments, f"--save_statistics={output}/real.npz"])
    assert result.returncode == 0, result.stderr
    assert "PROTOCOL CARD" in result.stdout and "WARNING" in result.stdout
    again = run(arguments)
    assert again.returncode == 0 and read_card(output)["scores"]["FVD"]["mean"] > 0
    return read_card(output) | {"output": output}


def test_card_says_what_was_done(card, videos):
    assert set(card["scores"]) == {"FVD", "KVD", "IS-I3D-K400"}
    protocol = card["protocol"]
    assert protocol["generated"][0]["videos"] == 4 and protocol["real"]["videos"] == 3
    assert protocol["networks"][0]["sha256"] == i3d_weights.FINGERPRINT
    assert protocol["clip"]["frames"] == 9 and protocol["profile"] == "unterthiner"
    assert protocol["generated"][0]["pixels"] == ["16×16"]
    assert any("3 real videos are not more than" in warning for warning in card["warnings"])
    assert any("3 real and 4 generated videos" in warning for warning in card["warnings"])


@pytest.fixture(scope="module", name="whole")
def fixture_whole(videos, tmp_path_factory) -> dict:
    """The card of all clips, by the small network."""
    output = tmp_path_factory.mktemp("whole")
    result = run(flags(videos, output))
    assert result.returncode == 0, result.stderr
    return read_card(output)


def test_two_processes_give_the_same_card(whole, videos, tmp_path):
    with LocalPod(flags(videos, tmp_path / "out"), tmp_path / "logs", processes=2) as pod:
        assert pod.wait(timeout_s=900) == [0, 0], pod.output(0) + pod.output(1)
    assert read_card(tmp_path / "out") == whole


def test_killed_job_goes_on_to_the_same_card(whole, videos, tmp_path):
    killed = run(flags(videos, tmp_path), DIES_AFTER_A_BLOCK="1")
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("features/*/*.npz"))) == 1  # of two of the generated clips
    assert not (tmp_path / "card.json").exists()
    result = run(flags(videos, tmp_path))
    assert result.returncode == 0, result.stderr
    assert read_card(tmp_path) == whole


def test_saved_statistics_stand_for_the_videos(card, videos, tmp_path):
    statistics = card["output"] / "real.npz"
    shutil.copytree(card["output"] / "features", tmp_path / "features")  # saves their time
    settings = command.Settings(
        output=tmp_path,
        generated=(videos / "generated",),
        max_generated=4,
        real_statistics=statistics,
        rule=RULE,
        profile_name="unterthiner",
        profile=PROFILES["unterthiner"],
    )
    result = command.evaluate(settings)
    expected = card["scores"]["FVD"]["mean"]  # of another process, whose LAPACK may round otherwise
    assert result["scores"]["FVD"]["mean"] == pytest.approx(expected, rel=1e-12)
    changed = dataclasses.replace(settings, rule=ClipRule(num_frames=10))
    with pytest.raises(errors.UserError, match="num_frames 9, now 10"):
        command.evaluate(changed)
    notes = Moments.load(statistics)[1]
    notes.pop("reader")  # of a version that read videos otherwise, or the same way
    Moments.load(statistics)[0].save(tmp_path / "old.npz", **notes)
    old = dataclasses.replace(settings, real_statistics=tmp_path / "old.npz")
    with pytest.raises(errors.UserError, match=r"another version .*reader not stated, now \d+\)"):
        command.evaluate(old)


@pytest.fixture(name="small_network")
def fixture_small_network(monkeypatch):
    """In place of I3D, where its features do not matter."""
    monkeypatch.setattr(command, "i3d_network", small_network.network)


def test_held_out_captions_of_a_trained_cascade(cascade, small_network, tmp_path):
    generator = tasks.Generator(
        base=cascade["stunet"],
        ssr=(cascade["ssr"],),
        guide=cascade["stunet"],
        batch_size=2,
        options={"num_frames": 10, "num_steps": 1},
    )
    settings = command.Settings(
        output=tmp_path,
        task=tasks.HeldOut(generator=generator, num_videos=3, repeats=2),
        rule=RULE,
        profile_name="unterthiner",
        profile=PROFILES["unterthiner"],
    )
    result = command.evaluate(settings)
    assert [part["videos"] for part in result["protocol"]["generated"]] == [3, 3]
    assert result["protocol"]["real"]["pixels"] == result["protocol"]["generated"][0]["pixels"]
    assert len(result["scores"]["FVD"]["values"]) == 2
    assert all("step 4" in result["model"][name] for name in ("stunet", "guide", "ssr"))
    steps = [result["model"][name]["num_steps"] for name in ("sampling", "ssr sampling")]
    assert steps == [1, 1]  # as all stages were sampled, whatever their configs say
    assert result["protocol"]["seeds"] == [0, 1]
    twice = dataclasses.replace(generator, ssr=(cascade["ssr"],) * 2, guide=None).load().model
    assert "weights" in twice["ssr"] and "weights" in twice["ssr 2"] and twice["ssr 2 sampling"]
    first, second = ((tmp_path / "videos" / f"{s}" / f"000000_{s}.mkv") for s in (0, 1))
    assert first.read_bytes() != second.read_bytes()
    data = settings.task._data
    source = create_source(data, "test")
    for number in range(3):  # from all of the source
        clip = read_video(tmp_path / "real" / f"{number:06d}.mkv", fps=data.fps)
        real, _ = source.example(number * len(source) // 3)
        np.testing.assert_array_equal(clip, to_uint8(real))


def test_ucf101_from_a_trained_base(cascade, small_network, tmp_path):
    generator = tasks.Generator(
        base=cascade["stunet"], batch_size=64, options={"num_frames": 10, "num_steps": 1}
    )
    settings = command.Settings(
        output=tmp_path,
        task=tasks.Ucf101ZeroShot(generator=generator, max_per_class=1),
        rule=ClipRule(num_frames=9, aspect="4:3"),
        profile_name="unterthiner",
        profile=PROFILES["unterthiner"],
    )
    result = command.evaluate(settings)
    (generated,) = result["protocol"]["generated"]
    assert generated["videos"] == 101 and generated["pixels"] == ["12×16"]
    assert (tmp_path / "videos" / "0" / "HandstandPushups" / "00000_0.mkv").is_file()
    assert "FVD" not in result["scores"] and any("no FVD" in w for w in result["warnings"])
    assert {row["model"] for row in result["published"]} >= {"Lumiere", "PYoCo"}
    assert "Zero-shot UCF101" in (tmp_path / "card.txt").read_text()


MISTAKES = [
    ([], "give either --generated=FOLDER, or --task"),
    (["--generated=x", "--task=held_out", "--base=y"], "give either --generated"),
    (["--task=held_out"], "--task=held_out needs --base=WORKDIR"),
    (["--task=held_out", "--base=x", "--real=y"], "has its own real videos"),
    (["--generated=x", "--real=y", "--real_statistics=z"], "either --real or --real_stat"),
    (["--generated=x", "--max_real=5"], "need --real=FOLDER"),
    (["--generated=x", "--c3d_weights=y"], "--c3d_weights and --c3d_mean go together"),
    (["--generated=x", "--fps=fast"], "--fps=fast must be a number"),
    (["--generated=x", "--size=16"], "--size=16 must be HEIGHTxWIDTH"),
    (["--generated=x", "--profile=y"], "--profile=y is unknown"),
    (["--task=ucf101_zero_shot", "--base=x", "--preset=y"], "'y' is unknown; choose from"),
    (["--generated=x", "--num_frames=8"], "I3D Kinetics-400 .* needs 9 or more frames"),
    (["--generated=gs://bucket/videos"], "gs://bucket/videos is in a bucket; mount that"),
    (["--generated=no_such_folder"], "there is no folder no_such_folder"),
    (["--generated=x", "--i3d_weights=w.safetensors"], "w.safetensors: there is no such file"),
    (["--generated=x", "--c3d_weights=a", "--c3d_mean=b"], "a does not exist; conv3d_deepnetA"),
    (["--task=held_out", "--base=nowhere"], "there is no checkpoint in nowhere"),
    (["--generated=.github", "--real=nowhere"], "real videos: there is no folder nowhere"),
    (["--task=ucf101_zero_shot", "--base=nowhere", "--real=x"], "no checkpoint in nowhere"),
    (["--generated=x", "--real_statistics=y"], "statistics y cannot be read"),
    (["--generated=x", "--real=.github", "--real_list=y"], "real videos: .*.github holds none"),
]


@pytest.fixture(scope="module", name="told")
def fixture_told(tmp_path_factory) -> list[str | None]:
    """What each of `MISTAKES` is told; none leaves a card or comes as far as to networks."""
    output = tmp_path_factory.mktemp("mistakes")
    lists = [[f"--output={output}", *arguments] for arguments, _ in MISTAKES]
    program = [sys.executable, "-m", "tests.evaluation.mistakes"]  # no TensorFlow in it
    result = subprocess.run(
        program, cwd=REPOSITORY, input=json.dumps(lists), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert not (output / "card.json").exists()
    assert "loading" not in result.stderr and "looking at videos" not in result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes(told, number):
    assert re.search(MISTAKES[number][1], told[number] or "nothing was told")


def test_mp4_and_dark_videos_are_told(small_network, tmp_path):
    clip = np.full((9, 16, 16, 3), -0.995, np.float32)
    for index in range(2):
        write_mp4(tmp_path / f"{index}.mp4", clip, 8)
    settings = command.Settings(
        output=tmp_path / "out",
        generated=(tmp_path,),
        rule=RULE,
        profile_name="unterthiner",
        profile=PROFILES["unterthiner"],
    )
    result = command.evaluate(settings)
    assert any("brighter than" in warning for warning in result["warnings"])
    assert os.listdir(tmp_path / "out") and result["protocol"]["real"] is None
