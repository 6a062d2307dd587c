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
        self._starts, self._sessions = starts, set[int]()
        self._servers = [self._start(place) for place in range(len(starts))]

    def _start(self, place: int) -> subprocess.Popen:
        server = self._starts[place]()
        self._sessions.add(server.pid)
        return server

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
        if victim != "server":  # then of a server that has workers
            place, worker = chance.choice(self._workers())
        send = functools.partial(os.kill, self._servers[place].pid)
        if victim == "worker":
            send = worker.send_signal
        elif victim == "group":
            send = functools.partial(os.killpg, self._servers[place].pid)
        with contextlib.suppress(psutil.NoSuchProcess):  # it was being replaced
            send(number)
            if number == signal.SIGSTOP:
                time.sleep(seconds)
                send(signal.SIGCONT)
        if number == signal.SIGKILL and victim != "worker":
            self._servers[place].wait()
            self._servers[place] = self._start(place)

    def _workers(self) -> list[tuple[int, psutil.Process]]:
        """All workers, and the places of their servers, as soon as there is one."""
        until = time.monotonic() + 300
        while not (found := [(i, w) for i, s in enumerate(self._servers) for w in workers(s.pid)]):
            assert time.monotonic() < until, "no worker is started"
            time.sleep(0.1)
        return found

    def end(self) -> list[int]:
        """Tells all to end, and waits until no process is left; their exit codes."""
        for server in self._servers:
            server.terminate()
        codes, until = [server.wait(300) for server in self._servers], time.monotonic() + 300
        while left := self._left():
            assert time.monotonic() < until, f"they outlive their servers: {left}"
            time.sleep(0.1)
        return codes

    def kill(self) -> None:
        """Ends all that still run, whatever they do."""
        for process in self._left():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for server in self._servers:
            server.wait()

    def _left(self) -> list[psutil.Process]:
        """All that runs of these servers, and of those that they replaced."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getsid(process.pid) in self._sessions:
                    found += [process] if process.status() != psutil.STATUS_ZOMBIE else []
        return found


def workers(server: int) -> list[psutil.Process]:
    """The processes of a server that make videos."""
    found = []
    for child in psutil.Process(server).children():
        with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found
