"""What the eval binary computes of every video, made ready for the compiler by shapes alone."""

import jax
import jax.numpy as jnp

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.metrics.i3d import I3D, MIN_FRAMES
from lumiere_jax.metrics.preprocessing import SIZE
from lumiere_jax.models.parameters import count
from lumiere_jax.planning import flops
from lumiere_jax.planning.compile import Step, bytes_a_device, place
from lumiere_jax.planning.topology import Target
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import by_clip, create_mesh, on_every_device, replicated

FVD_FRAMES = 16


def feature_step(clips_a_device: int, target: Target, num_frames: int = FVD_FRAMES) -> Step:
    """I3D's logits of a batch, as `lumiere_jax.evaluation` compiles it.

    Args:
      clips_a_device: how many of the batch each device has.
      target: the devices.
      num_frames: of a clip.

    Raises:
      UserError: if there are too few frames.
    """
    if num_frames < MIN_FRAMES:
        raise UserError(f"--num_frames={num_frames}: I3D needs {MIN_FRAMES} frames or more.")
    mesh = create_mesh(ConfigDict({"data": -1, "fsdp": 1, "space": 1}), target.devices)
    batch_size = clips_a_device * mesh.size
    clips = jax.ShapeDtypeStruct((batch_size, num_frames, SIZE, SIZE, 3), jnp.float32)
    params = jax.eval_shape(I3D().init, jax.random.key(0), clips)["params"]
    placed = place(params, replicated(mesh))

    def apply(params: dict, clips: jax.Array) -> jax.Array:
        return I3D().apply({"params": params}, clips)

    step = on_every_device(apply, mesh)
    return Step(
        compile=lambda: step.lower(placed, place(clips, by_clip(mesh))).compile(),
        mesh=mesh,
        batch=batch_size,
        repeats=1,
        trainable=0,
        frozen=count(params),
        held=bytes_a_device(placed),
        model_flops=flops.count(apply, params, clips).total,
    )
