#!/usr/bin/env python3
"""Runs each example and each query of Nexmark straight, and in ways in which it is interrupted.

    check.py STREAMCTL COMPONENTS [--jobs JOB …] [--events N] [--seed N]

COMPONENTS is the folder with the examples' components. What each way commits must be what the straight run does,
as a table where it is a changelog, floats within 1e-9: with checkpoints; stopped with a savepoint in the middle
and resumed, killed at a checkpoint and restored, at a parallelism more, at one less, and on the other backend of
state. At last it is seen that rows that lack, that are there twice, and a commit that is left out are told.
Prints a line a job; ends with "N passed, N failed", and with 1 if a way differs.
"""

import argparse
import json
import math
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "nexmark"))

from check import DISORDER, QUERIES, counts_of_bidders, spread, tell  # noqa: E402
from compare import Wrong, compare, table_of  # noqa: E402

HASHMAP = ["-Dstate.backend.type=hashmap"]
# As little memory as there may be.
ROCKSDB = ["-Dstate.backend.type=rocksdb", "-Dstate.backend.rocksdb.memory.fixed-per-slot=4mb"]
INTERVAL = "-Dexecution.checkpointing.interval=10ms"
# So many milliseconds an interrupted run is to last, that there are some checkpoints; bytes that are read at once.
LASTS = 700
READ = 512 << 10
# How long a job may take.
PATIENCE = 60
# What an interrupted run begins with, how it is interrupted, and what it goes on with.
WAYS = [
    ("with checkpoints", ("2", HASHMAP), None, None),
    ("on RocksDB, with checkpoints", ("2", ROCKSDB), None, None),
    ("stopped, resumed", ("2", HASHMAP), "stop", ("2", HASHMAP)),
    ("stopped, resumed at p + 1 on RocksDB", ("2", HASHMAP), "stop", ("3", ROCKSDB)),
    ("on RocksDB, stopped, resumed at p - 1 in memory", ("2", ROCKSDB), "stop", ("1", HASHMAP)),
    ("killed, restored at p + 1", ("2", HASHMAP), "kill", ("3", HASHMAP)),
    ("killed, restored at p - 1 on RocksDB", ("2", HASHMAP), "kill", ("1", ROCKSDB)),
    ("on RocksDB, killed, restored at p + 1", ("2", ROCKSDB), "kill", ("3", ROCKSDB)),
]


class Job:
    """A job of an example, and what it reads."""

    def __init__(self, name, component, arguments, events=None):
        self.name, self.component, self.arguments, self.events = name, component, arguments, events
        reads = max(2 + path.stat().st_size // READ for path in arguments if isinstance(path, pathlib.Path))
        self.paced = f"source.read=stall:{LASTS // reads}"

    def differs(self, ours, expected):
        """What differs, as lines."""
        if self.name == "q12":
            ours, theirs = counts_of_bidders(ours), counts_of_bidders(expected)
            return [] if ours == theirs else [f"{len(ours)} bidders, of {len(theirs)}, or other counts"]
        lines = compare(ours, expected, query=self.name, events=self.events)
        return [] if not lines or nearly(ours, expected) else lines


def nearly(ours, expected):
    """Whether what differs are floats that are as good as the same."""
    (_, ours), (_, theirs) = table_of(ours), table_of(expected)
    rows = [sorted((ours - theirs).elements(), key=str), sorted((theirs - ours).elements(), key=str)]
    return len(rows[0]) == len(rows[1]) and all(
        len(one) == len(other) and all(map(same_value, one, other)) for one, other in zip(*rows)
    )


def same_value(one, other):
    if one == other:
        return True
    # A float is a text here, with a point or an exponent, as a decimal is.
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-9)
    except (TypeError, ValueError):
        return False


def files_below(folder):
    # What is removed meanwhile is passed over.
    return [pathlib.Path(place, name) for place, _, names in os.walk(folder) for name in names]


class Check:
    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.components = pathlib.Path(args.components)
        self.jobs = [*self.queries(), *self.examples()]
        if args.jobs:
            self.jobs = [job for job in self.jobs if job.name in args.jobs]

    def write(self, name, lines):
        path = self.folder / name
        path.write_text("".join(lines), encoding="utf-8")
        return path

    def queries(self):
        events = self.folder / "generated"
        generator = ["--events", str(self.args.events), "--seed", str(self.args.seed)]
        nexmark = self.components / "nexmark.wasm"
        self.run(["-p", "1", "-c", "events", nexmark, *generator, "--output", events])
        lines = [spread(line) for part in sorted(events.iterdir()) for line in part.open(encoding="utf-8")]
        draw = random.Random(self.args.seed)
        lines.sort(key=lambda line: line[0] + draw.uniform(0, DISORDER))
        events = self.write("events", [line for _, line in lines])
        for query in QUERIES:
            yield Job(query, nexmark, ["-c", query, "--input", events], events)

    def examples(self):
        draw = random.Random(self.args.seed)
        names = [f"name-{number}" for number in range(300)]
        start = datetime(2026, 3, 2)
        stamp = lambda seconds: f"{start + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}.000"  # noqa: E731
        as_json = lambda rows: [json.dumps(row) + "\n" for row in rows]  # noqa: E731

        words = [" ".join(draw.choices(names, k=8)) + "\n" for _ in range(4_000)]
        yield Job("word_count", self.components / "word_count.wasm", ["--input", self.write("words", words)])

        # Rows so far by user: what comes first counts. So all prices of a user are the same.
        kinds = ["purchase", "view", "search"]
        events = [
            {"user": name, "kind": draw.choice(kinds), "cents": len(name) * 100, "device": None, "tags": []}
            for name in draw.choices(names, k=20_000)
        ]
        yield Job("events", self.components / "events.wasm", ["--input", self.write("shop", as_json(events))])

        clicks = [
            {"user": draw.choice(names), "at": stamp(20 * number), "page": draw.choice("abcdef")}
            for number in range(20_000)
        ]
        clicks = self.write("clicks", as_json(clicks))
        yield Job("sessions", self.components / "sessions.wasm", ["--input", clicks, "--gap", "20"])

        cities, tiers = ["Berlin", "Paris", "Oslo"], ["gold", "silver", None]
        customers = [
            {"name": draw.choice(names), "city": draw.choice(cities), "tier": draw.choice(tiers),
             "since": stamp(60 * number)}
            for number in range(3_000)
        ]  # fmt: skip
        orders = [
            {"order": number, "customer": draw.choice(names), "cents": number, "at": stamp(9 * number)}
            for number in range(20_000)
        ]
        customers, orders = self.write("customers", as_json(customers)), self.write("orders", as_json(orders))
        enrichment = self.components / "enrichment.wasm"
        inputs = ["--input", orders, "--customers", customers]
        yield Job("enrichment", enrichment, inputs)
        yield Job("enrichment --as-of", enrichment, [*inputs, "--as-of"])

    def command(self, job, parallelism, options, output):
        fixed = ["-p", parallelism, *options, job.component, *job.arguments]
        return [self.args.streamctl, "run", *map(str, fixed), "--output", str(output), "--format", "json"]

    def run(self, arguments, faults="", expected=0):
        """What it says on standard error."""
        command = arguments if arguments[0] == self.args.streamctl else [self.args.streamctl, "run", *arguments]
        env = {**os.environ, "MILLSTREAM_FAULTS": faults}
        ended = subprocess.run(
            list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env,
            timeout=PATIENCE,
        )  # fmt: skip
        if ended.returncode != expected:
            raise Wrong(f"it ended with {ended.returncode}: {' '.join(map(str, command))}\n{ended.stderr}")
        return ended.stderr

    def stopped(self, job, command, folder):
        """Runs until there are some checkpoints, and stops with a savepoint: its path."""
        env = {**os.environ, "MILLSTREAM_FAULTS": job.paced}
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env) as run:
            end = time.monotonic() + PATIENCE
            while sum(path.name == "_metadata" for path in files_below(folder / "chk")) == 0:
                if run.poll() is not None or time.monotonic() > end:
                    run.kill()
                    raise Wrong(f"it made no checkpoint: {run.stderr.read()}")
                time.sleep(0.002)
            time.sleep(0.1)
            run.send_signal(signal.SIGUSR2)
            _, told = run.communicate(timeout=PATIENCE)
        if run.returncode != 0 or "Savepoint completed. Path: file:" not in told:
            raise Wrong(f"it was not stopped: {run.returncode}: {told}")
        return told.split("Savepoint completed. Path: file:")[1].splitlines()[0]

    def way(self, job, way, expected):
        """What differs, as lines."""
        name, (parallelism, backend), how, then = way
        folder = self.folder / "runs" / f"{job.name} {name}".replace(" ", "_").replace(",", "")
        folder.mkdir(parents=True)
        output = folder / "out"
        local = [f"-Dstate.backend.rocksdb.localdir={folder / 'state'}"]
        checkpoints = [INTERVAL, f"-Dexecution.checkpointing.dir={folder / 'chk'}"]
        savepoints = [f"-Dexecution.checkpointing.savepoint-dir={folder / 'sv'}"]
        command = self.command(job, parallelism, [*backend, *local, *checkpoints, *savepoints], output)
        try:
            if how is None:
                told = self.run(command, job.paced)
                if " complete" not in told:
                    raise Wrong(f"it made no checkpoint: {told}")
            elif how == "stop":
                resume = ["-s", self.stopped(job, command, folder)]
            else:
                self.run(command, f"checkpoint.stored@2=kill,{job.paced}", -signal.SIGABRT)
                resume = [*checkpoints, "--restore", "latest"]
            if then is not None:
                parallelism, backend = then
                told = self.run(self.command(job, parallelism, [*backend, *local, *resume], output))
                if "goes on from" not in told:
                    raise Wrong(f"it began anew: {told}")
            lines = job.differs(output, expected)
        except (Wrong, subprocess.TimeoutExpired) as wrong:
            return [str(wrong)]
        shutil.rmtree(folder)
        return lines

    def straight(self, job):
        output = self.folder / "straight" / job.name.replace(" ", "_")
        shutil.rmtree(output, ignore_errors=True)
        self.run(self.command(job, "2", HASHMAP, output))
        if not files_below(output):
            raise Wrong(f"{job.name} gives no rows")
        return output

    def faults_are_told(self):
        """What a check of rows that are wrong on purpose does not tell, as lines."""
        job, untold = self.jobs[0], []
        expected = self.straight(job)
        part = max(files_below(expected), key=lambda path: path.stat().st_size)
        lines = part.read_text(encoding="utf-8").splitlines(keepends=True)
        middle = len(lines) // 2
        other = lines[middle].replace("0", "1") if "0" in lines[middle] else lines[middle].replace("1", "2")
        for what, wrong in (
            ("a row that lacks", lines[:middle] + lines[middle + 1 :]),
            ("a row that is there twice", [*lines, lines[middle]]),
            ("a row that differs", [*lines[:middle], other, *lines[middle + 1 :]]),
        ):
            tampered = self.folder / "tampered"
            shutil.copytree(expected, tampered)
            (tampered / part.name).write_text("".join(wrong), encoding="utf-8")
            untold += [] if job.differs(tampered, expected) else [what]
            shutil.rmtree(tampered)
        output, checkpoints = self.folder / "left-out", f"-Dexecution.checkpointing.dir={self.folder / 'left-chk'}"
        self.run(self.command(job, "2", [INTERVAL, checkpoints], output), f"sink.rename@2=skip,{job.paced}")
        return untold + ([] if job.differs(output, expected) else ["a commit that is left out"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streamctl")
    parser.add_argument("components")
    parser.add_argument("--jobs", nargs="+", metavar="JOB")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.streamctl = str(pathlib.Path(args.streamctl).resolve())
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(4) as pool:
        check = Check(args, pathlib.Path(folder))
        for job in check.jobs:
            expected = check.straight(job)
            ways = list(pool.map(lambda way, job=job, expected=expected: check.way(job, way, expected), WAYS))
            wrong = tell(job.name, WAYS, ways)
            passed, failed = passed + len(WAYS) - wrong, failed + wrong
        untold = check.faults_are_told()
        passed, failed = passed + (not untold), failed + bool(untold)
        print("faults on purpose:", *untold or ["all are told"], flush=True)
    print(f"recovery: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
