#!/usr/bin/env python3
"""Opens savepoints with other programs: pyarrow and DuckDB.

    check.py STREAMCTL WORD_COUNT OPERATORS

Stops word count with a savepoint on its way and reads its counts, which are those of the rows that can be seen
until then; reads states of every kind that were made of rows. Ends with "N passed, N failed", and with 1 if
something differs.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter

import duckdb
import pyarrow as pa

LINES = 400_000
COUNTS = "aggregate-sum-by-f0"
STATES = "process-States-by-key"
# Of each state a few rows, as JSON lines.
ROWS = {
    "total": [{"key": key, "value": key * 10} for key in range(100)],
    "items": [{"key": key, "key_": f"i{key % 3}", "value": -key} for key in range(100)],
    "history": [{"key": 7, "place": place, "f0": place * place, "f1": f"h{place}"} for place in range(5)],
}


def manifest_of(savepoint):
    """The manifest without its last line, which is its checksum."""
    text, checksum, end = (savepoint / "_metadata").read_text().rsplit("\n", 2)
    assert end == "" and len(checksum) == 64, checksum
    return json.loads(text)


def tables_of(savepoint):
    """The tables in a savepoint by uid and state, and checks of what is said of them."""
    manifest = manifest_of(savepoint)
    there = {str(path.relative_to(savepoint)) for path in savepoint.rglob("*") if path.is_file()}
    assert there == set(manifest["files"]) | {"_metadata"}, there
    tables = {}
    for name in sorted(manifest["files"]):
        uid, state, file = name.split("/")
        with pa.memory_map(str(savepoint / name)) as source:
            table = pa.ipc.open_file(source).read_all()
        assert table.schema.metadata[b"millstream.state"].decode() == state, name
        first, last = (int(part) for part in file.removesuffix(".arrow").split("-")[2:])
        groups = table["key_group"].to_pylist()
        assert all(first <= group <= last for group in groups), name
        roles = [field.metadata[b"millstream.role"].decode() for field in table.schema]
        assert roles[:2] == ["key", "key_group"], roles
        tables.setdefault((uid, state), []).append(table)
    return {key: pa.concat_tables(parts) for key, parts in tables.items()}


def stopped(streamctl, word_count, folder):
    """Word count, stopped with a savepoint after its first checkpoint; the savepoint's folder."""
    words = [f"w{(i * 7 + j * j) % 997}" for i in range(LINES) for j in range(4)]
    (folder / "text.txt").write_text("".join(" ".join(words[i : i + 4]) + "\n" for i in range(0, len(words), 4)))
    command = [streamctl, "run", "-q", "-p", "3", "-Dexecution.checkpointing.interval=10ms"]
    command += ["-Dexecution.checkpointing.dir=chk", "-Dexecution.checkpointing.savepoint-dir=sv"]
    command += [word_count, "--input", "text.txt", "--output", "out", "--format", "json"]
    job = subprocess.Popen(command, cwd=folder)
    while job.poll() is None and not list(folder.glob("chk/*/*/_metadata")):
        time.sleep(0.001)
    job.send_signal(signal.SIGUSR2)
    assert job.wait() == 0
    (savepoint,) = (folder / "sv").iterdir()
    return savepoint


def counts(streamctl, word_count, folder):
    table = tables_of(stopped(streamctl, word_count, folder))[COUNTS, "aggregate"]
    seen = Counter()
    for part in (folder / "out").glob("part-*"):
        for line in part.read_text().splitlines():
            row = json.loads(line)
            seen[row["word"]] = max(seen[row["word"]], row["count"])
    assert 0 < sum(seen.values()) < 4 * LINES, "it was not stopped on its way"
    by_arrow = dict(zip(table["f0"].to_pylist(), table["count"].to_pylist()))
    assert by_arrow == dict(seen), "pyarrow reads other counts than the rows say"
    by_duckdb = dict(duckdb.sql("SELECT f0, count FROM \"table\"").fetchall())
    assert by_duckdb == dict(seen), "DuckDB reads other counts than the rows say"
    ((total,),) = duckdb.sql("SELECT sum(count) FROM \"table\" WHERE key_group >= 0").fetchall()
    assert total == sum(seen.values()), total


def states(streamctl, operators, folder):
    command = [streamctl, "state", "write", "boot", "--component", operators, "-c", "states"]
    for state, rows in ROWS.items():
        (folder / f"{state}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        command += ["--operator", STATES, "--state", state, "--input", f"{state}.jsonl"]
    subprocess.run([*command, "--", "--input", "none.jsonl"], cwd=folder, check=True)
    tables = tables_of(folder / "boot")
    assert set(tables) == {(STATES, state) for state in ROWS}, set(tables)
    for state, rows in ROWS.items():
        table = tables[STATES, state]
        columns = ", ".join(f'"{name}"' for name in rows[0])
        read = duckdb.sql(f"SELECT {columns} FROM \"table\"").fetchall()
        assert sorted(read) == sorted(tuple(row.values()) for row in rows), state


def main():
    streamctl, word_count, operators = (os.path.abspath(path) for path in sys.argv[1:])
    passed = failed = 0
    for check, component in ((counts, word_count), (states, operators)):
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(streamctl, component, pathlib.Path(folder))
                passed += 1
            except (AssertionError, subprocess.CalledProcessError) as error:
                print(f"{check.__name__}: {error}")
                failed += 1
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
