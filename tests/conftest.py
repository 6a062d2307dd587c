"""Settings of the process that every test shares; they must be made before JAX is imported."""

import gc
import os
import shutil
import signal
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

import tests.annotations  # noqa: F401  # named below

REPOSITORY = Path(__file__).parents[1]

_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    # Compiled programs are shared between the test processes and kept for the next run.
    "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".cache" / "jax_tests"),
    "LUMIERE_CACHE": str(REPOSITORY / ".cache" / "program_tests"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # Tests wait for compilation, not for what is compiled: 2.5 to 5 times faster on 2 cores.
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
    "--xla_force_host_platform_device_count=1",
    # Where in the source an operation comes from is looked up for each, and read by nobody.
    "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",
    # There is a test process for each core: more threads would only wait for each other.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # No test may reach for the network.
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "Agg",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

# Tracing makes millions of objects that live on: looking for garbage took an eighth of the time.
gc.set_threshold(100_000, 20, 20)

# The annotations of these rooms are checked at every call, with the shapes of arrays; outside of
# tests they cost nothing. It comes before the first import of what it names.
_ROOMS = [
    "cascade.denoising", "diffusion.discrete", "diffusion.distillation", "diffusion.guidance",
    "diffusion.losses", "diffusion.low_resolution", "diffusion.multidiffusion",
    "diffusion.parameterization", "diffusion.projected_guidance", "diffusion.samplers",
    "diffusion.schedule", "diffusion.thresholding", "diffusion.zero_guidance", "inference.pipeline",
    "inference.sampling", "inference.stablehlo", "inference.storyboard", "inference.style",
    "inference.editing", "inference.inputs", "inference.regions",
    "inference.outputs", "metrics", "models", "text.t5_network",
    "training.step",
]  # fmt: skip
jaxtyping.install_import_hook(
    [f"lumiere_jax.{room}" for room in _ROOMS],
    "tests.annotations.check",  # numbers may be whole ones
)

# Behind `nohup ... &` signals are ignored, and by all processes that are started here as well.
for _signal, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, lambda *_: None),
):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)

# The same examples on every machine: a failure seen once can be seen again.
settings.register_profile("lumiere", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("lumiere")


@pytest.fixture(name="without_annotations")
def fixture_without_annotations():
    """Annotations are not checked: for batches without a number, and what users may get wrong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(name="without_tensorflow")
def fixture_without_tensorflow(tmp_path, monkeypatch):
    """To import it takes seconds, and is an error here in processes of their own."""
    folder = tmp_path / "no_tensorflow"
    folder.mkdir()
    (folder / "tensorflow.py").write_text("raise RuntimeError('TensorFlow is imported')")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{REPOSITORY}")


@pytest.fixture(scope="session")
def cascade(tmp_path_factory) -> dict[str, Path]:
    """Workdirs of the four stages, each trained for a few steps; shared, so not to be changed."""
    from tests.tiny_runs import train_cascade

    # With pytest-xdist every process has a folder of its own below one that all share.
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    folder = tmp_path_factory.getbasetemp()
    return train_cascade((folder.parent if is_worker else folder) / "cascade")


@pytest.fixture(scope="module", autouse=True)
def fixture_memory():
    """Compiled programs are forgotten when a process takes a sixth of the memory, as three run."""
    yield
    memory = Path("/proc/self/statm")  # in pages; Linux alone has it
    if memory.exists() and 6 * int(memory.read_text().split()[1]) > os.sysconf("SC_PHYS_PAGES"):
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture(name="browser", scope="module")
def fixture_browser():
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=200_000)  # milliseconds; a machine may be busy
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(name="open_page")
def fixture_open_page(browser):
    """Opens an address as a new person would; errors of its scripts fail the test."""
    contexts, errors = [], []

    def open_page(url: str, **options):
        context = browser.new_context(**({"viewport": {"width": 1000, "height": 700}} | options))
        context.set_default_timeout(200_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors


# The slowest first, or one process would end long after the other. The first trains the cascade,
# for which the other process would wait: it gets the next four, which do without.
_FIRST = (
    "test_train.py", "test_training.py", "test_eight_devices_training.py", "test_own_videos.py",
    "test_processes.py", "test_pages_training.py", "test_serve.py", "test_distill.py",
    "test_pages_making.py", "test_peers.py", "test_pages_beyond.py", "test_page.py",
    "test_inflating.py", "test_i3d.py", "test_eval.py", "test_eight_devices_sampling.py",
    "test_temporal_downsampling.py", "test_verbs.py", "test_plan.py", "test_plan_command.py",
    "test_style_interpolation.py", "test_browser.py", "test_t5_training.py", "test_kills.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take minutes in the order of `_FIRST`."""
    gc.freeze()  # what was imported stays
    ranks = {name: rank for rank, name in enumerate(_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))
