import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import pytest

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.diffusion.low_resolution import upsample_low_resolution
from lumiere_jax.models.parameters import count
from lumiere_jax.planning import flops, report, steps
from lumiere_jax.planning import plan as planning
from lumiere_jax.planning.check_up import input as check_up_input
from lumiere_jax.planning.dry_run import print_job
from lumiere_jax.planning.topology import CHIPS, GIB, Target, present
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text.t5_network import Architecture
from tests.tiny_runs import tiny_config

OUT_OF_MEMORY = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 120.50G of 95.74G hbm. Exceeded hbm capacity by 24.76G."
)


@pytest.fixture(scope="module")
def plan():
    """The plan of a narrow training step for the devices of this process."""
    config = tiny_config("ssr", train__batch_size=2 * jax.device_count())
    return planning.make_plan(config, present(), name="narrow")


def v5p(chips):
    """As many chips as this process has devices, which stand in for them."""
    devices = jax.devices()[:chips]
    return Target(name="v5p", num_slices=1, chip=CHIPS["v5p"], chips=chips, devices=devices)


def failing_plan(monkeypatch, message, chips=1, **fields):
    """The plan where the compiler ends in an error."""

    def compile_step(*args):
        raise RuntimeError(message)

    monkeypatch.setattr(steps, "compile_step", compile_step)
    return planning.make_plan(tiny_config("ssr", **fields), v5p(chips))


def test_training_step_is_described_by_its_shapes(plan):
    config = tiny_config("ssr", train__batch_size=2 * jax.device_count())
    stage = Stage.from_config(config)
    params = stage.param_shapes
    assert plan.trainable + plan.frozen == count(params) and plan.trainable and plan.frozen
    assert plan.batch == 2 * plan.chips and plan.repeats == 1 and plan.fits
    needed = flops.training_flops(stage, plan.batch).total / plan.chips
    assert plan.model_flops == needed
    assert plan.compiled_flops > 0.9 * needed  # elementwise work on top, padding left out
    # Parameters, and their EMA and at least one moment for those that are trained, in float32, as
    # are drawn clips.
    state, batch = 4 * (plan.frozen + 3 * plan.trainable), 2 * 4 * math.prod(stage.clip_shape())
    assert state + batch < plan.arguments < 1.5 * (state + batch)
    assert plan.outputs < 0.01 * plan.arguments  # the state is donated
    assert plan.needed == plan.arguments + plan.temporaries + plan.outputs + plan.program
    assert plan.unknown_loops == [] and plan.seconds is None and plan.hours(100) is None


def test_report_of_the_present_devices(plan):
    text = report.text(plan)
    assert "narrow: one training step on" in text and "temporaries" in text
    assert f"{plan.model_flops / 1e12:.4g} TFLOP needed" in text
    assert "MFU" not in text  # no time is known on a CPU


def test_estimated_time(plan):
    timed = dataclasses.replace(plan, seconds=0.5, utilization=0.4, chips=4, batch=8)
    assert timed.clips_a_second == 16 and timed.hours(57_600) == 1
    figures = json.loads(json.dumps(timed.to_json(57_600)))
    assert figures["chip_hours"] == 4 and figures["utilization"] == 0.4
    text = report.text(timed, 57_600)
    assert "0.5 s, MFU 40.0%: the compiler's estimate" in text and "no hardware was timed" in text
    assert "1.0 hours, 4 chip-hours" in text
    with_links = dataclasses.replace(
        timed, seconds_with_collectives=0.625, utilization_with_collectives=0.32,
        collectives={"all-gather": {"count": 3, "bytes": 10**9, "seconds": 0.5, "waited": 0.125}},
    )  # fmt: skip
    text = report.text(with_links)
    assert "0.625 s, MFU 32.0%: 0.125 s of waiting for 0.5 s on the links" in text
    assert "0.625  32.0%" in report.table([with_links])
    sampled = dataclasses.replace(timed, mode="sample", repeats=50)
    assert sampled.clips_a_second == 16 / 50
    assert "0.32 clips/s of 50 denoising steps" in report.text(sampled)


def test_where_the_time_goes(plan):
    row = {"runs": 1, "bytes": 3e9, "hbm_bytes": 2e9, "waiting": 0.0, "flops": 0, "repeated": 0}
    products = row | {"name": "convolutions and products", "part": "forward"}
    rows = [
        products | {"seconds": 0.25, "flops": 25e12},
        products | {"part": "recomputed", "seconds": 0.125, "flops": 12e12, "repeated": 12e12},
        row | {"name": "copies and layouts", "part": "backward", "seconds": 0.125, "waiting": 0.1},
    ]
    module = [products | {"name": "down_0", "seconds": 0.5, "flops": 37e12, "repeated": 12e12}]
    timed = dataclasses.replace(
        plan, seconds=0.5, model_flops=20e12, utilization=0.4,
        where={"kinds": rows, "modules": module},
    )  # fmt: skip
    assert planning.Plan(**json.loads(json.dumps(dataclasses.asdict(timed)))) == timed
    lines = report.where(timed).splitlines()
    # The peak is 100 TFLOP/s, of which the products' own work is all in half of the time.
    assert lines[2].split()[3:] == [
        "forward",
        "250.000",
        "50.0%",
        "25",
        "100%",
        "3",
        "2",
        "0.000",
        "0.0%",
    ]
    assert lines[3].split()[-1] == "25.0%" and lines[3].split()[-4:-2] == ["3", "2"]
    assert lines[4].split()[-3:] == ["2", "100.000", "25.0%"]
    assert lines[5].startswith("The MFU of 40.0%, what kinds lose, and 10.0% for products")
    assert lines[7].split()[:3] == ["down_0", "500.000", "100.0%"]
    assert lines[7].split()[-1] == "50.0%"


def test_plan_that_does_not_fit_is_a_row_with_advice(monkeypatch):
    plan = failing_plan(monkeypatch, OUT_OF_MEMORY, train__batch_size=8)
    assert not plan.fits and plan.needed == round(120.5 * GIB) and plan.hbm == 95 * GIB
    assert any("--config.model.remat=full" in line for line in plan.advice)
    assert any("--config.train.batch_size=1" in line for line in plan.advice)
    assert "does NOT fit" in report.text(plan) and "120.5 of 95.0 GiB" in report.text(plan)
    assert "no" in report.table([plan]).splitlines()[1].split()


def test_message_that_tells_of_temporaries_alone(monkeypatch):
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (103.90G) exceeds available HBM (95.74G)."
    )
    plan = failing_plan(monkeypatch, message)
    assert plan.needed == round(103.9 * GIB) + plan.arguments and plan.arguments > 0
    assert plan.reason == message


def test_advice_for_a_large_state(monkeypatch):
    monkeypatch.setitem(CHIPS, "v5p", dataclasses.replace(CHIPS["v5p"], hbm=2**20))
    fields = {"model__remat": "full", "train__batch_size": 1}
    advice = failing_plan(monkeypatch, OUT_OF_MEMORY, **fields).advice
    assert not any("remat" in line or "clips per device" in line for line in advice)
    assert any("--config.mesh.fsdp" in line for line in advice)
    assert any("--config.mesh.space=2" in line for line in advice)


def test_other_errors_of_the_compiler_are_no_rows(monkeypatch):
    with pytest.raises(RuntimeError, match="INTERNAL"):
        failing_plan(monkeypatch, "INTERNAL: a defect")


def test_cache_is_keyed_by_everything_that_matters(plan, tmp_path, monkeypatch):
    made = []

    def compile_once(step, config, target, mode, name, versions, keep):
        made.append(name)
        return plan

    monkeypatch.setattr(planning, "_compile", compile_once)
    monkeypatch.setattr(steps, "training_step", lambda config, target: None)

    def ask(name, num_frames=None, **fields):
        config = tiny_config("t2i", train__batch_size=jax.device_count(), **fields)
        arguments = {"mode": "train", "num_frames": num_frames, "cache": tmp_path}
        return planning.make_plan(config, present(), name=name, **arguments)

    first = ask("one")
    assert ask("two") == dataclasses.replace(first, config="two")
    assert made == ["one"]
    ask("three", optimizer__b2=0.5)
    monkeypatch.setattr(planning, "package_digest", lambda: "changed")
    ask("four")
    monkeypatch.setattr(planning, "library_versions", lambda: {"jax": "9"})
    ask("five")
    assert made == ["one", "three", "four", "five"]


def network_flops(stage, batch, frames, size):
    """Operations of one call of a network."""
    clip = jax.ShapeDtypeStruct((batch, frames, size, size, 3), jnp.float32)
    number = jax.ShapeDtypeStruct((batch,), jnp.float32)
    text = flops.batch_shapes(stage, batch)
    condition = {name: text[name] for name in ("text", "text_mask")}
    if stage.is_super_resolution:
        condition |= {"low_resolution": clip, "augmentation_level": number}
    params = stage.param_shapes
    return flops.count(stage.predict, params, clip, number, condition).total


def test_sampling_step_of_a_base_stage():
    config = tiny_config("t2i", sampling__num_steps=7)
    step = steps.sampling_step(config, present())
    assert (step.repeats, step.trainable, step.batch) == (7, 0, step.mesh.shape["data"])
    once = network_flops(Stage.from_config(config), step.batch, 1, 16)
    assert step.model_flops == 2 * once  # guidance: with and without the text
    plan = planning.make_plan(config, present(), mode="sample")
    assert plan.compiled_flops > 0.9 * plan.model_flops and plan.trainable == 0


def test_sampling_step_of_super_resolution():
    config = tiny_config("ssr")
    stage = Stage.from_config(config)
    step = steps.sampling_step(config, present())
    # 80 frames are 39 windows of 4, which share 2; guidance of scale 1 takes one branch.
    low = jax.ShapeDtypeStruct((step.batch, 80, 16, 16, 3), jnp.float32)
    enlarging = flops.count(lambda video: upsample_low_resolution(video, (64, 64)), low).total
    assert step.model_flops == 39 * network_flops(stage, step.batch, 4, 64) + enlarging


def test_features_of_the_eval_binary():
    step = steps.feature_step(2, present())
    assert step.batch == 2 * jax.device_count() and step.repeats == 1 and step.trainable == 0
    # The checkpoint's numbers, less two of the three of each normalized channel.
    assert step.frozen == 12_704_544 - 2 * 7_280
    # 108 GMAC for 64 frames (1812.03982, table 2), less those that meet padding.
    assert 0.85 < step.model_flops / step.batch / (2 * 108e9 / 4) < 1.05


def test_features_of_too_few_frames():
    with pytest.raises(UserError, match="--num_frames=8: I3D needs 9 frames"):
        steps.feature_step(1, present(), num_frames=8)


def test_text_encoder(monkeypatch):
    narrow = Architecture(
        vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    monkeypatch.setattr(steps, "T5_V1_1_XXL", narrow)
    config = ConfigDict({"clips_a_device": 2, "model": {}})
    plan = planning.make_plan(config, present(), mode="text", name="narrow T5")
    length, devices = steps.PROMPT_TOKENS, jax.device_count()
    assert plan.batch == 2 * devices and plan.trainable == 0 and plan.fits
    # Of each token the products with all matrices, and of each pair of tokens two of attention.
    matrices = 3 * 32 * (4 * 32 + 3 * 48)
    attention = 3 * 2 * 32 * length
    assert plan.model_flops == 2 * 2 * length * (matrices + attention)
    assert plan.frozen == 64 * 32 + 32 * 4 + matrices + 7 * 32
    described = report.text(plan, 100)
    assert f"{2 * devices} prompts, 2 per chip" in described and "clips" not in described
    assert "prompts per chip" in report.table([plan])


def test_size_of_the_text_encoder():
    step = steps.embedding_step(1, present())
    assert step.frozen == 4_762_310_656
    # Matrices and embeddings in bfloat16; norms and biases of distance in float32.
    small = 49 * 4096 + 32 * 64
    assert step.held * jax.device_count() == 2 * step.frozen + 2 * small


def test_search_ranks_what_fits_by_speed(plan):
    def fake(config):
        policy, batch = config.model.remat, config.train.batch_size
        seconds = {"none": 1.0, "full": 1.5, "convolutions": 1.2}[policy]
        fits = batch <= {"none": 1, "full": 4, "convolutions": 2}[policy] * jax.device_count()
        return dataclasses.replace(
            plan, remat=policy, batch=batch, fits=fits, seconds=seconds if fits else None
        )

    plans = planning.search(tiny_config("ssr"), present(), fake, [1, 2, 4, 8])
    ranked = [(p.remat, p.batch // jax.device_count()) for p in plans if p.fits]
    assert ranked[:3] == [("full", 4), ("convolutions", 2), ("full", 2)]
    assert [p.fits for p in plans] == sorted([p.fits for p in plans], reverse=True)
    assert ("none", 8) not in [(p.remat, p.batch // jax.device_count()) for p in plans]
    lines = report.table(plans).splitlines()
    assert len([line for line in lines if " yes " in line]) == len(ranked)


def test_samples_during_training_are_counted_with_the_state():
    config = tiny_config("t2i", train__sample_every=2)
    state = steps.training_step(config, present()).held
    plan = planning.make_plan(config, present(), mode="training_samples")
    clips = plan.batch * math.prod(Stage.from_config(config).clip_shape()) * 4
    assert plan.batch == plan.chips and state < plan.arguments < state + 4 * clips + 2**16
    assert plan.trainable and plan.temporaries > clips and plan.repeats == 2


def test_job_is_described_and_not_started(capsys, monkeypatch):
    monkeypatch.setattr(check_up_input, "SECONDS", 0.1)
    config = tiny_config("ssr", train__batch_size=2 * jax.device_count(), train__sample_every=0)
    print_job(config)  # the temporal stage has no `init_from` here, and needs none
    out = capsys.readouterr().out
    begin, end = out.index("{"), out.index("\n}\n") + 2
    assert json.loads(out[begin:end]) == json.loads(json.dumps(config.to_dict(), default=list))
    params = Stage.from_config(config).param_shapes
    table = {line.split()[0]: line.split()[1:] for line in out[end:].splitlines() if line.strip()}
    trained, frozen, held = (int(number.replace(",", "")) for number in table["all"])
    assert trained + frozen == held == count(params) and 0 < trained < held
    assert table["conv_in"][0] == "0" and table["temporal_down_0"][1] == "0"
    assert "one training step on" in out and "TFLOP needed" in out
    rows = out[out.index("check-up: ") :]
    assert "from this host by" in rows and "samples, evaluation" in rows
    assert "memory of a step" in rows and "memory of samples" not in rows


def test_job_that_could_not_start():
    with pytest.raises(UserError, match="mesh.data="):
        print_job(tiny_config("t2i", mesh__data=3 * jax.device_count()))
