"""Which clips `eval --task=held_out` compares with, without generating any."""

import dataclasses
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from lumiere_jax.checkpoints import bundle
from lumiere_jax.data.mixture import places_of
from lumiere_jax.evaluation import tasks
from lumiere_jax.evaluation.clips import ClipRule
from lumiere_jax.evaluation.generation import Generator
from lumiere_jax.evaluation.tasks import HeldOut
from lumiere_jax.runtime.errors import UserError
from tests.preparation.videos import moving, prepare, write
from tests.tiny_runs import tiny_config

RULE = ClipRule(num_frames=4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configs(Generator):
    """A cascade of which there are configs alone."""

    given: tuple = ()

    def configs(self):
        return list(self.given)


def task(*stages, options=None, **fields):
    generator = Configs(base=Path("base"), given=stages, options=options or {})
    return HeldOut(generator=generator, num_videos=2, **fields)


@pytest.fixture(scope="module", name="folders")
def fixture_folders(tmp_path_factory):
    """The same videos prepared at two sizes, and at one without a test part."""
    root = tmp_path_factory.mktemp("held_out")
    for split in ("train", "test"):
        for n in range(2):
            write(root / "videos" / split / f"{n}.mp4", moving(16, seed=n))
            (root / "videos" / split / f"{n}.txt").write_text(f"{split} {n}")
    for size in (16, 32):
        prepare(root / "videos", root / str(size), resolution=(size, size))
    prepare(root / "videos" / "train", root / "all", test_fraction=0.0)
    return root


def stages(folders, base="16", ssr="32"):
    low = tiny_config("stunet", data__name="prepared", data__folder=str(folders / base))
    high = tiny_config(
        "ssr", data__name="prepared", data__folder=str(folders / ssr),
        data__resolution=int(ssr) if ssr.isdecimal() else 32, ssr__factor=2,
    )  # fmt: skip
    return low, high


def test_real_clips_have_the_size_that_is_generated(folders):
    whole = task(*stages(folders))
    whole.check(RULE)
    assert whole._source.example(0)[0].shape[1:3] == (32, 32)
    assert whole._source.example(0)[1].startswith("test")
    base = task(*stages(folders), options={"base_only": True, "num_frames": 4})
    assert base._source.example(0)[0].shape[:3] == (4, 16, 16)
    drawn = task(tiny_config("stunet"), tiny_config("ssr", data__resolution=32))
    assert drawn._data.resolution == 16 * 4  # not what the last stage was trained at


def test_clips_may_have_moved(folders):
    low, high = stages(folders)
    low.data.folder = high.data.folder = ""  # as in a bundle
    with pytest.raises(UserError, match="base does not say where its clips are.*--data_folder"):
        task(low, high).check(RULE)
    task(low, high, data_folder=folders / "32").check(RULE)
    with pytest.raises(UserError, match="16 x 16 pixels"):
        task(low, high, data_folder=folders / "16").check(RULE)


def test_the_clips_of_a_mixture_may_have_moved(folders, tmp_path):
    root = tmp_path / "new" / "a"
    root.mkdir(parents=True)
    (root / "clips").symlink_to(folders / "videos")
    (tmp_path / "new" / "b").symlink_to(folders / "videos")
    low = tiny_config("stunet", data__name="mixture")
    low.data.mixture = (
        {"name": "moving_shapes"},
        {"name": "video_folder", "folder": "/old/a/clips"},
        {"name": "video_folder", "folder": "b"},
    )
    bundle.write({"stunet": (low.to_dict(), {}, 1)}, tmp_path / "bundle", {})
    shipped = ConfigDict(bundle.read_config(tmp_path / "bundle" / "stunet"))
    assert [entry.get("folder") for entry in shipped.data.mixture] == [None, "clips", "b"]
    with pytest.raises(UserError, match="give --data_folder=FOLDER, the one that holds clips, b"):
        HeldOut(
            generator=Configs(base=tmp_path / "bundle" / "stunet", given=(shipped,)), num_videos=2
        ).check(RULE)
    with pytest.raises(UserError, match="new holds no clips; give FOLDER, the one that holds c"):
        task(shipped, data_folder=tmp_path / "new").check(RULE)
    (tmp_path / "new" / "clips").symlink_to(folders / "videos")
    for config in (low, shipped):
        moved = task(config, data_folder=tmp_path / "new")
        moved.check(RULE)
        drawn, *of_folders = moved._source.sources
        assert [len(source) for source in of_folders] == [2, 2] and not moved.warnings
        assert drawn.split == "test"
    for place in ("", "clips"):  # by an older version; and the folder itself, where it is one
        shipped.data.mixture = ({"name": "video_folder", "folder": place},)
        task(shipped, data_folder=folders / "videos").check(RULE)
    assert places_of([{"folder": "/x/clips"}, {"folder": "/y/clips"}]) == ["x/clips", "y/clips"]
    assert places_of([{"folder": "/x/clips/"}, {"folder": "/x/clips"}]) == ["clips", "clips"]


def test_drawn_clips_have_no_folder(tmp_path):
    with pytest.raises(UserError, match="are drawn .moving_shapes., and come from no folder"):
        task(tiny_config("stunet"), data_folder=tmp_path).check(RULE)


def test_too_few_clips_are_told_before_anything_is_loaded(folders):
    with pytest.raises(UserError, match="--num_videos=9: .* holds out 4 clips only"):
        dataclasses.replace(task(*stages(folders)), num_videos=9).check(RULE)


def test_clips_that_were_trained_on_are_called_so(folders, monkeypatch):
    (low, _) = stages(folders, base="all")
    own = tiny_config("stunet", data__name="video_folder", data__folder=str(folders / "videos"))
    trained, held_out, of_folder = task(low), task(stages(folders)[0], repeats=3), task(own)
    for one in (trained, held_out, of_folder):
        one.check(RULE)
    monkeypatch.setattr(tasks, "create_source", None)  # what comes after the work opens nothing
    assert trained.protocol["split"] == "trained on (prepared)"
    assert "prepared holds no clips out" in trained.warnings[0]
    for one in (held_out, of_folder):
        assert one.protocol["split"] == "test" and not one.warnings
    assert held_out.protocol["seeds"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"num_frames": 16}, "have 8 frames at 8 fps, but a clip of --num_frames=16 .* spans 16"),
        ({"num_frames": 4, "stride": 3}, "with --stride=3 spans 10: .*--sample_frames"),
        ({"num_frames": 4, "fps": 3.0}, "8 frames at 8 fps, 3 at --fps=3, but"),
    ],
)
def test_clips_that_are_longer_than_what_is_generated(folders, rule, message):
    low, _ = stages(folders)
    low.data.num_frames = 8
    with pytest.raises(UserError, match=message):
        task(low).check(ClipRule(**rule))
    drawn = tiny_config("stunet")
    task(drawn, options={"num_frames": 24}).check(ClipRule(**rule))
    with pytest.raises(UserError, match="num_frames=3 must be a multiple of 2"):
        task(drawn, options={"num_frames": 3}).check(ClipRule(num_frames=1))
