#!/usr/bin/env python3
"""Compares the rows of two files or folders of JSON lines, as multisets.

    compare.py OURS EXPECTED [--key COLUMN,…] [--query QUERY --events EVENTS]

A changelog (a column `op` with +I, -U, +U, -D) is applied first: the rows that are left count. With --key it
is one of upserts. With --query and --events, where the query's order leaves ties, any of the tied rows is
taken for right. Ends with 0 if the rows are the same, else with 1 and the first that differ.
"""

import argparse
import json
import sys
from collections import Counter
from decimal import Decimal
from functools import lru_cache

from oracle import database, files_of, rows_of
from queries import TIES

SIGNS = {"+I": 1, "+U": 1, "-U": -1, "-D": -1}
SHOWN = 10


class Wrong(Exception):
    """Rows that cannot be right, whatever is expected."""


def canonical(value):
    """Decimals are texts, whether written as numbers or as texts; so are lists and records, to be held in a set."""
    if isinstance(value, (list, dict)):
        return json.dumps(value, default=str)
    return str(value) if isinstance(value, Decimal) else value


def lines_of(path):
    """The rows of files: their place, their kind (none: no changelog), names and values."""
    for file in files_of(path):
        with open(file, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row = json.loads(line, parse_float=Decimal)
                is_change = next(iter(row), None) == "op" and row["op"] in SIGNS
                op = row.pop("op") if is_change else None
                yield f"{file}, line {number}", op, tuple(row), tuple(canonical(v) for v in row.values())


def table_of(path, key=None):
    """The names of the columns (none without rows), and the rows that are left, with their number."""
    columns, rows, by_key, kinds = None, Counter(), {}, set()
    for place, op, names, row in lines_of(path):
        if columns not in (None, names):
            raise Wrong(f"{place}: columns {names} after {columns}")
        columns = names
        kinds.add(op is None)
        if len(kinds) > 1:
            raise Wrong(f"{place}: rows with a kind and rows without one")
        if key is None or op is None:
            rows[row] += SIGNS.get(op, 1)
            continue
        at = tuple(row[names.index(column)] for column in key)
        if SIGNS[op] > 0:
            by_key[at] = row
        elif by_key.pop(at, None) is None:
            raise Wrong(f"{place}: deletes a row that is not there")
    if by_key:
        rows = Counter(by_key.values())
    below = next((row for row, count in rows.items() if count < 0), None)
    if below is not None:
        raise Wrong(f"{path}: deletes more often than it inserts: {below}")
    return columns, +rows


def difference(ours, expected):
    """What is there too often, and what is missing, as lines; empty if nothing is."""
    lines = []
    for sign, rows in (("too many", ours - expected), ("missing", expected - ours)):
        lines += [f"{sign}: {row} × {count}" for row, count in sorted(rows.items(), key=str)[:SHOWN]]
        if len(rows) > SHOWN:
            lines.append(f"{sign}: … {len(rows)} different rows in all")
    return lines


def projected(columns, rows, names):
    places = [columns.index(name) for name in names]
    result = Counter()
    for row, count in rows.items():
        result[tuple(row[place] for place in places)] += count
    return result


@lru_cache
def rows_to_choose_from(query, events):
    """The names of the columns, and the rows out of which a query's ties are broken."""
    return rows_of(database(events), TIES[query][1])


def without_ties(query, events, columns, ours, expected):
    """As `difference`, but any of tied rows is right: the columns that do not depend on the choice are
    those expected, and each row is one out of which was to be chosen, no more often than it is there."""
    fixed = TIES[query][0]
    lines = difference(projected(columns, ours, fixed), projected(columns, expected, fixed))
    names, pool = rows_to_choose_from(query, events)
    taken = projected(columns, ours, names)
    surplus = taken - Counter(pool)
    lines += [f"not to be chosen: {row} × {count}" for row, count in sorted(surplus.items(), key=str)[:SHOWN]]
    return lines


def compare(ours, expected, key=None, query=None, events=None):
    """What differs, as lines."""
    our_columns, our_rows = table_of(ours, key)
    columns, rows = table_of(expected)
    if None not in (our_columns, columns) and our_columns != columns:
        return [f"columns {our_columns} in place of {columns}"]
    if query in TIES and events is not None and columns is not None and our_columns is not None:
        return without_ties(query, events, columns, our_rows, rows)
    return difference(our_rows, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours")
    parser.add_argument("expected")
    parser.add_argument("--key", type=lambda names: names.split(","), metavar="COLUMN,…")
    parser.add_argument("--query")
    parser.add_argument("--events")
    args = parser.parse_intermixed_args()
    try:
        lines = compare(args.ours, args.expected, args.key, args.query, args.events)
    except Wrong as wrong:
        lines = [str(wrong)]
    print("\n".join(lines) if lines else f"the same: {args.ours}")
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
