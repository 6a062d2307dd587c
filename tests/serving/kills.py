"""Kills and stops servers and workers at random moments, and starts again what ended."""

import contextlib
import functools
import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import psutil

VICTIMS = ("server", "worker", "group")  # a server alone, one worker, a server with its workers
SIGNALS = (signal.SIGKILL, signal.SIGSTOP)


class Fleet:
    """Servers, each the leader of a session that its workers are in."""

    def __init__(self, *starts: Callable[[], subprocess.Popen]):
        """Starts them."""
        self._starts = starts
        self._servers = [start() for start in starts]

    def strikes(self, count: int, seed: int, pause: float) -> Iterator[str]:
        """Strikes so many times, every victim by every signal in turn; yields what was done.

        A moment comes up to `pause` seconds after the last, and what is stopped goes on after up to
        three times as long.
        """
        chance = random.Random(seed)
        kinds = list(itertools.product(VICTIMS, SIGNALS)) * -(-count // 6)
        for victim, number in chance.sample(kinds[:count], count):
            time.sleep(chance.uniform(0, pause))
            self._strike(victim, number, chance, chance.uniform(0, 3 * pause))
            yield f"{number.name} of a {victim}"

    def _strike(
        self, victim: str, number: signal.Signals, chance: random.Random, seconds: float
    ) -> None:
        place = chance.randrange(len(self._servers))
        server = self._servers[place]
        send = functools.partial(os.killpg if victim == "group" else os.kill, server.pid)
        if victim == "worker":
            send = chance.choice(self._workers()).send_signal
        with contextlib.suppress(psutil.NoSuchProcess):  # it was being replaced
            send(number)
            if number == signal.SIGSTOP:
                time.sleep(seconds)
                send(signal.SIGCONT)
        if number == signal.SIGKILL and victim != "worker":
            server.wait()
            self._servers[place] = self._starts[place]()

    def _workers(self) -> list[psutil.Process]:
        """All workers, as soon as there is one."""
        until = time.monotonic() + 300
        while not (found := [w for s in self._servers for w in workers(s.pid)]):
            assert time.monotonic() < until, "no worker is started"
            time.sleep(0.1)
        return found

    def end(self) -> list[int]:
        """Tells all to end; their exit codes."""
        for server in self._servers:
            server.terminate()
        return [server.wait(300) for server in self._servers]

    def kill(self) -> None:
        """Ends all that still run, whatever they do."""
        for server in self._servers:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def workers(server: int) -> list[psutil.Process]:
    """The processes of a server that make videos."""
    found = []
    for child in psutil.Process(server).children():
        with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found
