"""What annotations call an array: `Float[Array, "batch time height width channels"]`."""

from typing import TYPE_CHECKING

import jax
import numpy as np

if TYPE_CHECKING:
    Array = jax.Array
else:
    # Whatever computes with JAX takes NumPy's arrays as well, and returns what it was given where
    # it computes nothing. Tests, which check annotations at run time, pass either.
    Array = jax.Array | np.ndarray
