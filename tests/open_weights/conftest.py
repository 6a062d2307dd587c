"""Both stages as `diffusers` has them, and imported; shared, so not to be changed."""

import pytest

from lumiere_jax.open_weights.importing import import_weights
from tests.open_weights import deepfloyd


@pytest.fixture(scope="session", name="pipelines")
def fixture_pipelines():
    return {"t2i": deepfloyd.stage_one(), "ssr": deepfloyd.stage_two()}


@pytest.fixture(scope="session", name="sources")
def fixture_sources(pipelines, tmp_path_factory):
    """Directories of both stages; stage I has a text encoder, stage II an index of many files."""
    sources = {}
    for name, pipeline in pipelines.items():
        options = {"max_shard_size": "300KB"} if name == "ssr" else {}
        sources[name] = tmp_path_factory.mktemp("deepfloyd") / name
        pipeline.save_pretrained(sources[name], **options)
    deepfloyd.write_text_encoder(sources["t2i"] / "text_encoder")
    return sources


@pytest.fixture(scope="session", name="workdirs")
def fixture_workdirs(sources, tmp_path_factory):
    """Workdirs of both stages, imported."""
    workdirs = {}
    for name, source in sources.items():
        workdirs[name] = tmp_path_factory.mktemp("imported") / name
        import_weights(source, name, workdirs[name], quiet=True)
    return workdirs
