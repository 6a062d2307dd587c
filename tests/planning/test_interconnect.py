import itertools
from types import SimpleNamespace

import pytest

from lumiere_jax.planning.hlo import Collective
from lumiere_jax.planning.interconnect import HOP, Interconnect, replica_groups
from lumiere_jax.planning.topology import CHIPS

SIZE = 8 * 10**9


def links(name, *sides, cores=1, slices=1):
    chips = itertools.product(*map(range, sides), *[[0]] * (3 - len(sides)))
    return Interconnect(CHIPS[name], tuple(chip for chip in chips for _ in range(cores)), slices)


def seconds(network, kind, groups="", size=SIZE):
    return network.seconds(Collective(kind, size, groups, ""))


@pytest.mark.parametrize(
    ("network", "groups", "expected"),
    [
        # Three quarters arrive over two lines of two chips.
        (links("v5p", 2, 2, 1), "replica_groups={{0,1,2,3}}", 0.75 / 200e9),
        (links("v5p", 2, 2, 1), "replica_groups={{0,1},{2,3}}", 0.5 / 100e9),
        # A line of four chips has one link at its ends; a ring has two.
        (links("v5e", 4, 4), "replica_groups=[4,4]<=[16]", 0.75 / 50e9),
        (links("v5p", 4, 4, 4), "replica_groups=[16,4]<=[64]", 0.75 / 200e9),
        (links("v5p", 4, 4, 4), "replica_groups={}", 63 / 64 / 600e9),
        (links("v5e", 16, 16), "replica_groups=[16,16]<=[16,16]T(1,0)", 15 / 16 / 100e9),
        (links("v5e", 16, 16), "replica_groups={}", 255 / 256 / 200e9),
        (links("v5e", 8, 16), "replica_groups={}", 127 / 128 / 150e9),  # one axis is closed
        # A slice of v5p that is no whole cube has no rings.
        (links("v5p", 2, 2, 4), "replica_groups=[4,4]<=[16]", 0.75 / 100e9),
        # Both cores of a chip take part: what one has, the other need not fetch.
        (links("tpu7x", 2, 2, 1, cores=2), "replica_groups={}", 0.75 / 200e9),
        # They are in two groups, which share the links.
        (links("tpu7x", 2, 2, 1, cores=2), "replica_groups={{0,2,4,6},{1,3,5,7}}", 0.75 / 100e9),
        (links("tpu7x", 2, 2, 1, cores=2), "replica_groups={{0,1},{2,3},{4,5},{6,7}}", 0.0),
        # Every second chip of a line of four is no box: two rings, and each passes the other's chip
        # on, so that a link carries two halves.
        (links("v5e", 4, 1), "replica_groups={{0,2},{1,3}}", 0.5 / 2 * 4 / 50e9),
    ],
)
def test_gathering(network, groups, expected):
    for kind in ("all-gather", "reduce-scatter"):
        assert seconds(network, kind, groups) == pytest.approx(SIZE * expected)
    assert seconds(network, "all-reduce", groups) == pytest.approx(2 * SIZE * expected)


@pytest.mark.parametrize(("side", "is_ring"), [(4, False), (8, False), (16, True)])
def test_all_to_all_is_bound_by_the_busiest_link(side, is_ring):
    load = dict.fromkeys(range(side), 0.0)  # of the links to the next chip
    for a, b in itertools.product(range(side), repeat=2):
        if is_ring:  # the shorter way, both if they are equal
            ahead = (b - a) % side
            share = 1.0 if ahead < side / 2 else 0.5 if ahead == side / 2 else 0.0
        else:
            ahead, share = b - a, 1.0
        for step in range(max(ahead, 0)):
            load[(a + step) % side] += share
    network = links("v5e", side, 2)
    groups = f"replica_groups=[2,{side}]<=[{side},2]T(1,0)"
    expected = SIZE / side * max(load.values()) / 50e9
    assert seconds(network, "all-to-all", groups) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("network", "pairs", "busiest"),
    [
        (links("v5e", 4, 1), "{0,1},{1,2},{2,3}", 1),  # a halo
        (links("v5e", 4, 1), "{0,2},{1,3}", 2),  # both cross the middle
        (links("v5e", 4, 1), "{3,0},{0,1}", 1),  # back along the line, the other direction
        (links("v5e", 16, 1), "{15,0},{0,1}", 1),
        (links("v5p", 2, 2, 1), "{0,3},{1,3}", 1),  # first axis, then second: links differ
        (links("tpu7x", 2, 1, 1, cores=2), "{0,2},{1,3}", 2),  # of two cores, over one link
        (links("tpu7x", 2, 1, 1, cores=2), "{0,1},{2,3}", 0),
    ],
)
def test_permutation(network, pairs, busiest):
    found = seconds(network, "collective-permute", f"source_target_pairs={{{pairs}}}")
    assert found == pytest.approx(SIZE * busiest / network.chip.link)


def test_nothing_is_faster_than_its_hops():
    assert seconds(links("v5e", 4, 4), "all-gather", "replica_groups={}", 64) == 6 * HOP
    assert seconds(links("v5p", 4, 4, 4), "all-reduce", "replica_groups={}", 64) == 9 * HOP
    pairs = "source_target_pairs={{0,3}}"
    assert seconds(links("v5e", 4, 1), "collective-permute", pairs, 64) == 3 * HOP


def test_sums_over_slices():
    places = [((x, y, 0), number) for number in range(2) for x in range(2) for y in range(2)]
    devices = [SimpleNamespace(coords=list(xyz), slice_index=number) for xyz, number in places]
    assert Interconnect.of(CHIPS["v5e"], devices) == links("v5e", 2, 2, slices=2)
    both = links("v5e", 2, 2, slices=2)
    reduce = '_xla_megascale_transfer_type="ALL_REDUCE"'
    assert seconds(both, "send", reduce) == pytest.approx(SIZE / 3.125e9)
    four = links("v5e", 2, 2, slices=4)
    assert seconds(four, "send", reduce) == pytest.approx(1.5 * SIZE / 3.125e9)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("{}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("[4,2]<=[8]", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("[2,4]<=[4,2]T(1,0)", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ("mesh['a'=2,'b'=4] {'b'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("mesh['a'=2,'b'=4] {'a'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ("mesh['a'=2,'b'=2], device_ids=(3,1,2,0) {'a','b'}", [[3, 1, 2, 0]]),
        ("mesh['a'=2,'b'=4] {'b':(2)2}", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("mesh['a'=2,'b'=4] {'a','b':(1)2}", [[0, 2, 4, 6], [1, 3, 5, 7]]),
    ],
)
def test_groups_in_the_ways_that_xla_writes_them(text, groups):
    line = f"channel_id=1, replica_groups={text}, use_global_device_ids=true, dimensions={{0}}"
    assert replica_groups(line, 8) == groups
