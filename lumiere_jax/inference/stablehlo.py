"""Stages as programs that run without this package: StableHLO by `jax.export`.

    FOLDER/programs.json       what there is: inputs, outputs, weights and whose they are
    FOLDER/NAME.stablehlo      one program for CPU, TPU and CUDA, any batch; weights are arguments

Whoever has JAX reads a program by `jax.export.deserialize`, and calls it with the tensors of a
bundle, by their names there (`bundle`).
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from lumiere_jax import __version__
from lumiere_jax.cascade.denoising import (
    base_prediction,
    clean_estimate,
    super_resolution_prediction,
)
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import quantization
from lumiere_jax.checkpoints.bundle import SEPARATOR
from lumiere_jax.diffusion.samplers import ddim_step
from lumiere_jax.diffusion.schedule import with_time_power
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.sampling import (
    SamplingOptions,
    make_base_sampler,
    make_super_resolution_sampler,
    sample_keys,
)
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import keep_others, local, written_folder

PLATFORMS = ("cpu", "tpu", "cuda")
MANIFEST = "programs.json"
SUFFIX = ".stablehlo"
Weights = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Program:
    """A function to export.

    Attributes:
      call: `call(weights, **inputs)`, returns a dict of arrays.
      weights: shapes of the weights.
      inputs: shape and dtype of each input; the batch is the letter "b".
      stage: whose weights it takes, by its name in the bundle.
      noise_levels: log-SNR of every step, for the caller of a single step.
    """

    call: Callable[..., dict[str, jax.Array]]
    weights: Mapping[str, jax.ShapeDtypeStruct]
    inputs: Mapping[str, tuple[tuple[int | str, ...], str]]
    stage: str
    noise_levels: tuple[float, ...] = ()


def export_programs(
    pipeline: LumierePipeline,
    output: str | Path,
    *,
    num_frames: int | None = None,
    dtype: str = "bfloat16",
    platforms: Sequence[str] = PLATFORMS,
    stages: Sequence[str] = (),
) -> list[Path]:
    """Writes the denoising step and the whole sampler of every stage, for any batch.

    Args:
      pipeline: whose stages, with the sampling options of their configs.
      output: folder to make; programs that are there are replaced, and other files stay.
      num_frames: frames of a video; None for what the base was trained on.
      dtype: of the bundle that a program takes its weights from; it computes in that of the config.
      platforms: of "cpu", "tpu", "cuda" and "rocm".
      stages: their names in the bundle, base first; their kinds if not given.

    Returns:
      The files.

    Raises:
      UserError: if `output` is something else, a platform unknown, or the number of frames not
        one that the base makes.
    """
    output = local(output)
    if output.exists() and not (output / MANIFEST).is_file():
        raise UserError(f"{output} exists and holds no programs; choose another --output.")
    unknown = set(platforms) - {*PLATFORMS, "rocm"}
    if unknown or not platforms:
        raise UserError(f"platforms {', '.join(platforms)!r}: choose from cpu, tpu, cuda, rocm.")
    programs = stage_programs(pipeline, pipeline.checked_frames(num_frames), dtype, stages)
    with written_folder(output) as folder:
        described = {}
        for name, program in programs.items():
            exported = _export(program, platforms)
            data = exported.serialize()
            (folder / f"{name}{SUFFIX}").write_bytes(data)
            described[name] = _description(program, exported, data)
        manifest = {
            "program": f"lumiere_jax {__version__}",
            "jax": jax.__version__,
            "platforms": list(platforms),
            "programs": described,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        if output.exists():
            keep_others(output, folder, [path.name for path in output.glob(f"*{SUFFIX}")])
    return [output / f"{name}{SUFFIX}" for name in programs]


def stage_programs(
    pipeline: LumierePipeline, frames: int, dtype: str = "bfloat16", stages: Sequence[str] = ()
) -> dict[str, Program]:
    """The programs of a pipeline: "STAGE_step" and "STAGE_sampler" of each of its stages.

    Args:
      pipeline: see `export_programs`.
      frames: of a video.
      dtype: see `export_programs`.
      stages: see `export_programs`.
    """
    stage, params = pipeline.base
    size = stage.config.data.resolution
    made = [_base_programs(stage, _flat(params, dtype), frames)]
    for number, (stage, params) in enumerate(pipeline.super_resolution):
        name = stage.name if number == 0 else f"{stage.name}_{number + 1}"
        shape = ("b", frames, size, size, 3)
        made.append(_refining_programs(stage, _flat(params, dtype), shape, name, 1 + number))
        size *= stage.config.ssr.factor
    return {
        name: dataclasses.replace(program, stage=stage) if stage else program
        for stage, programs in zip(stages or [""] * len(made), made, strict=True)
        for name, program in programs.items()
    }


def _base_programs(
    stage: Stage, weights: dict[str, jax.ShapeDtypeStruct], frames: int
) -> dict[str, Program]:
    options = SamplingOptions.from_config(stage.config)
    prediction = base_prediction(stage, options, frames)
    sampler = make_base_sampler(stage, options, frames)
    size = stage.config.data.resolution
    video = ("b", frames, size, size, 3)
    given = {"known": (("b", frames, size, size, 4), "float32")} if stage.is_conditional else {}

    def step(weights, z, log_snr, log_snr_next, text, text_mask, **given):
        predict = prediction(_params(weights), text, text_mask, given)
        return _step(stage, options, predict, z, log_snr, log_snr_next)

    def sample(weights, text, text_mask, seeds, **given):
        keys = sample_keys(seeds, 0)
        return {"video": sampler(_params(weights), text, text_mask, keys, given)}

    return _both(stage, options, stage.name, weights, step, _noisy(video), sample, given)


def _refining_programs(
    stage: Stage,
    weights: dict[str, jax.ShapeDtypeStruct],
    video: tuple[int | str, ...],
    name: str,
    number: int,
) -> dict[str, Program]:
    options = SamplingOptions.from_config(stage.config)
    prediction = super_resolution_prediction(stage, options)
    sampler = make_super_resolution_sampler(stage, options)
    batch, frames, height, width, channels = video
    factor = stage.config.ssr.factor
    large = (batch, frames, height * factor, width * factor, channels)

    def step(weights, z, log_snr, log_snr_next, text, text_mask, video, seeds):
        keys = sample_keys(seeds, number)
        predict = prediction(_params(weights), video, text, text_mask, keys)
        return _step(stage, options, predict, z, log_snr, log_snr_next)

    def sample(weights, text, text_mask, seeds, video):
        keys = sample_keys(seeds, number)
        return {"video": sampler(_params(weights), video, text, text_mask, keys)}

    given = {"video": (video, "float32")}
    noisy = _noisy(large) | {"seeds": (("b",), "uint32")}
    return _both(stage, options, name, weights, step, noisy, sample, given)


def _noisy(video: tuple[int | str, ...]) -> dict[str, tuple[tuple[int | str, ...], str]]:
    """What a single step takes beside its condition."""
    return {"z": (video, "float32"), "log_snr": (("b",), "float32"),
            "log_snr_next": (("b",), "float32")}  # fmt: skip


def _both(stage, options, name, weights, step, noisy, sample, given) -> dict[str, Program]:
    """The two programs of a stage, with the inputs that both of them take.

    `noisy` are inputs of the step alone, `given` those of both beside the text.
    """
    text = stage.config.text
    shared = {
        "text": (("b", text.max_length, text.dim), "float32"),
        "text_mask": (("b", text.max_length), "bool"),
    } | given
    seeds = {"seeds": (("b",), "uint32")}
    schedule = with_time_power(stage.schedule, options.time_power)
    times = schedule.sampling_times(options.num_steps, 1.0)
    levels = tuple(float(x) for x in np.asarray(schedule.log_snr(times)))
    return {
        f"{name}_step": Program(step, weights, noisy | shared, name, levels),
        f"{name}_sampler": Program(sample, weights, shared | seeds, name),
    }


def _step(stage, options, predict, z, log_snr, log_snr_next) -> dict[str, jax.Array]:
    """One deterministic step, and the estimate of the clean video that it goes by."""
    x0, _ = clean_estimate(stage, options, predict(z, log_snr), z, log_snr)
    return {"z": ddim_step(z, x0, log_snr, log_snr_next).astype(z.dtype), "x0": x0}


def _flat(params: Params, dtype: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the weights as a bundle of that dtype has them."""
    shapes, Shape = {}, jax.ShapeDtypeStruct
    for path, leaf in flatten_dict(params).items():
        name = SEPARATOR.join(path)
        if dtype == "int8" and quantization.is_kernel(name, leaf):
            shapes[name] = Shape(leaf.shape, jnp.int8)
            scales = quantization.scale_shape(leaf.shape)
            shapes[name + quantization.SCALE] = Shape(scales, jnp.float32)
        else:
            shapes[name] = Shape(leaf.shape, jnp.dtype("bfloat16" if dtype == "int8" else dtype))
    return shapes


def _params(weights: Weights) -> Params:
    leaves = quantization.dequantize(weights)
    return unflatten_dict(
        {tuple(name.split(SEPARATOR)): leaf.astype(jnp.float32) for name, leaf in leaves.items()}
    )


def _export(program: Program, platforms: Sequence[str]) -> jax.export.Exported:
    scope = jax.export.SymbolicScope()
    inputs = {
        name: jax.ShapeDtypeStruct(
            jax.export.symbolic_shape(", ".join(map(str, shape)), scope=scope), jnp.dtype(dtype)
        )
        for name, (shape, dtype) in program.inputs.items()
    }
    function = jax.jit(lambda weights, inputs: program.call(weights, **inputs))
    return jax.export.export(function, platforms=tuple(platforms))(dict(program.weights), inputs)


def _description(program: Program, exported: jax.export.Exported, data: bytes) -> dict[str, Any]:
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "stage": program.stage,
        "weights": {
            name: {"shape": list(aval.shape), "dtype": str(aval.dtype)}
            for name, aval in program.weights.items()
        },
        "inputs": {
            name: {"shape": list(shape), "dtype": dtype}
            for name, (shape, dtype) in program.inputs.items()
        },
        "outputs": {
            name: {"shape": [d if isinstance(d, int) else str(d) for d in aval.shape],
                   "dtype": str(aval.dtype)}
            for name, aval in outputs.items()
        },
        "log_snr": list(program.noise_levels),
        "calling_convention": exported.calling_convention_version,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
