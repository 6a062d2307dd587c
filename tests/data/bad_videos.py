"""A folder of files such as people have: broken, odd, or fine but unusual."""

import json
import unicodedata
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

FRAMES = 12
RATE = 8


def write_video(path, *, frames=FRAMES, size=(48, 32), codec="libx264", pixels="yuv420p", **more):
    """A clip of moving colours, (width, height), that no filter would reject."""
    times = more.pop("times", range(frames))
    y, x = np.mgrid[: size[1], : size[0]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=more.pop("options", {}))
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = Fraction(1, RATE)
        if "rotation" in more:
            stream.set_display_rotation(more.pop("rotation"))
        for n, time in enumerate(times):
            waves = [(x + 4 * n) / 7, (y - 3 * n) / 9, (x + y + 2 * n) / 11]
            image = np.uint8(128 + 90 * np.sin(np.stack(waves, -1)))
            frame = av.VideoFrame.from_ndarray(image).reformat(format=pixels)
            frame.pts, frame.time_base = time, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert not more


def every_class_of_character() -> str:
    """One character of each Unicode category that UTF-8 can hold."""
    found = {}
    for code in range(0x10FFFF):
        category = unicodedata.category(chr(code))
        if category != "Cs" and category not in found:
            found[category] = chr(code)
    return "a clip " + " ".join(found.values())


def write_corpus(folder: Path) -> dict[str, str | None]:
    """Writes the files and `captions.jsonl`.

    Returns:
      File name -> part of the reason to reject it, or None for one that is fine.
    """
    write_video(folder / "fine.mp4")
    whole = (folder / "fine.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "zero_bytes.mp4").touch()
    (folder / "text.mkv").write_text("this is not a video\n" * 99)
    _write_sound(folder / "audio_only.avi")
    Image.new("RGB", (32, 32)).save(folder / "image.png")
    (folder / "image.png").rename(folder / "an_image.mp4")
    (folder / "mp4_inside.gif").write_bytes(whole)
    write_video(folder / "variable_rate.mp4", times=[0, 1, 2, 6, 7, 8, 12, 13])
    write_video(folder / "odd_size.mkv", size=(47, 31), codec="ffv1", pixels="bgr0")
    write_video(folder / "rotated.mp4", rotation=90)
    write_video(folder / "one_frame.mp4", frames=1)
    write_video(folder / "ten_bit.mkv", codec="ffv1", pixels="yuv420p10le")
    write_video(folder / "alpha.mkv", codec="ffv1", pixels="yuva420p")
    _write_huge(folder / "huge.mkv")
    (folder / "loop_a.mp4").symlink_to(folder / "loop_b.mp4")
    (folder / "loop_b.mp4").symlink_to(folder / "loop_a.mp4")
    (folder / "below").mkdir()
    (folder / "below" / "again").symlink_to(folder, target_is_directory=True)
    captions = {}
    for name in ("unicode", "empty_caption", "long_caption", "no_caption"):
        (folder / f"{name}.mp4").write_bytes(whole)
    for path in sorted(folder.iterdir()):
        if path.name not in ("below", "no_caption.mp4"):
            captions[path.name] = f"a clip of {path.stem}"
    captions["unicode.mp4"] = every_class_of_character()
    captions["empty_caption.mp4"] = "  "
    captions["long_caption.mp4"] = "word " * 2000
    lines = [json.dumps({"path": name, "caption": text}) for name, text in captions.items()]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    rejected = {
        "truncated.mp4": "broken",
        "zero_bytes.mp4": "broken",
        "text.mkv": "broken",
        "audio_only.avi": "no video stream",
        "an_image.mp4": "too short",
        "one_frame.mp4": "too short",
        "huge.mkv": "more than 8192×8192",
        "loop_a.mp4": "symbolic links",
        "loop_b.mp4": "symbolic links",
        "empty_caption.mp4": "without a caption",
        "no_caption.mp4": "without a caption",
    }
    videos = [path.name for path in folder.iterdir() if path.suffix in (".mp4", ".mkv", ".gif")]
    return {name: None for name in videos} | rejected


def _write_huge(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 16384, 8192, "gray"
        frame = av.VideoFrame(16384, 8192, "gray")
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_sound(path: Path) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
