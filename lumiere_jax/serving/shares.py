"""What all clients share, such as places for streams: no client gets so much that none is left."""

import collections

_PART = 4  # one client gets no more than this part of all


class Shares:
    """Counts what each client holds of something. For one thread."""

    def __init__(self, most: int):
        """There is so much of it, for all clients together."""
        self._most, self._held = most, collections.Counter[str]()

    def take(self, client: str, amount: int = 1) -> bool:
        """Whether there is as much left for a client; if so, it is held until it is given back."""
        is_left = self._held.total() + amount <= self._most
        is_own = self._held[client] + amount <= max(self._most // _PART, 1)
        if is_left and is_own:
            self._held[client] += amount
        return is_left and is_own

    def give(self, client: str, amount: int = 1) -> None:
        """Ends a hold."""
        self._held[client] -= amount
        self._held += collections.Counter()  # drops clients that hold nothing
