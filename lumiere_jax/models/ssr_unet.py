"""Super-resolution by the text-to-image U-Net, and its inflation.

The image network takes the up-sampled low-resolution image as further channels and sees how
much noise that has: DeepFloyd IF's stage II is one of its configurations. It is inflated as the
Efficient U-Net of `ssr.py` is: by a residual temporal convolution after every layer, zero at
first, below a top-level name with the prefix `temporal_`; there is no temporal resampling, so it
takes any number of frames.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from lumiere_jax.models.layers import FeatureMap, Text, TextMask, rematerialize
from lumiere_jax.models.ssr import TemporalResidual
from lumiere_jax.models.unet import UNet
from lumiere_jax.runtime.arrays import Array


class SuperResolutionUNet(UNet):
    """A U-Net that refines images (time = 1) and, where `inflated`, videos."""

    inflated: bool = False  # whether there are temporal convolutions
    in_channels: int = 6  # the noisy image's and the low-resolution image's
    augmentation: bool = True  # it sees the noise level of the low-resolution image

    @nn.nowrap
    def check_fields(self, channels: int, text_dim: int) -> None:
        """See `UNet.check_fields`."""
        super().check_fields(2 * channels, text_dim)

    def __call__(  # type: ignore[override]  # another network, built of the same layers
        self,
        z: Float[Array, "batch time height width channels"],
        time: Float[Array, " batch"],
        text: Text,
        text_mask: TextMask | None = None,
        *,
        low_resolution: Float[Array, "batch time height width channels"],
        augmentation_level: Float[Array, " batch"],
    ) -> Float[Array, "batch time height width {self.out_channels}"]:
        """See `EfficientUNet.__call__`."""
        x = jnp.concatenate([z, low_resolution], axis=-1)
        return super().__call__(x, time, text, text_mask, augmentation_level)

    @nn.nowrap
    def inflate_layer(self, x: FeatureMap, context: int, level: int, name: str) -> FeatureMap:
        """The temporal convolution that follows a layer, where inflated."""
        if not self.inflated:
            return x
        block = rematerialize(TemporalResidual, self.remat, static=(2,))
        return block(self.groups, self.dtype, name=f"temporal_{name}")(x, context)
