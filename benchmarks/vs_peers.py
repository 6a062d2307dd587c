"""Speed of the space-time U-Net and of other open implementations, on this machine's CPU.

    python3.11 -m venv runs/peers
    runs/peers/bin/pip install --no-deps -r benchmarks/peers/requirements.txt
    python benchmarks/vs_peers.py --peers_python=runs/peers/bin/python

The others are `lumiere-pytorch` (the model of its README, wider), `video-diffusion-pytorch` and
`imagen-pytorch`'s Unet3D, each as it is and with `torch.compile`. Each is compared with two
space-time U-Nets of the family of configs/stunet.py:small, one of as many FLOPs of the forward pass
and one of as many parameters. All have the same clips, float32, batch, threads and optimizer
(AdamW, all parameters trained); a sampling run is 4 steps of DDIM.

Every network has its own process. They take turns, so that a slow moment of the machine hits all of
them; the result is the median over rounds of the ratio within a round. The first run of each kind,
which compiles, is reported separately. Each implementation has a file OUTPUT/NAME.json and is not
measured again while it exists. These files and those of `benchmarks/small_profile.py` make
`benchmarks/peers.md`. --quick tries everything out in minutes.
"""

import contextlib
import json
import os
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

from absl import flags
from claims import report
from peers import matching, processes, table

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text

PEERS = ("lumiere-pytorch", "video-diffusion-pytorch", "imagen-pytorch")

_PYTHON = flags.DEFINE_string(
    "peers_python", "runs/peers/bin/python", "Python that has the others."
)
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results/peers", "Folder of the results.")
_PEERS = flags.DEFINE_list("peers", list(PEERS), "Which of them.")
_FRAMES = flags.DEFINE_integer("frames", 8, "Frames of a clip.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", 64, "Height and width of a frame.", lower_bound=8)
_BATCH = flags.DEFINE_integer("batch", 2, "Clips of a run.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Runs of each kind that count.", lower_bound=1)
_QUICK = flags.DEFINE_bool("quick", False, "Small clips and one round, to try it out.")


def describe_machine(python: str) -> dict[str, Any]:
    """Machine, threads, version of torch and date."""
    code = "import torch; print(torch.__version__)"
    torch = subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()
    return {
        "machine": report.machine(),
        "threads": len(os.sched_getaffinity(0)),
        "torch": torch,
        "date": date.today().isoformat(),
    }


def measure(peer: str, python: str, shape: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Compares one implementation with its matches.

    Args:
      peer: its name.
      python: of its environment.
      shape: of the clips, [batch, time, height, width, 3].
      rounds: of each kind of run.
    """
    batch, frames, size = shape[:3]
    setting = [f"--batch={batch}", f"--frames={frames}", f"--size={size}"]
    theirs = {"model": peer, "threads": len(os.sched_getaffinity(0))}
    with processes.torch_worker(python, setting, count=True, **theirs) as counting:
        counted = counting.hello
    targets = {"flops": counted["flops"]["forward"], "parameters": counted["parameters"]}
    networks: dict[str, dict[str, Any]] = {"torch": counted, "torch.compile": counted}
    fields = {}
    for what, target in targets.items():
        fields[what] = matching.matched(
            target, what, shape, processes.TEXT_LENGTH, processes.TEXT_DIM
        )
        for is_frozen in (False, True):
            name = f"STUNet, same {what}" + ", temporal weights alone" * is_frozen
            flops = matching.flops_of(
                fields[what], shape, processes.TEXT_LENGTH, processes.TEXT_DIM, is_frozen
            )
            networks[name] = {"widths": fields[what]["widths"], "flops": flops}
    with contextlib.ExitStack() as stack:
        others = {
            "torch": stack.enter_context(processes.torch_worker(python, setting, **theirs)),
            "torch.compile": stack.enter_context(
                processes.torch_worker(python, setting, compile=True, **theirs)
            ),
        }
        hellos = {name: worker.hello for name, worker in others.items()}
        runs: dict[str, dict[str, Any]] = {}
        for kinds, group in groups():
            with contextlib.ExitStack() as ours:
                workers = dict(others)
                for name, (what, is_frozen) in group.items():
                    workers[name] = ours.enter_context(
                        processes.stunet_worker(
                            setting, fields=json.dumps(fields[what]), frozen=is_frozen
                        )
                    )
                    hellos[name] = workers[name].hello
                found = processes.measure_rounds(workers, kinds, rounds)
            for name in group:
                for run, cell in found[name].items():
                    beside = {other: found[other][run].get("seconds", []) for other in others}
                    runs.setdefault(name, {})[run] = cell | {"beside": beside}
            for name in others:
                runs[name] = found[name] | runs.get(name, {})
    return {"networks": {name: networks[name] | hellos[name] | {"runs": runs[name]}
                         for name in networks}}  # fmt: skip


def groups() -> list[tuple[tuple[str, ...], dict[str, tuple[str, bool]]]]:
    """What takes turns with the two ways of torch: kinds of run, and networks of ours.

    They are trained in groups, since together they do not fit into 24 GiB.
    """
    plain = {f"STUNet, same {what}": (what, False) for what in table.MATCHES}
    frozen = {f"{name}, temporal weights alone": (what, True) for name, (what, _) in plain.items()}
    training = [dict([item]) for item in plain.items()] + [frozen]
    return [(processes.RUNS[:-1], plain), *((processes.RUNS[-1:], group) for group in training)]


def main(argv: list[str]) -> None:
    """Measures whatever is missing, and writes the page."""
    del argv
    python, output = _PYTHON.value, Path(_OUTPUT.value)
    if not Path(python).is_file():
        raise UserError(
            f"--peers_python={python} is not there; make it as the beginning of "
            "benchmarks/vs_peers.py says."
        )
    if unknown := sorted(set(_PEERS.value) - set(PEERS)):
        raise UserError(f"--peers={','.join(unknown)} is not known; there are {', '.join(PEERS)}.")
    size, rounds = (16, 1) if _QUICK.value else (_SIZE.value, _ROUNDS.value)
    frames = 8 if _QUICK.value else _FRAMES.value
    shape = (_BATCH.value, frames, size, size, 3)
    for peer in _PEERS.value:
        path = output / f"{peer}.json"
        settings = {"peer": peer, "shape": list(shape), "rounds": rounds}
        if path.is_file():
            if json.loads(path.read_text())["settings"] != settings:
                raise UserError(
                    f"{path} is of other settings; remove it, or give another --output."
                )
            print(f"{path} is there already", flush=True)
            continue
        print(f"== {peer} ==", flush=True)
        result = {"settings": settings} | describe_machine(python)
        result |= measure(peer, python, shape, rounds)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(result, indent=1) + "\n")
    page = output.parent.parent / "peers.md"
    write_text(page, table.page(output))
    print(page)


if __name__ == "__main__":
    errors.run(main)
