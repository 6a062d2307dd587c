"""Where cycles go, of lines as the TPU's compiler writes them."""

from lumiere_jax.planning import where
from lumiere_jax.planning.hlo import Program

ESTIMATE = 'backend_config={"window_config":{"estimated_cycles":"%s"}}'
F, B = "jvp(Net)", "transpose(jvp(Net))"
AGAIN, BEHIND = f"{B}/{F}/checkpoint/rematted_computation", f"{B}/{F}/checkpoint"

PROGRAM = f"""\
%conv (x.1: bf16[4,8,8,16], k.1: bf16[3,3,16,32]) -> bf16[4,8,8,32] {{
  %x.1 = bf16[4,8,8,16]{{3,2,1,0}} parameter(0)
  %k.1 = bf16[3,3,16,32]{{3,2,1,0}} parameter(1)
  ROOT %c.1 = bf16[4,8,8,32]{{3,2,1,0}} convolution(%x.1, %k.1), window={{size=3x3 pad=1_1x1_1}}, \
dim_labels=b01f_01io->b01f
}}

%of_inputs (g.2: bf16[4,8,8,32], k.2: bf16[3,3,16,32]) -> bf16[4,8,8,16] {{
  %g.2 = bf16[4,8,8,32]{{3,2,1,0}} parameter(0)
  %k.2 = bf16[3,3,16,32]{{3,2,1,0}} parameter(1)
  ROOT %c.2 = bf16[4,8,8,16]{{3,2,1,0}} convolution(%g.2, %k.2), \
window={{size=3x3 pad=1_1x1_1 rhs_reversal=1x1}}, dim_labels=b01f_01oi->b01f
}}

%of_kernels (x.3: bf16[4,8,8,16], g.3: bf16[4,8,8,32]) -> bf16[3,3,16,32] {{
  %x.3 = bf16[4,8,8,16]{{3,2,1,0}} parameter(0)
  %g.3 = bf16[4,8,8,32]{{3,2,1,0}} parameter(1)
  ROOT %c.3 = bf16[3,3,16,32]{{3,2,1,0}} convolution(%x.3, %g.3), window={{size=8x8 pad=1_1x1_1}}, \
dim_labels=f01b_i01o->01bf
}}

%elementwise (x.4: bf16[4,8,8,32]) -> bf16[4,8,8,32] {{
  %x.4 = bf16[4,8,8,32]{{3,2,1,0}} parameter(0)
  %b.4 = bf16[4,8,8,32]{{3,2,1,0}} broadcast(%x.4), dimensions={{0,1,2,3}}
  ROOT %m.4 = bf16[4,8,8,32]{{3,2,1,0}} multiply(%x.4, %b.4)
}}

%moments (x.5: bf16[4,8,8,32]) -> f32[32] {{
  %x.5 = bf16[4,8,8,32]{{3,2,1,0}} parameter(0)
  ROOT %r.5 = f32[32]{{0}} reduce(%x.5), dimensions={{0,1,2}}, to_apply=%elementwise
}}

%layer (stack: bf16[5,3,3,16,32], i.6: s32[]) -> bf16[1,3,3,16,32] {{
  %stack = bf16[5,3,3,16,32]{{4,3,2,1,0}} parameter(0)
  %i.6 = s32[] parameter(1)
  ROOT %d.6 = bf16[1,3,3,16,32]{{4,3,2,1,0}} dynamic-slice(%stack, %i.6), \
dynamic_slice_sizes={{1,3,3,16,32}}
}}

%body (p: (s32[], bf16[4,8,8,32])) -> (s32[], bf16[4,8,8,32]) {{
  %p = (s32[], bf16[4,8,8,32]{{3,2,1,0}}) parameter(0)
  %y = bf16[4,8,8,32]{{3,2,1,0}} get-tuple-element(%p), index=1
  %norm = bf16[4,8,8,32]{{3,2,1,0}} fusion(%y), kind=kLoop, calls=%elementwise, \
metadata={{op_name="jit(f)/{F}/while/body/closed_call/mid.step/mid/norm/mul"}}, {ESTIMATE % 10}
  %sums = f32[32]{{0}} fusion(%norm), kind=kLoop, calls=%moments, \
metadata={{op_name="jit(f)/{B}/while/body/closed_call/mid.step/mid/norm/reduce_sum"}}, \
{ESTIMATE % 7}
  ROOT %t = (s32[], bf16[4,8,8,32]{{3,2,1,0}}) tuple(%y, %norm)
}}

%condition (q: (s32[], bf16[4,8,8,32])) -> pred[] {{
  %q = (s32[], bf16[4,8,8,32]{{3,2,1,0}}) parameter(0)
}}

ENTRY %main (x: bf16[4,8,8,16], k: bf16[5,3,3,16,32], g: bf16[4,8,8,32]) -> f32[] {{
  %x = bf16[4,8,8,16]{{3,2,1,0}} parameter(0)
  %k = bf16[5,3,3,16,32]{{4,3,2,1,0}} parameter(1), \
metadata={{op_name="state.ema['up_0']['a']['b']"}}
  %g = bf16[4,8,8,32]{{3,2,1,0:S(1)}} parameter(2)
  %slice = bf16[1,3,3,16,32]{{4,3,2,1,0:S(1)}} fusion(%k, %i), kind=kLoop, calls=%layer, \
metadata={{op_name="jit(f)/{F}/mid/while/body/squeeze"}}, {ESTIMATE % 3}
  %i = s32[] constant(0)
  %copied = bf16[5,3,3,16,32]{{4,3,2,1,0}} copy(%k), {ESTIMATE % 11}
  %forward = bf16[4,8,8,32]{{3,2,1,0}} fusion(%x, %slice), kind=kOutput, calls=%conv, \
metadata={{op_name="jit(f)/{F}/down_0/conv_0/conv_general_dilated"}}, {ESTIMATE % 100}
  %again = bf16[4,8,8,32]{{3,2,1,0}} fusion(%x, %slice), kind=kOutput, calls=%conv, \
metadata={{op_name="jit(f)/{AGAIN}/down_0/conv_0/conv_general_dilated"}}, {ESTIMATE % 90}
  %inputs = bf16[4,8,8,16]{{3,2,1,0}} fusion(%g, %slice), kind=kOutput, calls=%of_inputs, \
metadata={{op_name="jit(f)/{B}/down_0/conv_0/conv_general_dilated"}}, {ESTIMATE % 200}
  %kernels = bf16[3,3,16,32]{{3,2,1,0}} fusion(%x, %g), kind=kOutput, calls=%of_kernels, \
metadata={{op_name="jit(f)/{BEHIND}/down_0/conv_0/conv_general_dilated"}}, {ESTIMATE % 300}
  %attended = bf16[4,8,8,32]{{3,2,1,0}} fusion(%x, %slice), kind=kOutput, calls=%conv, \
metadata={{op_name="jit(f)/{F}/mid_attention/query/dot_general"}}, {ESTIMATE % 50}
  %start = (s32[], bf16[4,8,8,32]{{3,2,1,0}}) tuple(%i, %forward)
  %loop = (s32[], bf16[4,8,8,32]{{3,2,1,0}}) while(%start), condition=%condition, body=%body, \
backend_config={{"known_trip_count":{{"n":"4"}}}}
  %written = bf16[4,8,8,32]{{3,2,1,0}} broadcast(%i), dimensions={{}}, \
metadata={{op_name="jit(f)/{F}/broadcast_in_dim"}}, {ESTIMATE % 5}
  ROOT %moment = bf16[4,8,8,32]{{3,2,1,0}} fusion(%g), kind=kLoop, calls=%elementwise, \
metadata={{op_name="jit(f)/mul"}}, {ESTIMATE % 2}
}}
"""
CONVOLUTION = 2 * 4 * 16 * 32 * (3 * 8 - 2) ** 2
CLIP, KERNEL = 2 * 4 * 8 * 8, 2 * 9 * 16 * 32  # bytes, of one channel


def rows(bytes_a_cycle=1e9):
    tables = where.table(Program(PROGRAM), bytes_a_cycle, flops_a_cycle=1e9)
    return {k: {(r.name, r.part): r for r in table} for k, table in tables.items()}


def test_kinds():
    found = {key: (row.runs, row.cycles, row.flops) for key, row in rows()["kinds"].items()}
    assert found == {
        ("convolutions and products", "forward"): (1, 100, CONVOLUTION),
        ("convolutions and products", "recomputed"): (1, 90, CONVOLUTION),
        ("gradients of inputs", "backward"): (1, 200, CONVOLUTION),
        ("gradients of kernels", "backward"): (1, 300, CONVOLUTION),
        ("products of attention", "forward"): (1, 50, CONVOLUTION),
        ("norms and activations: elementwise", "forward"): (4, 40, 0),
        ("norms and activations: reductions", "backward"): (4, 28, 0),
        ("elementwise", "update"): (1, 2, 0),
        ("copies and layouts", "update"): (1, 11, 0),
        ("slices and joins", "forward"): (1, 3, 0),
        ("broadcasts that are written out", "forward"): (1, 5, 0),
    }


def test_modules():
    found = {name: row.cycles for (name, _), row in rows()["modules"].items()}
    assert found == {
        "down_0/conv_0": 690, "mid_attention/query": 50, "mid/norm": 68, "mid": 3, "Net": 5,
        "up_0/a": 11,  # a copy of a parameter
        where.OUTSIDE: 2,
    }  # fmt: skip
    assert rows()["modules"]["down_0/conv_0", ""].repeated == CONVOLUTION
    assert list(found) == sorted(found, key=lambda name: -found[name])


def test_small_modules_are_added_up(monkeypatch):
    monkeypatch.setattr(where, "MODULES", 2)
    found = {name: row.cycles for (name, _), row in rows()["modules"].items()}
    assert found == {"down_0/conv_0": 690, "mid/norm": 68, where.OTHERS: 50 + 3 + 5 + 11 + 2}


def test_bytes():
    kinds = rows()["kinds"]
    forward = kinds["convolutions and products", "forward"]
    assert forward.bytes == 16 * CLIP + KERNEL + 32 * CLIP
    assert forward.hbm_bytes == 16 * CLIP + 32 * CLIP  # the kernel is in fast memory
    slices = kinds["slices and joins", "forward"]
    assert slices.bytes == 2 * KERNEL + 4 and slices.hbm_bytes == KERNEL + 4  # of one layer of five
    assert kinds["norms and activations: elementwise", "forward"].bytes == 4 * 2 * 32 * CLIP


def test_what_waits_for_memory():
    # At 2048 bytes a cycle the elementwise fusion, of 2 × 16384 bytes, keeps HBM busy for longer
    # than its 10 cycles, and the convolution for 12 of its 100.
    kinds = rows(2048)["kinds"]
    assert kinds["norms and activations: elementwise", "forward"].waiting == 40
    assert kinds["convolutions and products", "forward"].waiting == 0


def test_what_the_compiler_cannot_tell():
    unknown = PROGRAM.replace(ESTIMATE % 10, ESTIMATE % (2**63 - 1))
    assert where.bytes_without_estimate(Program(PROGRAM)) == 0
    assert where.bytes_without_estimate(Program(unknown)) == 4 * 2 * 32 * CLIP
    tables = where.table(Program(unknown), 1e9, 1e9)
    assert sum(row.cycles for row in tables["kinds"]) == sum(
        row.cycles for row in rows()["kinds"].values()
    ) - 40  # fmt: skip
