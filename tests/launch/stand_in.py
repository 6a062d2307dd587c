"""Takes the place of Python in the tests of launch/: no JAX, but the manners of a training job.

STAND_IN holds what each process does, one word a process: `wait` waits for a signal and ends as
after a checkpoint, a number is an exit code.
"""

import json
import os
import signal
import sys
import time

process = int(os.environ.get("JAX_PROCESS_ID", "0"))
variables = {k: v for k, v in os.environ.items() if k.startswith(("JAX_", "XLA_"))}
print(json.dumps({"arguments": sys.argv[1:], "variables": variables}))
print("to stderr", file=sys.stderr)
sys.stdout.flush()

action = os.environ["STAND_IN"].split()[process]
if action == "wait":
    received = []
    signal.signal(signal.SIGTERM, lambda *_: received.append(75))
    signal.signal(signal.SIGINT, lambda *_: received.append(130))
    print("ready", flush=True)
    end = time.monotonic() + 6000
    while time.monotonic() < end and not received:
        time.sleep(0.02)
    print(f"saved after {received}", end="", flush=True)
    sys.exit(received[0] if received else 99)
sys.exit(int(action))
