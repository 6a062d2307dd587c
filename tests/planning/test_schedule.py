import pytest

from lumiere_jax.planning import schedule
from lumiere_jax.planning.hlo import Program
from tests.planning.test_hlo import ASYNCHRONOUS, PROGRAM

CLOCK = 1e3


def follow(text, **seconds):
    return schedule.run(Program(text), CLOCK, lambda found: seconds[found.kind.replace("-", "_")])


@pytest.mark.parametrize(
    ("gather", "send", "whole", "waited"),
    [
        (0.4, 0.2, 1.0 + 0.5 + 0.25, {"all-gather": 0, "send": 0, "all-reduce": 0.25}),
        (0.8, 0.2, 1.0 + 0.8 + 0.25, {"all-gather": 0.3, "send": 0, "all-reduce": 0.25}),
        (1.5, 0.2, 1.5 + 1.5 + 0.25, {"all-gather": 1.5, "send": 0, "all-reduce": 0.25}),
        # The network between slices is another one: a send begins when it is issued.
        (0.8, 3.0, 1.0 + 3.0 + 0.25, {"all-gather": 0.3, "send": 2.2, "all-reduce": 0.25}),
    ],
)
def test_a_collective_runs_beside_what_stands_before_its_end(gather, send, whole, waited):
    found = follow(ASYNCHRONOUS, all_gather=gather, send=send, all_reduce=0.25)
    assert found.seconds == pytest.approx(whole)
    assert found.waited == pytest.approx(waited)
    assert found.on_links == pytest.approx(
        {"all-gather": 2 * gather, "send": send, "all-reduce": 0.25}
    )


def test_loops_wait_in_every_trip():
    found = follow(PROGRAM, all_gather=0.1, collective_permute=0.2, reduce_scatter=0.4)
    # The gather and the permutes end before anything is computed, and the scatter is synchronous.
    assert found.seconds == pytest.approx(0.1 + 13 * (0.2 + 0.59) + 0.4 + 0.01)
    assert found.waited["collective-permute"] == pytest.approx(13 * 0.2)


def test_collectives_queue_for_the_links():
    end = "  %gathered = bf16[32,128]{1,0} all-gather-done(%gather)\n"
    later = PROGRAM.replace(end, "").replace("  ROOT %out", f"{end}  ROOT %out")
    found = follow(later, all_gather=20.0, collective_permute=0.2, reduce_scatter=0.4)
    # The gather has its links for 20 s; the loop, followed once, has them to itself.
    assert found.seconds == pytest.approx(20.4 + 0.01)
    assert found.waited["all-gather"] == pytest.approx(0.0)
