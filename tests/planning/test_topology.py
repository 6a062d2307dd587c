import importlib.util
import os
import types

import jax
import pytest
from jax._src import cloud_tpu_init

from lumiere_jax.planning import topology
from lumiere_jax.planning.topology import CHIPS, GIB, parse, present
from lumiere_jax.runtime.errors import UserError


def test_names():
    assert parse("v5p:4x4x8") == (CHIPS["v5p"], (4, 4, 8))
    assert parse("v5e:16x16") == (CHIPS["v5e"], (16, 16))
    assert CHIPS["v5p"].hbm == 95 * GIB and CHIPS["v5p"].peak == 459e12


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5p", "is not a chip .* a colon"),
        ("v9:2x2", "is not a chip .*v4, v5e, v5p"),
        ("h100:0", "nor a number of GPUs .*h100"),
        ("v5p:4x4", "a slice of v5p has 3 sides"),
        ("v5e:2x2x2", "a slice of v5e has 2 sides"),
        ("v5e:0x2", "of 1 or more chips"),
    ],
)
def test_names_that_mean_nothing(name, message):
    with pytest.raises(UserError, match=message):
        parse(name)


def test_missing_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"libtpu.*is not installed.*pip install -e '.\[tpu\]'"):
        topology.describe_slice("v5e:2x2")


def test_flags_of_the_compiler_are_those_that_jax_gives_it_on_a_tpu(monkeypatch):
    known = types.SimpleNamespace(value="known")
    settings = types.SimpleNamespace(jax_platforms=known, jax_pjrt_client_create_options=known)
    monkeypatch.setattr(cloud_tpu_init, "config", settings)
    found = []
    for prepare in (topology.prepare_environment, cloud_tpu_init.cloud_tpu_init):
        environment = {"LIBTPU_INIT_ARGS": "--mine", "JAX_FORCE_TPU_INIT": "1"}
        monkeypatch.setattr(os, "environ", environment)
        prepare()
        prepare()
        found.append(environment["LIBTPU_INIT_ARGS"])
    assert found[0] == found[1] and found[0].startswith("--mine --xla_tpu")


def test_number_of_slices():
    with pytest.raises(UserError, match="--num_slices=0 must be 1 or more"):
        topology.describe_slice("v5e:2x2", 0)


def test_present_devices():
    target = present()
    assert target.devices == jax.devices() and target.chips == jax.device_count()
    assert target.chip is None and target.devices_per_chip == 1
    assert topology.describe_slice("here") == target
