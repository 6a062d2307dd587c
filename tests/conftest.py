"""Settings of the process that every test shares; they must be made before JAX is imported."""

import os
from pathlib import Path

from hypothesis import settings

REPOSITORY = Path(__file__).parents[1]

_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    # Compiled programs are shared between the test processes and kept for the next run.
    "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".cache" / "jax_tests"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # Two test processes on two cores: more threads would only wait for each other.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # No test may reach for the network.
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "Agg",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

# The same examples on every machine: a failure seen once can be seen again.
settings.register_profile("lumiere", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("lumiere")
