#!/usr/bin/env python3
"""Runs the queries of Nexmark with streamctl, and compares their rows with the oracle's.

    check.py STREAMCTL NEXMARK_WASM EVENTS [QUERY…] [-p 1,2,3,7] [--shuffle SEED] [--option OPTION…]

EVENTS is a file of events. Each query runs at each parallelism, streaming and in batches. With --shuffle the
events are first put into another order, none more than the four seconds late that the queries allow. At
parallelism 1 ties must be broken as the oracle breaks them, above it any of the tied rows is right. q12 is
left out: its windows are of the machine's time. Ends with 0 if all rows are right.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

from compare import Wrong, compare
from oracle import database, rows_of_query, written
from queries import QUERIES
from test_oracle import millis

LATE_MAX_MS = 3_900


def shuffled(events, seed, target):
    """Writes the events in the order in which they arrive, each up to so many milliseconds late."""
    late = random.Random(seed)
    lines = pathlib.Path(events).read_text(encoding="utf-8").splitlines(keepends=True)

    def arrival(line):
        event = json.loads(line)
        row = event[("person", "auction", "bid")[event["event_type"]]]
        return millis(row["dateTime"]) + late.randrange(LATE_MAX_MS)

    target.write_text("".join(sorted(lines, key=arrival)), encoding="utf-8")


def run(args, query, parallelism, execution, events, output):
    """What is wrong with the rows of one run, as lines."""
    options = ["--execution", execution, "-p", str(parallelism), *args.option]
    job = ["-c", query, args.wasm, "--input", str(events), "--output", str(output)]
    done = subprocess.run([args.streamctl, "run", *options, *job], capture_output=True, text=True)
    if done.returncode != 0:
        return [line for line in done.stderr.splitlines() if line.strip()][-3:]
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streamctl")
    parser.add_argument("wasm")
    parser.add_argument("events")
    parser.add_argument("queries", nargs="*", metavar="QUERY")
    parser.add_argument("-p", default="1,2,3,7", metavar="P,…")
    parser.add_argument("--shuffle", metavar="SEED")
    parser.add_argument("--option", action="append", default=[], help="of `streamctl run`")
    args = parser.parse_intermixed_args()
    queries = args.queries or [query for query in QUERIES if query != "q12"]
    wrong = checked = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        events = pathlib.Path(args.events)
        if args.shuffle is not None:
            events = folder / "events.jsonl"
            shuffled(args.events, args.shuffle, events)
        data = database(events)
        for query in queries:
            expected = folder / f"{query}.json"
            expected.write_text(written(*rows_of_query(data, query), "json"))
            for parallelism in map(int, args.p.split(",")):
                for execution in ("streaming", "batch"):
                    name = f"{query}-{parallelism}-{execution}"
                    lines = run(args, query, parallelism, execution, events, folder / name)
                    if lines is None:
                        ties = {} if parallelism == 1 else {"query": query, "events": events}
                        try:
                            lines = compare(folder / name, expected, **ties)
                        except Wrong as fault:
                            lines = [str(fault)]
                    checked += 1
                    wrong += bool(lines)
                    if lines:
                        print(f"{name}: WRONG", *lines, sep="\n  ")
            print(f"{query}: {len(expected.read_text().splitlines())} rows expected", flush=True)
    print(f"{checked - wrong} right, {wrong} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
