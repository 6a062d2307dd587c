"""Super-resolution by the text-to-image U-Net, and its inflation.

The image network takes the up-sampled low-resolution image as further channels and is told how
much noise that has: DeepFloyd IF's stage II is one of its configurations. It is inflated as the
Efficient U-Net of `ssr.py` is: by a residual temporal convolution after every layer, zero at
first, below a top-level name with the prefix `temporal_`; there is no temporal resampling, so it
takes any number of frames.
"""

import flax.linen as nn
import jax.numpy as jnp

from lumiere_jax.models.layers import Array, rematerialize
from lumiere_jax.models.ssr import TemporalResidual
from lumiere_jax.models.unet import UNet
from lumiere_jax.runtime.errors import UserError


class SuperResolutionUNet(UNet):
    """A U-Net that refines images (time = 1) and, where `inflated`, videos.

    Attributes:
      inflated: whether there are temporal convolutions.
      in_channels: 6: the noisy image's and the low-resolution image's.
      augmentation: it is told the noise level of the low-resolution image.
    """

    inflated: bool = False
    in_channels: int = 6
    augmentation: bool = True

    def __call__(
        self,
        z: Array,
        time: Array,
        text: Array,
        text_mask: Array | None = None,
        *,
        low_resolution: Array,
        augmentation_level: Array,
    ) -> Array:
        """Predicts noise, v or x0 (whatever it was trained for) from noisy pixels.

        Args:
          z: noisy video `[batch, time, height, width, 3]`.
          time: noise level as the schedule tells it to networks, `[batch]`.
          text: embeddings of the prompts `[batch, length, dim]`.
          text_mask: true for real tokens, `[batch, length]`, or None for all.
          low_resolution: the clip to refine, up-sampled to the size of `z` and augmented with
            noise, `[batch, time, height, width, 3]`.
          augmentation_level: how much noise that was, in [0, 1], `[batch]`.

        Returns:
          `[batch, time, height, width, out_channels]`, float32.

        Raises:
          UserError: if shapes do not fit each other or the fields of this network.
        """
        if low_resolution.shape[:-1] != z.shape[:-1]:
            raise UserError(
                f"super-resolution network: the low-resolution clip {low_resolution.shape} must "
                f"be up-sampled to the batch, time, height and width of the video {z.shape}."
            )
        x = jnp.concatenate([z, low_resolution], axis=-1)
        return super().__call__(x, time, text, text_mask, augmentation_level)

    @nn.nowrap
    def inflate_layer(self, x: Array, context: int, level: int, name: str) -> Array:
        """The temporal convolution that follows a layer, where inflated."""
        if not self.inflated:
            return x
        block = rematerialize(TemporalResidual, self.remat, static=(2,))
        return block(self.groups, self.dtype, name=f"temporal_{name}")(x, context)
