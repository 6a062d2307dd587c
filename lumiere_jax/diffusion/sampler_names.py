"""The names of the samplers, apart from them: flags that list the names need no JAX."""

from typing import Literal, get_args

SamplerName = Literal["ddim", "ancestral", "dpmpp_2m", "ddpm"]
SAMPLERS: tuple[str, ...] = get_args(SamplerName)
