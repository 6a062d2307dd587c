"""No option that is only a number compiles anything, derived from the declarations of all."""

import jax
import numpy as np
import pytest

from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.tasks import VideoOptions
from lumiere_jax.runtime.cache_folder import CacheFolder
from lumiere_jax.runtime.options import declared
from lumiere_jax.runtime.programs import Programs

PROMPT = ["a large red circle moving right"]
SHAPES = {"num_frames", "overlap", "num_steps"}  # they may compile: lengths and counts
SAMPLING = {name: o for name, o in declared(SamplingOptions).items() if o.type in (int, float)}
OWN = {name: o for name, o in declared(VideoOptions).items() if o.type in (int, float)}
METHODS = {"guidance_zero_until": "cfg_zero"} | {
    f"guidance_{name}": "apg" for name in ("parallel", "limit", "momentum")
}
"""Whose numbers they are; the first of a method compiles it."""
PICTURES = np.random.default_rng(0).uniform(-1, 1, (8, 12, 16, 3)).astype(np.float32)


@pytest.fixture(name="compiled", scope="module")
def fixture_compiled():
    """Seconds of each compilation from now on."""
    found = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: found.append(seconds) if "backend_compile" in name else None
    )
    return found


@pytest.fixture(name="pipeline", scope="module")
def fixture_pipeline(cascade):
    return LumierePipeline.from_checkpoints(
        cascade["stunet_conditional"], [cascade["ssr"]], show_progress=False
    )


def values(option):
    """Two that are neither a default nor at the ends."""
    narrow = {
        "threshold_max": [2.0, 3.0],  # not between 0 and 1
        "guidance_limit": [0.001, 0.002],  # below what there is to be limited
        "guidance_zero_until": [0.6, 1.0],  # of two steps the first rests, or none
        "guidance_every": [2, 1],  # of two steps
    }
    if option.name in narrow:
        return narrow[option.name]
    low = option.minimum if option.above is None else option.above
    high = option.maximum or low + (7 if option.type is int else 1)
    return [option.type(low + share * (high - low)) for share in (0.4, 0.7)]


def made(pipeline, name, value, cascade):
    """A video with an option of that name, by the task that takes it."""
    given = {name: value}
    few = {"num_steps": 2, "base_only": True, "guidance_scale": 30.0}  # far out of range
    few["guidance"] = METHODS.get(name, "cfg")
    region = np.zeros(PICTURES.shape[:3], bool)
    region[:, 3:9, 4:10] = True
    match name:
        case "seed":
            return pipeline(PROMPT, seeds=[value], **few)
        case "alpha":
            return pipeline.with_style(cascade["style"], value)(PROMPT, **few)
        case "strength":
            return pipeline.video_to_video(PICTURES, PROMPT, **few | given)
        case "feather":
            return pipeline.inpaint(PICTURES, region, PROMPT, **few | given)
        case "zoom":
            return pipeline.outpaint(PICTURES, PROMPT, **few | given)
        case "context":
            return pipeline.extend(PICTURES, PROMPT, num_frames=2, **few | given)
        case "base":
            return pipeline(PROMPT, num_steps=2)
    assert name in SAMPLING, f"say here which task takes the new option {name}"
    return pipeline(PROMPT, **few | given)


def test_a_new_number_compiles_nothing(pipeline, cascade, compiled):
    made(pipeline, "base", None, cascade)
    names = [name for name in {**SAMPLING, **OWN} if name not in SHAPES]
    assert {"guidance_scale", "eta", "strength", "alpha", "feather"} <= set(names)
    changed = {}
    for name in names:
        first, second = values({**SAMPLING, **OWN}[name])
        before, videos = len(compiled), [made(pipeline, name, first, cascade)]
        # Fresh noise, a style's weights, what only some tasks are given, and steps without guidance
        # are other programs.
        other = {"eta", "alpha", "strength", "feather", "zoom", "context", *METHODS}
        other |= {"guidance_from", "guidance_every"}
        assert len(compiled) == before or name in other, name
        before = len(compiled)
        videos.append(made(pipeline, name, second, cascade))
        assert len(compiled) == before, name
        changed[name] = bool((videos[0] != videos[1]).any())
    assert all(changed.values()), changed


def test_the_next_process_compiles_nothing(cascade, compiled, tmp_path):
    """As far as that can be seen in this one: JAX forgets everything."""
    told, videos = [], []

    class Listener:
        def start(self, label, num_steps):
            pass

        def advance(self):
            pass

        def compiling(self):
            told.append(len(compiled))

    for _ in range(2):
        jax.clear_caches()
        pipeline = LumierePipeline.from_checkpoints(
            cascade["stunet"], [cascade["ssr"]], programs=Programs(CacheFolder(tmp_path / "kept"))
        )
        before = len(compiled)
        videos.append(pipeline(PROMPT, num_steps=2, listener=Listener()))
    assert len(told) > 0 and max(told) < before and len(compiled) == before
    np.testing.assert_array_equal(*videos)
