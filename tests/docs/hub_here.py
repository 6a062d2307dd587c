"""`LumierePipeline` with a model hub on this machine, for as long as the process runs."""

import os
import tempfile

from tests.checkpoints.hub_stand_in import StandIn

os.environ |= {
    "HF_ENDPOINT": StandIn().address,
    "HF_HOME": tempfile.mkdtemp(dir="."),
    "HF_HUB_OFFLINE": "0",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_TOKEN": "hf_secret",
}

from lumiere_jax.inference.pipeline import LumierePipeline  # noqa: E402

__all__ = ["LumierePipeline"]
