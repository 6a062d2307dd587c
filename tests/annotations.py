"""How tests check the annotations of functions."""

from beartype import BeartypeConf
from beartype import beartype as _beartype

# An int is a float, as PEP 484 says.
check = _beartype(conf=BeartypeConf(is_pep484_tower=True))
