"""Are the oracles of clips with long motions right? On true clips, others' captions, and defects.

    python benchmarks/long_worlds.py

Prints the tables of docs/data.md. Everything is drawn from the test split; nothing is trained.
"""

import dataclasses
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
from absl import flags
from scipy import ndimage

from lumiere_jax.data import motions, moving_digits, scene_captions
from lumiere_jax.data.moving_digits import MovingDigits
from lumiere_jax.data.moving_shapes import MovingShapes, Scene, render
from lumiere_jax.data.pixels import Video
from lumiere_jax.data.scene import OBJECT_COLOURS, SHAPES
from lumiere_jax.metrics import long_digits, long_oracle
from lumiere_jax.runtime import errors

_CLIPS = flags.DEFINE_integer("clips", 512, "Of each row; an eighth where spoilt or resized.")

FRAMES, SIDE = 80, 32
TIMES = np.linspace(0.0, 1.0, FRAMES)
KEYS = np.arange(5) / 5.0  # one a second


def source(kind: type, count: int, frames: int = FRAMES, side: int = SIDE) -> MovingShapes:
    """Held-out clips of so many objects."""
    return kind(
        frames, side, fps=16, split="test", max_objects=count, two_object_probability=1.0,
        motions="long",
    )  # fmt: skip


def soften(video: Video, generator: np.random.Generator) -> Video:
    """Blurred by 0.6 pixels, with noise of 0.05 (of the range from -1 to 1)."""
    blurred = ndimage.gaussian_filter(video, (0, 0.6, 0.6, 0), mode="nearest")
    return (blurred + 0.05 * generator.standard_normal(video.shape)).astype(np.float32)


def table(kind: type, oracle: ModuleType, parse: Callable, clips: int) -> None:
    """Scores of true clips, of others' captions, and of spoilt clips."""
    generator, scores = np.random.default_rng(0), (*oracle.SCORES, *oracle.EXTRA_SCORES)
    print("| clips | " + " | ".join(name.replace("_", " ") for name in scores) + " |")
    print("|" + "---|" * (len(scores) + 1))

    def row(name: str, judged: list) -> None:
        cells = [f"{long_oracle.share(judged, score):.1%}".replace("nan%", "") for score in scores]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)

    for count, noun in ((1, "one"), (2, "two")):
        drawn, tiny = source(kind, count), source(kind, count, frames=1, side=16)
        captions = [tiny.example(index)[1] for index in range(clips)]
        wanted = [parse(caption) for caption in captions]
        seen = [oracle.look(drawn.example(index)[0], count) for index in range(clips)]
        truth = [oracle.compare(*pair) for pair in zip(wanted, seen, strict=True)]
        others = [oracle.compare(*pair) for pair in zip(wanted[1:] + wanted[:1], seen, strict=True)]
        spoilt = [
            oracle.judge(soften(drawn.example(index)[0], generator), captions[index])
            for index in range(clips // 8)
        ]
        row(f"{noun}, true", truth)
        row(f"{noun}, softened, with noise", spoilt)
        row(f"{noun}, another's caption", others)
        large = source(kind, count, side=128)
        row(f"{noun}, 128×128", [oracle.judge(*large.example(i)) for i in range(clips // 8)])
        few = source(kind, count, frames=16)
        slow = [i for i, caption in enumerate(captions) if "quickly" not in caption]
        row(f"{noun}, 16 frames", [oracle.judge(*few.example(i)) for i in slow[: clips // 8]])


def with_path(scene: Scene, path: motions.Path | Callable) -> Scene:
    """The scene whose first object goes another way."""
    first = dataclasses.replace(scene.objects[0], path=path)
    return dataclasses.replace(scene, objects=(first, *scene.objects[1:]))


def mixed(scene: Scene, other: Scene, begin: int, end: int) -> Video:
    """The scene, but for some frames, which show another."""
    video = render(scene, TIMES, SIDE)
    video[begin:end] = render(other, TIMES[begin:end], SIDE)
    return video


def changed(scene: Scene, **fields: object) -> Scene:
    """The scene with another first object."""
    first = dataclasses.replace(scene.objects[0], **fields)
    return dataclasses.replace(scene, objects=(first, *scene.objects[1:]))


def following(name: str, names: tuple[str, ...]) -> str:
    """Another name."""
    return names[(names.index(name) + 1) % len(names)]


def defects(scene: Scene) -> Iterator[tuple[str, str, Video]]:
    """Spoilt clips of a scene: name of the defect, the score that it should cost, and the clip."""
    item = scene.objects[0]
    motion, path = motions.MOTIONS[item.direction], item.path
    half = (item.radius, item.radius)
    generator = np.random.default_rng(0)
    if scene.passing:
        swapped = dataclasses.replace(scene, objects=scene.objects[::-1])
        yield "the other one in front", "passing", render(swapped, TIMES, SIDE)
        return
    if isinstance(motion, motions.Phases) and motion.directions[0] != "still":
        back = tuple(motions.OPPOSITE[name] for name in motion.directions[::-1])
        if back != motion.directions:
            yield "time reversed", "direction", render(scene, TIMES[::-1], SIDE)
    if isinstance(motion, motions.Circle):
        yield "time reversed", "direction", render(scene, TIMES[::-1], SIDE)
    if isinstance(motion, motions.Phases) and motion.directions != motion.directions[::-1]:
        other = motions.Phases(motion.directions[::-1]).draw(half, generator)
        yield "phases in reverse order", "order", render(with_path(scene, other), TIMES, SIDE)
    if isinstance(motion, motions.Swing):
        yield "half the frequency", "frequency", render(scene, TIMES / 2, SIDE)
        yield "twice the frequency", "frequency", render(scene, TIMES * 2, SIDE)
        if motion.speed == "quickly":
            places = tuple((x, y) for x, y in path(KEYS).tolist())
            line = motions.Polyline(tuple(KEYS.tolist()), places)
            yield (
                "places between 5 key frames",
                "frequency",
                render(with_path(scene, line), TIMES, SIDE),
            )
            keys = render(scene, KEYS, SIDE)
            at = np.clip(TIMES * 5, 0, 4)
            low = np.minimum(at.astype(int), 3)
            part = (at - low)[:, None, None, None].astype(np.float32)
            yield (
                "pixels between 5 key frames",
                "frequency",
                ((1 - part) * keys[low] + part * keys[low + 1]),
            )
    shape = changed(scene, shape=following(item.shape, SHAPES))
    colour = changed(scene, colour=following(item.colour, tuple(OBJECT_COLOURS)))
    size = changed(scene, size=following(item.size, ("small", "large")))
    number = int(generator.integers(FRAMES))
    yield "one frame of another shape", "same", mixed(scene, shape, number, number + 1)
    yield "one frame of another colour", "same", mixed(scene, colour, number, number + 1)
    yield "another shape from the middle on", "same", mixed(scene, shape, FRAMES // 2, FRAMES)
    yield "another colour from the middle on", "same", mixed(scene, colour, FRAMES // 2, FRAMES)
    yield "another size from the middle on", "same", mixed(scene, size, FRAMES // 2, FRAMES)
    there = with_path(scene, lambda times: 1.0 - path(times))
    if np.linalg.norm(path(np.array([0.5])) - 0.5) > 0.12:
        yield "elsewhere from the middle on", "same", mixed(scene, there, FRAMES // 2, FRAMES)


def defect_table(clips: int) -> None:
    """How often each defect costs the score that it should."""
    found: dict[tuple[str, str], list[bool]] = {}
    for count in (1, 2):
        drawn = source(MovingShapes, count)
        for index in range(clips):
            scene = drawn.scene(index)
            if count == 2 and not scene.passing:
                continue
            caption = drawn.example(index)[1]
            for name, score, video in defects(scene):
                judged = getattr(long_oracle.judge(video, caption), score)
                found.setdefault((name, score), []).append(judged is False)
    print("| defect | score that it costs | seen | of |\n|---|---|---|---|")
    for (name, score), seen in found.items():
        print(f"| {name} | {score} | {np.mean(seen):.1%} | {len(seen)} |")


def main(argv: list[str]) -> None:
    """Prints all tables."""
    del argv
    clips = _CLIPS.value
    print("`moving_shapes`:\n")
    table(MovingShapes, long_oracle, scene_captions.parse_caption, clips)
    print("\n`moving_digits`:\n")
    table(MovingDigits, long_digits, moving_digits.parse_caption, clips)
    print("\nDefects of `moving_shapes`:\n")
    defect_table(clips // 8)


if __name__ == "__main__":
    errors.run(main)
