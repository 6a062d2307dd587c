"""The names of the methods of guidance, apart from them: flags that list them need no JAX."""

from typing import Literal, get_args

GuidanceName = Literal["cfg", "apg", "cfg_zero"]
GUIDANCES: tuple[str, ...] = get_args(GuidanceName)
