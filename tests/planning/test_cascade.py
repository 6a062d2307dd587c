"""A cascade on chips that are not there, with plans that are made up."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import pytest

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.planning import cascade, report
from lumiere_jax.planning.plan import Plan
from lumiere_jax.planning.topology import CHIPS, GIB, Target, present
from lumiere_jax.runtime.errors import UserError
from tests.tiny_runs import tiny_config

WEIGHTS = {"kernel": jax.ShapeDtypeStruct((4096, 4096), jnp.float32)}


@pytest.fixture(autouse=True)
def _networks_of_64_mib(monkeypatch):
    """Shapes of networks are traced elsewhere, which takes seconds."""
    monkeypatch.setattr(Stage, "param_shapes", WEIGHTS)


@dataclasses.dataclass(frozen=True)
class Device:
    id: int
    coords: tuple[int, ...]
    platform: str = "stand-in"
    process_index: int = 0


def slice_of(chip, *sides):
    places = itertools.product(*map(range, sides))
    devices = [Device(i, (*place, 0)) for i, place in enumerate(places)]
    count = len(devices)
    return Target(name=chip, num_slices=1, chip=CHIPS[chip], chips=count, devices=devices)


class Plans:
    """Makes plans of steps that take a second or so, and remembers of what."""

    def __init__(self, **fields):
        self.made, self.fields = [], fields

    def __call__(self, config, mode, num_frames):
        self.made.append((config, mode, num_frames))
        is_ssr = "ssr" in config
        guided = mode == "sample" and config.sampling.guidance_scale != 1
        seconds = 0.5 if mode == "text" else 3.0 if is_ssr else 2.0 if guided else 1.0
        mesh = {"data": 1, "fsdp": 1, "space": 1} if mode == "text" else config.mesh.to_dict()
        fields = {
            "config": "?", "mode": mode, "topology": "?", "num_slices": 1, "chips": 8,
            "mesh": mesh, "remat": "none", "batch": max(mesh["fsdp"], 1),
            "repeats": 50, "trainable": 0, "frozen": 10, "fits": True, "hbm": 32 * GIB,
            "needed": 6 * GIB, "arguments": 4 * GIB, "temporaries": GIB, "outputs": GIB // 2,
            "program": GIB // 2, "model_flops": 1.0, "seconds": seconds / 2, "utilization": 0.5,
            "seconds_with_collectives": seconds, "utilization_with_collectives": 0.25,
            "compile_seconds": 60.0, "versions": {}, "date": "",
        }  # fmt: skip
        return Plan(**{**fields, **self.fields})


def stages(**fields):
    base = tiny_config("stunet", sampling__num_steps=10, sampling__guidance_scale=4.0, **fields)
    ssr = tiny_config("ssr", sampling__num_steps=5, sampling__guidance_scale=1.0)
    return base, ssr


def test_times_of_a_prompt():
    base, ssr = stages()
    plans, target = Plans(), slice_of("v6e", 2, 4)
    whole = cascade.plan_cascade(base, ssr, target, plans, distilled_steps=(4, 2))
    frames = base.data.num_frames
    assert [(t.name, t.steps, t.base, t.ssr) for t in whole.times] == [
        ("reference", (256, 128), 512.0, 384.0),  # both branches of guidance
        ("default", (10, 5), 20.0, 15.0),
        ("distilled", (4, 2), 4.0, 6.0),  # students learnt guidance
    ]
    moved = whole.times[0].transfers
    low, high = (frames * side**2 * 3 * 4 for side in (16, 64))
    to_host = (3 * 128 * base.text.dim * 4 + high / 8) / 32e9
    hops = 4e-6  # of the clip to all chips, which is small
    assert moved == pytest.approx(to_host + max(7 / 8 * low / 200e9, hops))
    assert whole.times[1].latency == pytest.approx(35 + moved)
    assert whole.times[1].prompts_an_hour == pytest.approx(3600 / (35 + moved))
    # The stages' states stay, and one of them runs at a time; a student takes the teacher's place.
    assert whole.weights == 8 * GIB and whole.programs == GIB
    assert whole.needed == 9 * GIB + 3 * GIB // 2 and whole.fits
    assert whole.load == 9 * GIB / 32e9
    figures = json.loads(json.dumps(whole.to_json()))
    assert figures["fits"] and figures["times"][1]["latency"] == whole.times[1].latency
    assert figures["plans"]["ssr"]["seconds_with_collectives"] == 3.0
    told = report.cascade(whole)
    assert f"{frames}×64×64 on v6e" in told and "The text encoder is not T5 XXL" in told
    assert "it fits" in told and "256 + 128" in told and "no hardware was timed" in told


def test_steps_between_those_of_guidance_ask_the_network_once():
    base, ssr = stages(sampling__guidance_every=3)
    whole = cascade.plan_cascade(base, ssr, slice_of("v6e", 2, 4), Plans())
    assert [t.base for t in whole.times] == [86 * 2 + 170, 4 * 2 + 6, 4]


def test_stages_share_a_clip_as_far_as_they_can():
    plans = Plans()
    whole = cascade.plan_cascade(*stages(), slice_of("v6e", 4, 4), plans)
    (base, mode, frames), (ssr, _, ssr_frames), (unguided, _, _) = plans.made
    assert mode == "sample" and frames is None and ssr_frames == base.data.num_frames
    # Eight rows at the coarsest level of the base; super-resolution shares windows and 64 rows.
    assert base.mesh.to_dict() == {"data": -1, "fsdp": 2, "space": 8}
    assert ssr.mesh.to_dict() == {"data": -1, "fsdp": 1, "space": 16}
    assert unguided.sampling.guidance_scale == 1 and unguided.mesh == base.mesh
    # The base makes two clips at once, and they are refined one after the other.
    assert (whole.times[1].prompts, whole.times[1].base, whole.times[1].ssr) == (2, 20.0, 30.0)


def test_weights_are_split_where_they_need_it(monkeypatch):
    monkeypatch.setitem(CHIPS, "v6e", dataclasses.replace(CHIPS["v6e"], hbm=120 * 2**20))
    plans = Plans(arguments=30 * 2**20, temporaries=2**20, outputs=0, program=0)
    whole = cascade.plan_cascade(*stages(), slice_of("v6e", 2, 2), plans)
    # 2 × 64 MiB do not fit at all, and are not compiled.
    assert [config.mesh.fsdp for config, *_ in plans.made] == [2, 2, 2]
    assert whole.fits and whole.times[0].prompts == 2


def test_more_prompts_at_once_where_stages_do_not_fit_together():
    plans = Plans(arguments=17 * GIB)  # whatever the mesh
    whole = cascade.plan_cascade(*stages(), slice_of("v6e", 2, 2), plans)
    assert [config.mesh.fsdp for config, *_ in plans.made[::3]] == [1, 2, 4]
    assert not whole.fits and whole.times  # they can be loaded in turn
    assert "it does NOT fit; load each stage when it is needed" in report.cascade(whole)


def test_stage_that_does_not_fit():
    plans = Plans(fits=False, needed=40 * GIB, advice=["take fewer windows"])
    whole = cascade.plan_cascade(*stages(), slice_of("v6e", 2, 4), plans)
    assert [config.mesh.fsdp for config, *_ in plans.made] == [1, 2, 4, 8]  # of the base alone
    assert not whole.times and not whole.fits
    assert "does NOT fit" in report.cascade(whole) and "take fewer windows" in report.cascade(whole)


def test_text_encoder_of_the_full_configs():
    base, ssr = stages()
    with base.unlocked():
        base.text.update(name="t5", dim=4096)
    plans = Plans()
    whole = cascade.plan_cascade(base, ssr, slice_of("v6e", 4, 4), plans)
    assert plans.made[-1][1] == "text" and whole.times[0].text == 2 * 0.5  # a batch a prompt here
    assert whole.weights == 12 * GIB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__resolution": 32}, "refines 16×16 pixels, and the base makes 32×32"),
        ({"prompts": 9}, "--prompts=9: there are 8 devices"),
    ],
)
def test_what_does_not_belong_together(change, message):
    prompts = change.pop("prompts", 1)
    base, ssr = stages(**change)
    with pytest.raises(UserError, match=message):
        cascade.plan_cascade(base, ssr, slice_of("v6e", 2, 4), Plans(), prompts=prompts)


def test_devices_of_which_nothing_is_known():
    with pytest.raises(UserError, match="--mode=cascade is for slices of TPUs"):
        cascade.plan_cascade(*stages(), present(), Plans())


def test_two_of_a_kind():
    base, ssr = stages()
    with pytest.raises(UserError, match="takes a base in --config, and in --ssr what refines it"):
        cascade.plan_cascade(ssr, base, slice_of("v6e", 2, 4), Plans())
