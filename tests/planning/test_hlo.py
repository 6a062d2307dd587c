import jax
import jax.numpy as jnp
import pytest

from lumiere_jax.planning import hlo
from lumiere_jax.planning.flops import count
from lumiere_jax.planning.hlo import Program, Traffic, num_bytes, parse_instruction

# Shortened from what the TPU's compiler prints; the names are its own.
PROGRAM = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(bf16[8,128]{1,0})->bf16[8,128]}

%region_0.7 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %add.1 = f32[]{:T(128)} add(%a, %b)
}

%fused_computation.1 (param_0: bf16[8,128]) -> bf16[8,128] {
  %param_0 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %inner = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%param_0), kind=kLoop, calls=%nested, \
backend_config={"window_config":{"estimated_cycles":"99999"}}
}

%nested (param_0.9: bf16[8,128]) -> bf16[8,128] {
  ROOT %param_0.9 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
}

%all-reduce-scatter.3 (param_0.2: f32[8,128]) -> f32[2,128] {
  %param_0.2 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %all-reduce.9 = f32[8,128]{1,0:T(8,128)} all-reduce(%param_0.2), channel_id=5, \
replica_groups={{0,1,2,3}}, to_apply=%region_0.7
  ROOT %dynamic-slice.2 = f32[2,128]{1,0} dynamic-slice(%all-reduce.9), dynamic_slice_sizes={2,128}
}

%body.4 (loop: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %loop = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %x = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%loop), index=1
  %permute = (bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[8,128]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}, \
u32[]{:S(2)}) collective-permute-start(%x), channel_id=1, source_target_pairs={{0,1},{1,0}}
  %done = bf16[8,128]{1,0:T(8,128)(2,1)} collective-permute-done(%permute)
  %fusion.8 = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%x, /*index=1*/%done), kind=kOutput, \
calls=%fused_computation.1, metadata={op_name="jit(step)/while/body"}, backend_config=\
{"flag_configs":[],"window_config":{"kernel_window_bounds":[],"estimated_cycles":"590",\
"iteration_bounds":["1"]},"scoped_memory_configs":[]}
  ROOT %tuple.1 = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}) tuple(%x, %fusion.8)
}

%condition.4 (loop.1: (s32[], bf16[8,128])) -> pred[] {
  %loop.1 = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%loop.1), index=0
  %constant.5 = s32[]{:T(128)} constant(13)
  ROOT %compare.1 = pred[]{:T(512)} compare(%i, %constant.5), direction=LT
}

ENTRY %main.9 (p: bf16[8,128], q: f32[8,128]) -> bf16[8,128] {
  %p = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0), sharding={devices=[4,1]<=[4]}
  %q = f32[8,128]{1,0:T(8,128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}) tuple(%zero, %p)
  %gather = (bf16[8,128]{1,0}, bf16[32,128]{1,0}) all-gather-start(%p), channel_id=2, dimensions={0}
  %gathered = bf16[32,128]{1,0} all-gather-done(%gather)
  %while.2 = (s32[]{:T(128)}, bf16[8,128]{1,0}) while(%start), condition=%condition.4, body=%body.4
  %scatter = f32[2,128]{1,0} fusion(%q), kind=kCustom, calls=%all-reduce-scatter.3, \
backend_config={"window_config":{"estimated_cycles":"10"}}
  ROOT %out = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%while.2), index=1
}
"""


def summarize(text):
    return hlo.summarize(Program(text))


def test_cycles_and_collectives_of_a_program_with_a_loop():
    summary = summarize(PROGRAM)
    assert summary.cycles == 13 * 590 + 10  # a fusion's estimate covers what is fused
    assert summary.unknown_loops == ()
    assert summary.collectives == {
        "all-gather": Traffic(1, 32 * 128 * 2),
        "collective-permute": Traffic(13, 13 * (8 * 128 * 2 + 8)),
        "reduce-scatter": Traffic(1, 8 * 128 * 4),
    }


def test_annotated_length_of_a_loop_comes_first():
    annotated = PROGRAM.replace(
        "body=%body.4\n", 'body=%body.4, backend_config={"known_trip_count":{"n":"7"}}\n'
    )
    assert summarize(annotated).cycles == 7 * 590 + 10


def test_loop_of_unknown_length_is_named():
    summary = summarize(PROGRAM.replace("direction=LT", "direction=NE"))
    assert summary.unknown_loops == ("while.2",)
    assert summary.cycles == 590 + 10


def test_dearest_branch_counts():
    program = """\
%cheap (x: f32[]) -> f32[] {
  ROOT %y = f32[] fusion(%x), kind=kLoop, calls=%leaf, backend_config={"estimated_cycles":"3"}
}

%dear (x: f32[]) -> f32[] {
  %y = f32[] fusion(%x), kind=kLoop, calls=%leaf, backend_config={"estimated_cycles":"5"}
  ROOT %z = f32[] call(%y), to_apply=%cheap
}

%leaf (x: f32[]) -> f32[] {
  ROOT %x = f32[] parameter(0)
}

ENTRY %main (i: s32[], x: f32[]) -> f32[] {
  ROOT %c = f32[] conditional(%i, %x, %x), branch_computations={%cheap, %dear}
}
"""
    assert summarize(program).cycles == 5 + 3


def test_instruction():
    line = parse_instruction(
        "  ROOT %f.1 = (bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, s32[]) custom-call(f32[] %a, s8[4] %b),"
        ' custom_call_target="x(y", called_computations={%c.1, %d}'
    )
    assert (line.name, line.opcode, line.operands) == ("f.1", "custom-call", ("a", "b"))
    assert line.type == "(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, s32[])"
    assert line.called == {"called_computations": ("c.1", "d")}


ASYNCHRONOUS = """\
%gather (p.1: f32[2]) -> f32[8] {
  %p.1 = f32[2]{0} parameter(0)
  ROOT %all-gather.1 = f32[8]{0} all-gather(%p.1), channel_id=7, \
replica_groups={{0,1,2,3}}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

%offloaded (p.2: f32[2]) -> f32[8] {
  %p.2 = f32[2]{0} parameter(0)
  ROOT %all-gather.2 = f32[8]{0} all-gather(%p.2), channel_id=9, replica_groups={{0,1,2,3}}
}

ENTRY %main (x: f32[2], y: f32[4]) -> f32[8] {
  %x = f32[2]{0} parameter(0)
  %y = f32[4]{0} parameter(1)
  %async-collective-start.3 = (f32[2]{0}, f32[8]{0}) fusion(%x), kind=kCustom, calls=%gather
  %one = f32[8]{0} get-tuple-element(%async-collective-start.3), index=1
  %fusion.5 = (f32[4]{0}, f32[8]{0}) fusion(%y, %one), kind=kOutput, calls=%gather, \
backend_config={"window_config":{"estimated_cycles":"1000"}}
  %two = f32[8]{0} get-tuple-element(%fusion.5), index=1
  %async-collective-done.3 = f32[8]{0} fusion(%two), kind=kCustom, calls=%gather
  %call-start = ((f32[2]{0}), f32[8]{0}) call-start(%x), to_apply=%offloaded, \
async_execution_thread="sparsecore"
  %send = (f32[4]{0}, u32[], token[]) send(%y), channel_id=2, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_rendezvous="r",_xla_megascale_transfer_type="ALL_REDUCE"}
  %fusion.6 = f32[4]{0} fusion(%y), kind=kLoop, calls=%plain, \
backend_config={"window_config":{"estimated_cycles":"500"}}
  %call-done = f32[8]{0} call-done(%call-start)
  %recv = (f32[4]{0}, u32[], token[]) recv(%y), channel_id=1, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_rendezvous="r",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv-done = (f32[4]{0}, token[]) recv-done(%recv), channel_id=1, is_host_transfer=true
  ROOT %sum = f32[8]{0} all-reduce(%call-done), channel_id=11, replica_groups={{0,1},{2,3}}
}

%plain (p.3: f32[4]) -> f32[4] {
  ROOT %p.3 = f32[4]{0} parameter(0)
}
"""


def test_asynchronous_collectives_count_once():
    summary = summarize(ASYNCHRONOUS)
    assert summary.cycles == 1500
    assert summary.collectives == {
        "all-gather": Traffic(2, 2 * 32),
        "all-reduce": Traffic(1, 32),
        "send": Traffic(1, 16),
    }


@pytest.mark.parametrize(
    ("type_", "size"),
    [
        ("f32[]", 4),
        ("bf16[2,3]{1,0:T(8,128)(2,1)}", 12),
        ("(pred[5], s4[3]{0:E(4)}, f8e4m3fn[2])", 5 + 2 + 2),
        ("(f32[0,7], token[], u32[2]{0:S(2)})", 8),
    ],
)
def test_num_bytes(type_, size):
    assert num_bytes(type_) == size


def test_bytes_in_fast_memory_are_not_in_hbm():
    type_ = "(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, f32[5]{0:T(128)}, u32[]{:S(2)}, f32[2]{0:S(0)})"
    assert num_bytes(type_) == 12 + 20 + 4 + 8 and num_bytes(type_, in_hbm=True) == 20 + 8


def test_estimate_that_the_compiler_does_not_have():
    summary = summarize(
        PROGRAM.replace('"estimated_cycles":"10"', f'"estimated_cycles":"{2**63 - 1}"')
    )
    assert summary.cycles == 13 * 590 and summary.unknown_cycles == ("scatter",)


def test_text_that_is_no_program():
    with pytest.raises(ValueError, match="no ENTRY"):
        summarize("HloModule nothing\n")


def test_work_in_the_words_of_the_compiler():
    program = """\
ENTRY %main (x: bf16[4,64,64,8], k: bf16[3,3,8,16], a: f32[5,7], b: f32[7,9]) -> f32[5,9] {
  %x = bf16[4,64,64,8]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %k = bf16[3,3,8,16]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  %a = f32[5,7]{1,0} parameter(2)
  %b = f32[7,9]{1,0} parameter(3)
  %c = bf16[4,32,32,16]{3,2,1,0} convolution(%x, %k), \
window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
  %d = f32[5,9]{1,0} convolution(%a, %b), dim_labels=bf_io->bf
  ROOT %e = f32[5,9]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""
    convolution = 2 * 4 * 16 * 8 * (3 * 32 - 1) ** 2
    assert summarize(program).flops == convolution + 2 * (2 * 5 * 7 * 9)


def test_what_the_compiler_of_this_machine_prints():
    def repeat(x, weight, kernel):
        def body(carry, _):
            return jnp.tanh(carry @ weight), None

        y = jax.lax.scan(body, x, length=5)[0].reshape(2, 8, 8, 4)
        return jax.lax.conv_general_dilated(
            y, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    args = jnp.ones((32, 16)), jnp.ones((16, 16)), jnp.ones((3, 3, 4, 6))
    gradients = jax.grad(lambda *args: repeat(*args).sum(), (0, 1, 2))
    text = jax.jit(gradients).lower(*args).compile().as_text()
    summary = summarize(text)
    assert summary.unknown_loops == () and summary.collectives == {}
    program = Program(text)
    assert any(run.line.opcode == "while" for run in program.runs())
    assert summary.flops == count(gradients, *args).total
