#!/usr/bin/env python3
"""Runs the queries of Nexmark in Millstream and compares their rows with the oracle's.

    check.py STREAMCTL COMPONENT [--queries QUERY …] [--events N] [--seed N]

Every query runs in several ways: at several parallelisms, streaming and batch, with a fresh guest for each
call, from the generator and from a file, whose events are spread over more time and out of order. Prints a
line a query; ends with "N passed, N failed", and with 1 if a run differs.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import duckdb
from compare import Wrong, compare, table_of

HERE = pathlib.Path(__file__).resolve().parent
SIDE_INPUT = HERE.parent.parent / "examples/nexmark/side_input.csv"
QUERIES = [f"q{n}" for n in (*range(6), *range(7, 21), 22)]
# Name, options, whether the events come from the file.
# Name, options, which events.
WAYS = [
    ("-p 1", ["-p", "1"], "generator"),
    ("-p 7", ["-p", "7"], "generator"),
    ("-p 3, batch", ["-p", "3", "--execution", "batch"], "generator"),
    ("-p 2, fresh instances", ["-p", "2", "--chaos-instances"], "generator"),
    ("-p 3, two phases", ["-p", "3", "-Dtable.optimizer.agg-phase-strategy=TWO_PHASE"], "generator"),
    ("-p 1, a file", ["-p", "1"], "file"),
    ("-p 3, a file", ["-p", "3"], "file"),
    ("-p 2, a file, fresh instances", ["-p", "2", "--chaos-instances"], "file"),
    ("-p 1, a file, batch", ["-p", "1", "--execution", "batch"], "file"),
]
# The file's events are spread over so many times the generator's time: windows end meanwhile.
STRETCHED = 100
# They are out of order by this many milliseconds at most: the queries' watermarks allow for 4 seconds.
DISORDER = 3_900


def spread(line):
    """An event's time in the file, and its line."""
    event = json.loads(line)
    row = event[("person", "auction", "bid")[event["event_type"]]]
    for field in ("dateTime", "expires"):
        if field in row:
            row[field] = FIRST + (epoch_ms(row[field]) - FIRST) * STRETCHED
    return row["dateTime"], json.dumps(event, separators=(",", ":"), ensure_ascii=False) + "\n"


def epoch_ms(text):
    at = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    return round(at.timestamp() * 1000)


# The generator's first event.
FIRST = epoch_ms("2015-07-15 00:00:00.000")


def run(command):
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ended.returncode != 0:
        raise Wrong(f"{' '.join(map(str, command))}\n{ended.stderr}")


def counts_of_bidders(path):
    """q12's windows are of the machine's time: what does not depend on it is each bidder's sum."""
    columns, rows = table_of(path)
    sums = {}
    for row, times in rows.items():
        row = dict(zip(columns, row))
        sums[row["bidder"]] = sums.get(row["bidder"], 0) + times * row["bid_count"]
    return sums


class Check:
    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.generator = ["--events", args.events, "--seed", args.seed]
        self.events = folder / "events"
        self.job("events", ["-p", "1"], self.generator, self.events)
        lines = [spread(line) for part in sorted(self.events.iterdir()) for line in part.open(encoding="utf-8")]
        draw = random.Random(args.seed)
        lines.sort(key=lambda line: line[0] + draw.uniform(0, DISORDER))
        self.file = folder / "events.json"
        self.file.write_text("".join(line for _, line in lines), encoding="utf-8")
        for name, events in (("generator", self.events), ("file", self.file)):
            run([sys.executable, HERE / "oracle.py", events, "all", "--output", folder / "expected" / name,
                 "--side-input", SIDE_INPUT])  # fmt: skip
        run([sys.executable, HERE / "test_oracle.py", self.file])

    def job(self, job, options, arguments, output):
        options = ["run", *options, "-c", job]
        run([self.args.streamctl, *options, self.args.component, *map(str, arguments), "--output", output])

    def way(self, query, way):
        """What differs, as lines."""
        name, options, source = way
        output = self.folder / query / name.replace(" ", "_")
        events = self.file if source == "file" else self.events
        arguments = ["--input", self.file] if source == "file" else self.generator
        expected = self.folder / "expected" / source / f"{query}.json"
        try:
            self.job(query, options, arguments, output)
            if query == "q12":
                ours, theirs = counts_of_bidders(output), counts_of_bidders(expected)
                return [] if ours == theirs else [f"{len(ours)} bidders, of {len(theirs)}, or other counts"]
            return compare(output, expected, query=query, events=events)
        except Wrong as wrong:
            return [str(wrong)]

    def parquet(self):
        """What another reader finds in files of Parquet, where it is not what the oracle gives."""
        output = self.folder / "parquet"
        self.job("q1", ["-p", "2"], [*self.generator, "--format", "parquet"], output)
        columns = "auction, bidder, CAST(price AS VARCHAR), epoch_ms(dateTime), extra"
        ours = duckdb.sql(f"SELECT {columns} FROM read_parquet('{output}/*.parquet')").fetchall()
        names, rows = table_of(self.folder / "expected" / "generator" / "q1.json")
        rows = [dict(zip(names, row)) for row, times in rows.items() for _ in range(times)]
        theirs = [(r["auction"], r["bidder"], r["price"], epoch_ms(r["dateTime"]), r["extra"]) for r in rows]
        return [] if sorted(ours) == sorted(theirs) else [f"{len(ours)} rows, of {len(theirs)}, or others"]


def tell(name, ways, results):
    """Prints what is wrong with the results of a job's ways, whose names come first; of how many something is."""
    wrong = [(way, lines) for (way, *_), lines in zip(ways, results) if lines]
    print(f"{name}: {'ok' if not wrong else 'WRONG'}", flush=True)
    for way, lines in wrong:
        print(f"  {way}:", *lines, sep="\n    ", flush=True)
    return len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streamctl")
    parser.add_argument("component")
    parser.add_argument("--queries", nargs="+", default=QUERIES, choices=QUERIES)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        check = Check(args, pathlib.Path(folder))
        for query in args.queries:
            ways = list(pool.map(lambda way, query=query: check.way(query, way), WAYS))
            wrong = tell(query, WAYS, ways)
            passed, failed = passed + len(WAYS) - wrong, failed + wrong
        if "q1" in args.queries:
            wrong = check.parquet()
            passed, failed = passed + (not wrong), failed + bool(wrong)
            print("q1 in Parquet, read by DuckDB:", *wrong or ["ok"], flush=True)
    print(f"nexmark: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
