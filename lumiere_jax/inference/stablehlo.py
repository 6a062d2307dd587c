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
from jaxtyping import Array

from lumiere_jax import __version__
from lumiere_jax.cascade.denoising import Denoiser, Inputs, Numbers, for_network
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import quantization
from lumiere_jax.checkpoints.bundle import SEPARATOR
from lumiere_jax.diffusion.samplers import ddim_step, sampling_steps
from lumiere_jax.diffusion.schedule import with_spacing
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.sampling import StageSampler, sample_keys
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import keep_others, local, written_folder

PLATFORMS = ("cpu", "tpu", "cuda")
MANIFEST = "programs.json"
SUFFIX = ".stablehlo"

Weights = dict[str, Array]
Shape = tuple[int | str, ...]
Input = tuple[Shape, str]  # shape and dtype; the batch is the letter "b"


@dataclasses.dataclass(frozen=True)
class Program:
    """A function to export."""

    call: Callable[..., dict[str, Array]]  # call(weights, **inputs)
    weights: Mapping[str, jax.ShapeDtypeStruct]
    inputs: Mapping[str, Input]
    stage: str  # whose weights it takes, by its name in the bundle
    noise_levels: tuple[float, ...] = ()  # log-SNR of every step, for the caller of a single step


def export_programs(
    pipeline: LumierePipeline,
    output: str | Path,
    *,
    num_frames: int | None = None,
    dtype: str = "bfloat16",
    platforms: Sequence[str] = PLATFORMS,
    stages: Sequence[str] = (),
) -> list[Path]:
    """Writes the step and the sampler of every stage, for any batch, and returns the files.

    Args:
      pipeline: whose stages, with the sampling options of their configs.
      output: folder to make; programs that are there are replaced, and other files stay.
      num_frames: frames of a video; None for what the base was trained on.
      dtype: of the bundle that a program takes its weights from; it computes in that of the config.
      platforms: of "cpu", "tpu", "cuda" and "rocm".
      stages: their names in the bundle, base first; their kinds if not given.

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
    programs = _programs(pipeline, pipeline.checked_frames(num_frames), dtype, stages)
    with written_folder(output) as folder:
        described = {}
        for name, program in programs.items():
            exported = _export(program, platforms)
            data = bytes(exported.serialize())
            (folder / f"{name}{SUFFIX}").write_bytes(data)
            described[name] = _description(program, exported, data)
        made_by = {"program": f"lumiere_jax {__version__}", "jax": jax.__version__}
        manifest = made_by | {"platforms": list(platforms), "programs": described}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        if output.exists():
            keep_others(output, folder, [path.name for path in output.glob(f"*{SUFFIX}")])
    return [output / f"{name}{SUFFIX}" for name in programs]


def _programs(
    pipeline: LumierePipeline, frames: int, dtype: str, stages: Sequence[str]
) -> dict[str, Program]:
    """The programs of a pipeline: "STAGE_step" and "STAGE_sampler" of each of its stages."""
    made, size = [], pipeline.base[0].config.data.resolution
    for index, (stage, params) in enumerate([pipeline.base, *pipeline.super_resolution]):
        size *= stage.ssr.factor if index else 1
        name = stage.name if index < 2 else f"{stage.name}_{index}"
        exported = _ExportedStage(stage, index, ("b", frames, size, size, 3))
        made.append(exported.programs(name, _flat(params, dtype)))
    return {
        name: dataclasses.replace(program, stage=stage) if stage else program
        for stage, programs in zip(stages or [""] * len(made), made, strict=True)
        for name, program in programs.items()
    }


class _ExportedStage:
    """A stage as functions of arrays by name, as the programs take and return them."""

    def __init__(self, stage: Stage, index: int, video: Shape):
        """Takes the stage's place in the cascade, and the shape of the videos that it makes."""
        self._stage, self._index, self._video = stage, index, video
        self._options = SamplingOptions.from_config(stage.config)
        self._sampler = StageSampler(stage, self._options, int(video[1]))

    def programs(
        self, name: str, weights: Mapping[str, jax.ShapeDtypeStruct]
    ) -> dict[str, Program]:
        """The step and the sampler."""
        schedule = with_spacing(self._stage.schedule, self._options.spacing)
        steps = sampling_steps(schedule, self._options.num_steps)
        levels = tuple(float(x) for x in np.asarray(steps.log_snr))
        noisy: dict[str, Input] = {"z": (self._video, "float32"), "log_snr": (("b",), "float32"),
                                   "log_snr_next": (("b",), "float32")}  # fmt: skip
        seeds: dict[str, Input] = {"seeds": (("b",), "uint32")}
        given = self._given()
        if self._stage.is_super_resolution:
            noisy |= seeds
        return {
            f"{name}_step": Program(self.step, weights, noisy | given, name, levels),
            f"{name}_sampler": Program(self.sample, weights, given | seeds, name),
        }

    def step(
        self, weights: Weights, z: Array, log_snr: Array, log_snr_next: Array, **given: Array
    ) -> dict[str, Array]:
        """One deterministic step, and the estimate of the clean video that it goes by.

        It remembers nothing of the steps before: APG has no momentum, and guidance asks each time.
        """
        options, frames, params = self._options, int(self._video[1]), _params(weights)
        if "seeds" not in given:  # a base draws nothing
            given["seeds"] = jnp.zeros(log_snr.shape, jnp.uint32)
        levels = self._stage.schedule.sampling_log_snrs(options.num_steps, spacing=options.spacing)
        numbers = Numbers.of(options, levels)
        shown = for_network(self._stage, self._inputs(**given))
        denoiser = Denoiser.for_steps(self._stage, options, numbers, params, shown, frames)
        x0 = denoiser(z, log_snr).x0
        return {"z": ddim_step(z, x0, log_snr, log_snr_next).astype(z.dtype), "x0": x0}

    def sample(self, weights: Weights, **given: Array) -> dict[str, Array]:
        """The whole sampler."""
        return {"video": self._sampler.sample(_params(weights), self._inputs(**given))}

    def _inputs(self, seeds: Array, **given: Array) -> Inputs:
        return Inputs(keys=sample_keys(seeds, self._index), **given)

    def _given(self) -> dict[str, Input]:
        """What both programs take beside the weights."""
        stage, (batch, frames, height, width, channels) = self._stage, self._video
        text = stage.config.text
        given: dict[str, Input] = {
            "text": ((batch, text.max_length, text.dim), "float32"),
            "text_mask": ((batch, text.max_length), "bool"),
        }
        if stage.is_conditional:
            given["known"] = ((batch, frames, height, width, 4), "float32")
        if stage.is_super_resolution:
            small = (int(size) // stage.ssr.factor for size in (height, width))
            given["video"] = ((batch, frames, *small, channels), "float32")
        return given


def _flat(params: Params, dtype: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the weights as a bundle of that dtype has them."""
    shapes = {}
    for path, leaf in flatten_dict(params).items():
        name = SEPARATOR.join(path)
        if dtype == "int8" and quantization.is_kernel(name, leaf):
            shapes[name] = jax.ShapeDtypeStruct(leaf.shape, jnp.int8)
            scales = quantization.scale_shape(leaf.shape)
            shapes[name + quantization.SCALE] = jax.ShapeDtypeStruct(scales, jnp.float32)
        else:
            stored = jnp.dtype("bfloat16" if dtype == "int8" else dtype)
            shapes[name] = jax.ShapeDtypeStruct(leaf.shape, stored)
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
