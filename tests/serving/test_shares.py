"""What one client gets of what all share."""

from lumiere_jax.serving.shares import Shares


def test_one_client_gets_a_quarter():
    shares = Shares(8)
    assert [shares.take("a") for _ in range(3)] == [True, True, False]
    assert [shares.take(client, 2) for client in "bcde"] == [True, True, True, False]
    shares.give("a")
    assert [shares.take("e", 2), shares.take("e"), shares.take("f")] == [False, True, False]
    shares.give("b", 2)
    assert shares.take("a") and not shares.take("a")


def test_a_single_place_is_anyone_s():
    shares = Shares(1)
    assert shares.take("a") and not shares.take("b")
    shares.give("a")
    assert shares.take("b")
    assert not Shares(0).take("a")
