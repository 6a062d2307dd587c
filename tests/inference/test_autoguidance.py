"""A weaker network of the same kind guides; combining both is tested in tests/diffusion."""

import numpy as np
import pytest

from lumiere_jax.cascade.denoising import Inputs, WithGuide
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.sampling import StageSampler, sample_keys
from lumiere_jax.runtime.errors import UserError
from tests.inference.test_sampling import (
    PARAMS,
    PROMPTS,
    formula_stage,
    noise,
    numpy_formula,
    numpy_threshold,
)

PROMPT = ["a large red circle moving right"]


@pytest.mark.parametrize(("method", "scale"), [("cfg", 3.0), ("apg", 3.0), ("cfg", 1.0)])
def test_one_step_by_hand(method, scale):
    """The guide's estimates are those for the same prompt, but for its parameters."""
    stage = formula_stage("stunet")
    options = SamplingOptions(
        num_steps=1, guidance=method, guidance_scale=scale, guidance_parallel=1.0,
        threshold_percentile=90.0,
    )  # fmt: skip
    (text, mask), keys = stage.text_encoder(PROMPTS), sample_keys([3, 4], 0)
    weights = WithGuide(PARAMS, {"bias": PARAMS["bias"] - 0.2})
    video = StageSampler(stage, options, 6)(weights, Inputs(text, mask, keys))
    estimate = numpy_formula(noise(keys, 0, (6, 16, 16, 3)), text)
    expected = numpy_threshold(estimate + (scale - 1) * 0.2, 90.0)
    np.testing.assert_allclose(video, expected, atol=2e-5)


def test_a_network_that_guides_itself_changes_nothing(cascade):
    base = cascade["stunet"]
    pipeline = LumierePipeline.from_checkpoints(base, guide=base, show_progress=False)
    assert len(pipeline.fingerprints()) == 2 and len(set(pipeline.fingerprints())) == 1
    guided, alone = (pipeline(PROMPT, num_steps=2, guidance_scale=scale) for scale in (1.5, 1.0))
    np.testing.assert_allclose(guided, alone, atol=1e-4)
    with pytest.raises(UserError, match="negative prompt has no place where another network"):
        pipeline(PROMPT, num_steps=2, negative_prompt="a red circle")


def test_a_guide_of_another_kind(cascade):
    with pytest.raises(UserError, match="model.name='unet', but .* or a guide that was trained"):
        LumierePipeline.from_checkpoints(cascade["stunet"], guide=cascade["t2i"])
