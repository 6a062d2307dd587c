"""Fuzzes a live server: requests by schemathesis from its own schema, and malformed uploads.

    PYTHONPATH=. python benchmarks/serving/fuzz.py

Starts `lumiere_jax.serve` on the loopback, and ends with code 1 if there was an answer of 5xx, a
path or traceback in an answer, a file outside of the data folder, an accepted job that does not
end, a worker that was lost, or a server whose memory grows from the first half to the second.
"""

import collections
import contextlib
import itertools
import random
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import schemathesis
from absl import flags, logging
from schemathesis.generation import GenerationMode
from starting import Server, serving, tiny_bundle, write_section

import tests.conftest  # noqa: F401  what compiles fast
from lumiere_jax.runtime import errors
from tests.serving.malformed import malformed

_BUNDLE = flags.DEFINE_string("bundle", None, "Weights to serve; None for those of the tests.")
_CASES = flags.DEFINE_integer("cases", 2000, "Requests by schemathesis.", 1)
_UPLOADS = flags.DEFINE_integer("uploads", 400, "Malformed uploads.", 0)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of both.")
_WRITE = flags.DEFINE_bool("write", False, "Write the figures into the page beside this file.")

_LEAKS = re.compile(
    r"Traceback|File \"|site-packages|sqlalchemy|sqlite3|psycopg|/root/|/home/|/work/|/tmp/|/usr/"
)
_LIMITS = (
    "--max_steps=2", "--max_frames=16", "--max_queue=50", "--max_queue_per_client=50",
    "--max_upload_mb=2",
)  # fmt: skip
_JOBS, _VIDEOS = "/api/v1/jobs", "/v1/videos"
_MOST_GROWTH = 30.0  # MiB


class Findings:
    """What was answered, and what must not have been."""

    def __init__(self):
        self.codes: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.bad: list[str] = []
        self.jobs: set[str] = set()

    def look(self, kind: str, what: str, code: int, content: bytes) -> None:
        """Takes an answer."""
        self.codes[kind][code] += 1
        text = content[:20_000].decode("utf-8", "replace")
        if code >= 500:
            self.bad.append(f"{what}: {code} {text[:200]}")
        # What a client sent may come back to it, in the options of a job.
        if code >= 400 and _LEAKS.search(text):
            self.bad.append(f"{what}: leaks in {text[:300]}")
        if code == 202 or (code == 200 and what.endswith(f"POST {_VIDEOS}")):
            self.jobs.add(re.search(r'"id":"([0-9a-f-]{36})"', text)[1])


def fuzz_schema(url: str, cases: int, seed: int, findings: Findings) -> None:
    """Sends requests that fit the schema, and some that do not."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    plan = [(o, mode) for o in operations for mode in GenerationMode]
    sent, generator = 0, random.Random(seed)
    while sent < cases:
        for operation, mode in plan:
            share = min(cases - sent, -(-cases // len(plan)))
            if share < 1:
                break
            count = 0

            @hypothesis.seed(seed + sent)
            @hypothesis.settings(
                max_examples=share,
                deadline=None,
                database=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                nonlocal count
                count += 1
                place = re.search(r"\{(\w+)\}", case.path)
                if findings.jobs and generator.random() < 0.5 and place:
                    case.path_parameters = {place[1]: generator.choice(sorted(findings.jobs))}
                if case.method == "POST" and isinstance(case.body, dict) and count % 3 == 0:
                    # Made-up options seldom go together, and some jobs are to be made.
                    prompt = str(case.body.get("prompt", "x"))
                    case.body = {"task": "text_to_video", "prompt": prompt, "base_only": "true"}
                reply = case.call(timeout=120)
                what = f"{case.method} {case.formatted_path}"
                findings.look("schemathesis", what, reply.status_code, reply.content)

            # Some operations have no request that does not fit.
            with contextlib.suppress(
                hypothesis.errors.Unsatisfiable, schemathesis.errors.SchemathesisError
            ):
                send()
            sent += count


def fuzz_uploads(url: str, count: int, seed: int, findings: Findings) -> None:
    """Sends damaged files under odd names, and some bodies that are no forms."""
    with httpx.Client(base_url=url, timeout=120) as client:
        for number, (task, fields, files) in enumerate(malformed(count, seed)):
            path = (_JOBS, _VIDEOS)[number % 2]
            reply = client.post(path, data=fields, files=files)
            what = f"upload to {task}: POST {path}"
            findings.look("uploads", what, reply.status_code, reply.content)
        whole = b'--b\r\nContent-Disposition: form-data; name="task"\r\n\r\nanimate\r\n--b--\r\n'
        bodies = (whole, whole[:40], b"--b\r\n\r\n", b"\xff" * 500, b"--b" * 10_000, b"[" * 9999)
        form = "multipart/form-data"
        for kind in (form, f"{form}; boundary=b", "application/json", "text/plain", ""):
            for path, body in itertools.product((_JOBS, _VIDEOS), bodies):
                reply = client.post(path, content=body, headers={"content-type": kind})
                findings.look("bodies", f"body of {kind!r}", reply.status_code, reply.content)


def wait_for_jobs(url: str, findings: Findings, seconds: float = 600) -> collections.Counter:
    """The states in which all accepted jobs ended."""
    until, left, ended = time.monotonic() + seconds, set(findings.jobs), collections.Counter()
    while left and time.monotonic() < until:
        for job in sorted(left):
            found = {"state": "deleted"} | httpx.get(f"{url}{_JOBS}/{job}").json()
            if found["state"] in ("done", "failed", "cancelled", "deleted"):
                ended[found["state"]] += 1
                left.remove(job)
                if found["state"] == "failed" and _LEAKS.search(found["error"] or "Traceback"):
                    findings.bad.append(f"job {job} failed with {found['error']!r}")
        time.sleep(1)
    if left:
        findings.bad.append(f"{len(left)} accepted jobs have not ended")
    return ended


def held(server: Server) -> tuple[int, float]:
    """File descriptors and MiB of the server's own process."""
    main = server.processes()[0]
    return main.num_fds(), main.memory_info().rss / 2**20


def workers(server: Server) -> list[int]:
    """The processes that make videos."""
    return [p.pid for p in server.processes()[1:] if "spawn_main" in " ".join(p.cmdline())]


def main(argv: list[str]) -> int:
    """Fuzzes."""
    del argv
    logging.set_verbosity(logging.WARNING)  # httpx tells every request
    findings, begun = Findings(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
        bundle = str(Path(_BUNDLE.value or tiny_bundle(Path(root))).absolute())
        with serving(Path(root), bundle, *_LIMITS) as server:
            known, seen = workers(server), [held(server)]
            for half in range(2):
                seed = 2 * _SEED.value + half
                fuzz_uploads(server.url, _UPLOADS.value // 2, seed, findings)
                fuzz_schema(server.url, _CASES.value // 2, seed, findings)
                ended = wait_for_jobs(server.url, findings)
                seen.append(held(server))
                print({kind: dict(codes) for kind, codes in findings.codes.items()}, seen)
            if workers(server) != known:
                findings.bad.append("a worker was lost")
            if seen[2][1] > seen[1][1] + _MOST_GROWTH:
                findings.bad.append("the server's memory grew in the second half")
            foreign = server.foreign_files()
            findings.bad += [f"file outside of the data folder: {path}" for path in foreign]
            left = [str(path) for path in (server.data / "tmp").rglob("*")]
            findings.bad += [f"left in the data folder: {path}" for path in left]
        defects = Path(root, "log").read_text().count("Traceback")
        findings.bad += [f"{defects} tracebacks in the log"] if defects else []
    lines = ["| requests | codes |", "| --- | --- |"]
    for kind, codes in findings.codes.items():
        shown = ", ".join(f"{n}× {code}" for code, n in sorted(codes.items()))
        lines.append(f"| {sum(codes.values())} {kind} | {shown} |")
    states = ", ".join(f"{n} {state}" for state, n in sorted(ended.items()))
    lines += [
        "",
        f"{len(findings.jobs)} jobs were accepted: {states}. Open files and MiB of the server's "
        f"process before, after half of it, and in the end: "
        f"{', '.join(f'{files} and {size:.0f}' for files, size in seen)}. Answers of 5xx, leaks, "
        f"files elsewhere, jobs without an end, workers lost: {len(findings.bad)}. "
        f"It took {(time.monotonic() - begun) / 60:.1f} min.",
    ]
    print("\n".join([*lines, *findings.bad]))
    if _WRITE.value:
        write_section("fuzz", lines)
    return 1 if findings.bad else 0


if __name__ == "__main__":
    errors.run(main)
