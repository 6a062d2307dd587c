"""One declaration of options: its flags, its checks, and its words."""

import dataclasses
from typing import Literal

import pytest
from absl import flags

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.options import check, declared, define_flag, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cake:
    layers: int = option(2, "Layers.", name="floors", minimum=1, maximum=9)
    height: float | None = option(None, "Centimetres.", above=0)
    taste: Literal["nut", "lemon"] = option("nut", "Taste.", choices=("nut", "lemon"))
    iced: bool = option(False, "With icing.")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": 0}, "^floors=0 must be at least 1 and at most 9.$"),
        ({"layers": None}, "^floors=None must be at least 1"),
        ({"height": 0.0}, "^height=0.0 must be above 0.$"),
        ({"height": float("inf")}, "^height=inf must be above 0.$"),
        ({"height": float("nan")}, "^height=nan must be above 0.$"),
        ({"taste": "mud"}, "^taste=mud must be one of nut, lemon.$"),
    ],
)
def test_a_value_out_of_range_is_told_by_the_name_that_users_know(values, message):
    with pytest.raises(UserError, match=message):
        check(Cake, values)


def test_values_in_range_pass():
    check(Cake, {"layers": 9, "height": None, "taste": "lemon", "iced": True})
    check(Cake, {"height": 1e-9})
    check(Cake, vars(Cake()))


def test_flags_parse_and_check():
    values = flags.FlagValues()
    for found in declared(Cake).values():
        define_flag(found, flag_values=values)
    values(["cake"])
    assert values.flag_values_dict() == {
        "floors": 2, "height": None, "taste": "nut", "iced": False
    }  # fmt: skip
    values(["cake", "--floors=3", "--height=0.5", "--taste=lemon", "--iced"])
    assert (values.floors, values.height, values.taste, values.iced) == (3, 0.5, "lemon", True)
    told = values.main_module_help() + values.get_help()
    assert "an integer, at least 1 and at most 9" in told and "one of nut, lemon" in told
    for argument, message in (
        ("--floors=0", "--floors=0: must be at least 1"),
        ("--floors=2.5", "must be an integer"),
        ("--height=tall", "must be a number"),
        ("--taste=mud", "must be one of nut, lemon"),
    ):
        with pytest.raises(flags.IllegalFlagValueError, match=message):
            values(["cake", argument])
