"""That the annotations of shapes are checked in tests: `tests/conftest.py` sees to it."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from lumiere_jax.models.ssr import EfficientUNet
from lumiere_jax.models.ssr_unet import SuperResolutionUNet
from lumiere_jax.models.stunet import STUNet
from lumiere_jax.models.unet import UNet

FIELDS = {
    "widths": (8, 8),
    "layers_per_level": 1,
    "attention_levels": (False, False),
    "head_dim": 8,
    "text_features": 8,
    "pooling_heads": 2,
    "groups": 4,
}
BASE = {
    "x": (4, 2, 8, 8, 3),
    "time": (4,),
    "text": (4, 5, 6),
    "text_mask": (4, 5),
}
REFINING = {
    "z": (4, 2, 8, 8, 3),
    "low_resolution": (4, 2, 8, 8, 3),
    "augmentation_level": (4,),
} | {name: BASE[name] for name in ("time", "text", "text_mask")}
EFFICIENT = EfficientUNet((8, 8), (1, 1), (1, 2), embedding_features=8, head_dim=8, groups=4)


@pytest.mark.parametrize(
    ("network", "shapes", "wrong"),
    [
        (UNet(**FIELDS), BASE, {"x": (4, 8, 8, 4)}),
        (UNet(**FIELDS), BASE, {"x": (8, 8, 3)}),
        (UNet(**FIELDS), BASE, {"time": (2,)}),
        (UNet(**FIELDS), BASE, {"text": (2, 5, 6)}),
        (UNet(**FIELDS), BASE, {"text_mask": (4, 6)}),
        (STUNet(**FIELDS), BASE, {"x": (4, 8, 8, 3)}),
        (EFFICIENT, REFINING, {"low_resolution": (4, 2, 4, 4, 3)}),
        (SuperResolutionUNet(**FIELDS), REFINING, {"low_resolution": (4, 1, 8, 8, 3)}),
        (SuperResolutionUNet(**FIELDS), REFINING, {"augmentation_level": (2,)}),
    ],
)
def test_a_wrong_shape_is_caught(network, shapes, wrong):
    def init(shapes):
        arrays = {
            name: jax.ShapeDtypeStruct(shape, bool if name == "text_mask" else jnp.float32)
            for name, shape in shapes.items()
        }
        return jax.eval_shape(network.init, jax.random.key(0), **arrays)

    init(shapes)
    with pytest.raises(TypeCheckError):
        init(shapes | wrong)
