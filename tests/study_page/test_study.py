"""The command line of the study: what it is made from, its results, and what it refuses."""

import functools
import json
import shutil
import socket
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lumiere_jax.data.video_io import read_video, write_gif
from lumiere_jax.data.video_timing import probe_video
from lumiere_jax.metrics.user_study import arrange
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.study_page import command, making, prompts, report, showing
from lumiere_jax.study_page import folder as study_folder
from lumiere_jax.study_page.store import Store
from tests.inference import running
from tests.study_page.videos import NAMES, make_study, write_prompts, write_videos

REPOSITORY = Path(__file__).parents[2]


run = functools.partial(running.run, "study")


@pytest.fixture(name="sources")
def fixture_sources(tmp_path) -> dict[str, Path]:
    return {
        "ours": write_videos(tmp_path / "mine", NAMES, seed=1),
        "baseline": write_videos(tmp_path / "theirs", NAMES, seed=2),
        "prompts": write_prompts(tmp_path / "prompts.csv"),
        "output": tmp_path / "study",
    }


def flags_of(sources: dict[str, Path], **changes: object) -> list[str]:
    return [f"--{name}={value}" for name, value in (sources | changes).items() if value is not None]


def test_made_exported_answered_and_evaluated(sources):
    code, stdout, stderr = run("--mode=export", *flags_of(sources), "--title=<b> & co")
    assert code == 0, stderr
    page = sources["output"] / "page" / "index.html"
    assert stdout == f"{page}\n"
    assert "&lt;b&gt; &amp; co" in page.read_text() and "<b> & co" not in page.read_text()
    study = study_folder.load(sources["output"])
    store = Store(sources["output"] / study_folder.ANSWERS_FILE, study)
    for rater, attribute in (("good", "ours"), ("bad", "other")):
        store.register(rater)
        for pair in arrange(study, rater):
            for question in study.questions:
                store.answer(rater, pair, question.name, getattr(pair, attribute))
    code, stdout, stderr = run("--mode=results", f"--output={sources['output']}")
    assert code == 0, stderr
    lines = [line.split("  ") for line in stdout.splitlines()]
    assert (
        "".join(stdout.splitlines()[0].split())
        == "baselinequestionoursbaselinepreferred95%intervalraters"
    )
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[1] == ["theirs", "quality", "2", "0", "100.0%", "34.2 to 100.0", "1"]
    assert cells[2] == ["theirs (all raters)", "quality", "2", "2", "50.0%", "15.0 to 85.0", "2"]
    # Two pairs allow for two attention checks, of two questions that count each.
    assert "left out: bad (4 wrong answers to attention checks)" in stdout
    results = json.loads((sources["output"] / report.RESULTS_FILE).read_text())
    assert results["raters"] == {
        "answered": 2,
        "kept": 1,
        "without_check": 0,
        "excluded": {"bad": 4},
    }
    with Image.open(sources["output"] / report.CHART_FILE) as image:
        assert image.format == "PNG" and image.width > 800


def test_the_same_command_goes_on_and_another_study_is_refused(sources):
    arguments = {"ours": sources["ours"], "baselines": [sources["baseline"]]}
    arguments |= {"prompts_file": sources["prompts"], "title": "t"}
    first = making.make(sources["output"], **arguments)
    assert making.make(sources["output"], **arguments) == first
    assert study_folder.load(sources["output"]) == first
    before = (sources["output"] / study_folder.STUDY_FILE).read_bytes()
    with pytest.raises(UserError, match="holds another study"):
        making.make(sources["output"], **arguments, seed=1)
    write_videos(sources["ours"], NAMES, seed=5)
    with pytest.raises(UserError, match="holds another study"):
        making.make(sources["output"], **arguments)
    assert (sources["output"] / study_folder.STUDY_FILE).read_bytes() == before


def test_file_names_and_the_public_order_tell_no_method(tmp_path):
    names = tuple(f"{i:03d}" for i in range(24))
    study = making.make(
        tmp_path / "study",
        ours=write_videos(tmp_path / "mine", names),
        baselines=[write_videos(tmp_path / "theirs", names)],
        prompts_file=write_prompts(tmp_path / "prompts.csv", names),
        title="t",
        num_checks=0,
    )
    first = sum(pair.videos[0] == pair.ours for pair in study.pairs)
    assert 2 < first < 22  # four standard deviations of 24 fair coins


def test_several_baselines_of_different_videos(tmp_path, capsys):
    study = making.make(
        tmp_path / "study",
        ours=write_videos(tmp_path / "mine", ("a", "b", "c")),
        baselines=[
            write_videos(tmp_path / "x" / "videos", ("a", "b")),
            write_videos(tmp_path / "y" / "videos", ("c", "d")),
        ],
        baseline_names=["x", "y"],
        prompts_file=write_prompts(tmp_path / "prompts.csv", ("a", "b", "c")),
        title="t",
        num_checks=2,
    )
    found = sorted((pair.baseline or "", pair.name) for pair in study.pairs if not pair.is_check)
    assert found == [("x", "a"), ("x", "b"), ("y", "c")]
    assert len({pair.key for pair in study.pairs}) == 5
    told = capsys.readouterr().err
    assert f"only in {tmp_path / 'mine'}: c" in told
    assert f"only in {tmp_path / 'y' / 'videos'}: d" in told


def test_an_attention_check_is_a_still_picture_of_noise_as_long_as_the_other(tmp_path):
    folder, study = make_study(tmp_path, num_checks=2)
    checks = [pair for pair in study.pairs if pair.is_check]
    assert len(checks) == 2
    # One intact video is ours, the other is the baseline's.
    judged = [pair for pair in study.pairs if not pair.is_check]
    assert sum(check.ours in {pair.ours for pair in judged} for check in checks) == 1
    for check in checks:
        intact, broken = (folder / "videos" / name for name in (check.ours, check.other))
        assert probe_video(broken).num_frames(8) == probe_video(intact).num_frames(8) == 4
        frames = read_video(broken, fps=8).astype(float)
        assert frames.shape == read_video(intact, fps=8).shape
        assert np.abs(np.diff(frames, axis=0)).mean() < 3
        assert frames[0].mean(axis=-1).std() > 25


def test_videos_that_browsers_play_are_copied_and_others_become_mp4(tmp_path, capsys):
    folder = write_videos(tmp_path / "in", ("good",))
    video = np.zeros((5, 16, 24, 3), np.float32)
    video += np.linspace(-1, 1, 5, dtype=np.float32)[:, None, None, None]
    write_gif(folder / "moving.gif", video, 10)
    (folder / "good.gif").write_bytes((folder / "moving.gif").read_bytes())  # MP4 is preferred
    with av.open(folder / "good.mp4") as source, av.open(folder / "boxed.mkv", "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with av.open(folder / "old.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        for _ in range(4):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 200, np.uint8), "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    found = showing.find_videos(folder)
    assert "left out good.gif (repeated: the same clip as good.mp4)" in capsys.readouterr().err
    assert {name: path.suffix for name, path in found.items()} == {
        "good": ".mp4",
        "old": ".mp4",
        "moving": ".gif",
        "boxed": ".mkv",
    }
    for name, path in found.items():
        shown, write = showing.shown_as(path, 0, "m")
        write(tmp_path / shown)
        assert ((tmp_path / shown).read_bytes() == path.read_bytes()) == (name == "good")
        with av.open(tmp_path / shown) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert len(list(container.decode(video=0))) == {"moving": 5}.get(name, 4)


def test_whatever_a_video_does_is_one_message(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise ValueError("frames of two sizes")

    folder = write_videos(tmp_path / "in", ("good",))
    write_gif(folder / "moving.gif", np.zeros((5, 16, 24, 3), np.float32), 10)
    monkeypatch.setattr(showing, "read_video", fail)
    _, write = showing.shown_as(folder / "moving.gif", 0, "m")
    with pytest.raises(UserError, match="cannot read video .*moving.gif: ValueError: frames of"):
        write(tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
    monkeypatch.setattr(showing, "probe_video", fail)
    with pytest.raises(UserError, match="cannot read video .*good.mp4: ValueError: frames of"):
        showing.shown_as(folder / "good.mp4", 0, "m")


def test_prompts_by_table_and_by_line(tmp_path):
    table = tmp_path / "p.jsonl"
    table.write_text(
        '{"name": "more/cube.mp4", "prompt": " a  cube "}\n{"name":"v1.5","prompt":"b"}'
    )
    assert prompts.read(table) == {"more/cube": "a cube", "v1.5": "b"}
    captions = tmp_path / "captions.csv"
    captions.write_text("file,caption\nball.mp4,a ball\n")
    assert prompts.read(captions) == {"ball": "a ball"}
    lines = tmp_path / "p.txt"
    lines.write_text("a ball\n\n a cube \n")
    assert prompts.read(lines) == {"0000": "a ball", "0001": "a cube"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "name,words\na,b\n", "no column prompt, caption or text"),
        ("p.csv", "name,prompt\na,\n", "prompt of a is empty"),
        ("p.csv", "name,prompt\na,b\na.mp4,c\n", "a has two different prompts"),
        ("p.csv", "name,prompt\n", "has no prompts"),
        ("p.jsonl", "[1]", "line 1: not a JSON object"),
        ("p.toml", "", "must end in .csv or .jsonl"),
        ("p.txt", "\n", "has no prompts"),
    ],
)
def test_prompts_that_are_no_prompts(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        prompts.read(tmp_path / name)


def nothing_in_common(sources):
    shutil.rmtree(sources["baseline"])
    write_videos(sources["baseline"], ("moon",))


def empty_folder(sources):
    shutil.rmtree(sources["ours"])
    sources["ours"].mkdir()


def missing_prompt(sources):
    write_prompts(sources["prompts"], NAMES[:1])


def broken_video(sources):
    (sources["baseline"] / "ball.mp4").write_bytes(b"no video")


def output_is_a_file(sources):
    sources["output"].write_text("")


NOT_GIVEN = {"ours": None, "baselines": [], "prompts_file": None}


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (nothing_in_common, {}, "no videos of the same name; only in .*: ball, more/cube; only"),
        (missing_prompt, {}, "has no prompt for the video more/cube"),
        (broken_video, {}, "cannot read video .*ball.mp4"),
        (empty_folder, {}, "has no video"),
        (output_is_a_file, {}, "cannot be written"),
        (None, {"ours": "nowhere"}, "there is no folder"),
        (None, {"baselines": ["same", "other/same"]}, "--baseline_names"),
        (None, NOT_GIVEN | {"ours": "mine"}, "--baseline and --prompts must be given too"),
        (None, NOT_GIVEN, "there is no study in .*; make one with --ours"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(sources, spoil, changes, message):
    if spoil:
        spoil(sources)
    given = {"ours": sources["ours"], "baselines": [sources["baseline"]]}
    given |= {"prompts_file": sources["prompts"]} | changes
    before = sources["output"].exists()
    with pytest.raises(UserError, match=message):
        command.make_or_load(sources["output"], title="t", **given)
    assert sources["output"].exists() == before


def test_one_line_and_exit_code_2(sources):
    missing_prompt(sources)
    code, stdout, stderr = run(*flags_of(sources))
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    code, _, stderr = run(f"--output={sources['output']}", "--seed=4")
    assert code == 2 and "--seed is fixed when a study is made" in stderr


def test_a_port_in_use_and_a_damaged_file_of_answers(tmp_path):
    folder, _ = make_study(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, stdout, stderr = run(f"--output={folder}", f"--port={taken.getsockname()[1]}")
    assert code == 2 and "give another --port" in stderr and stdout == ""
    (folder / study_folder.ANSWERS_FILE).write_text("spoiled " * 200)
    for mode in ("serve", "results"):
        code, _, stderr = run(f"--output={folder}", f"--mode={mode}", "--port=0")
        assert code == 2 and "damaged or not a file of answers" in stderr


def test_an_output_that_cannot_be_written(sources):
    # Nobody makes folders there, root included.
    code, _, stderr = run("--mode=export", *flags_of(sources, output="/proc/study"))
    assert code == 2 and "cannot be written" in stderr


def test_results_without_answers_and_a_study_that_is_damaged(tmp_path):
    folder, study = make_study(tmp_path)
    with pytest.raises(UserError, match="no answers yet"):
        command.evaluate(study, folder, [], 1)
    assert not (folder / study_folder.ANSWERS_FILE).exists()
    (folder / "videos" / study.pairs[0].ours).unlink()
    with pytest.raises(UserError, match="is gone"):
        study_folder.load(folder)
    for content in ("{", "[]", "{}", '{"methods": 3}'):
        (folder / study_folder.STUDY_FILE).write_text(content)
        with pytest.raises(UserError, match="is not the file of a study"):
            study_folder.load(folder)
