#!/usr/bin/env python3
"""Says what a query of Nexmark gives over a finished set of events.

    oracle.py EVENTS QUERY… --output FOLDER     one QUERY.json a query (QUERY: q0 … q22, or all)
    oracle.py EVENTS QUERY                      its rows to standard output

Needs DuckDB (`pip install duckdb`). What EVENTS and the rows look like is in README.md.
"""

import argparse
import csv
import io
import json
import pathlib
import re
import sys

import duckdb

from queries import MACROS, QUERIES

TIME = "VARCHAR"
COLUMNS = {
    "person": {
        "id": "BIGINT", "name": "VARCHAR", "emailAddress": "VARCHAR", "creditCard": "VARCHAR",
        "city": "VARCHAR", "state": "VARCHAR", "dateTime": TIME, "extra": "VARCHAR",
    },
    "auction": {
        "id": "BIGINT", "itemName": "VARCHAR", "description": "VARCHAR", "initialBid": "BIGINT",
        "reserve": "BIGINT", "dateTime": TIME, "expires": TIME, "seller": "BIGINT", "category": "BIGINT",
        "extra": "VARCHAR",
    },
    "bid": {
        "auction": "BIGINT", "bidder": "BIGINT", "price": "BIGINT", "channel": "VARCHAR", "url": "VARCHAR",
        "dateTime": TIME, "extra": "VARCHAR",
    },
}  # fmt: skip


def files_of(path):
    """The files of rows at a path: itself, or a folder's parts in the order of subtasks and numbers."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return [path]
    visible = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
    return sorted(visible, key=lambda file: ([int(n) for n in re.findall(r"\d+", file.name)], file.name))


def database(events, side_input=None):
    """A database with the tables of the queries."""
    data = duckdb.connect()
    # One thread: `seq` is the order of the file.
    data.execute("SET threads = 1")
    data.execute(MACROS)
    data.execute("""
        CREATE MACRO ms(time) AS CASE WHEN regexp_full_match(time, '-?[0-9]+') THEN time::BIGINT
          ELSE epoch_ms(time::TIMESTAMP) END""")
    structs = {table: "STRUCT(" + ", ".join(f'"{n}" {t}' for n, t in columns.items()) + ")"
               for table, columns in COLUMNS.items()}  # fmt: skip
    files = [str(file) for file in files_of(events)]
    data.execute(
        """CREATE TABLE event AS SELECT *, row_number() OVER () AS seq
           FROM read_json($files, format = 'newline_delimited', columns = $columns)""",
        {"files": files, "columns": {"event_type": "INTEGER", **structs}},
    )
    for number, (table, columns) in enumerate(COLUMNS.items()):
        fields = [f'ms({table}."{n}") AS "{n}"' if n in ("dateTime", "expires") else f'{table}."{n}" AS "{n}"'
                  for n in columns]  # fmt: skip
        data.execute(f"CREATE TABLE t_{table} AS SELECT {', '.join(fields)}, seq FROM event WHERE event_type = {number}")
        data.execute(f"CREATE VIEW {table} AS SELECT * FROM t_{table}")
    data.execute("DROP TABLE event")
    if side_input is None:
        data.execute("CREATE TABLE side_input AS SELECT i AS key, i::VARCHAR AS value FROM range(10000) r(i)")
    else:
        data.execute(
            """CREATE TABLE side_input AS SELECT * FROM read_csv($file, header = false,
               columns = {'key': 'BIGINT', 'value': 'VARCHAR'})""",
            {"file": str(side_input)},
        )
    return data


def rows_of(data, sql, parameters=None):
    """The names of the columns, and the rows."""
    result = data.execute(sql, parameters or {})
    return [column[0] for column in result.description], result.fetchall()


def rows_of_query(data, query, processing_time=0):
    """The same of a query."""
    sql = QUERIES[query]
    parameters = {"processing_time": processing_time} if "$processing_time" in sql else {}
    return rows_of(data, sql, parameters)


def written(names, rows, form):
    """The rows as text, sorted."""
    if form == "json":
        lines = [json.dumps(dict(zip(names, row)), separators=(",", ":"), ensure_ascii=False) for row in rows]
        return "".join(line + "\n" for line in sorted(lines))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(sorted(rows, key=lambda row: [str(value) for value in row]))
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events")
    parser.add_argument("queries", nargs="+", metavar="QUERY", choices=[*QUERIES, "all"])
    parser.add_argument("--output", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--format", choices=["json", "csv"], default="json")
    parser.add_argument("--side-input", metavar="FILE", help="of q13: key,value [default: 0 to 9999, each its own]")
    parser.add_argument("--processing-time", type=int, default=0, metavar="MS", help="of q12 [default: 0]")
    args = parser.parse_intermixed_args()
    queries = list(QUERIES) if "all" in args.queries else args.queries
    if args.output is None and len(queries) > 1:
        parser.error("several queries need --output")
    data = database(args.events, args.side_input)
    for query in queries:
        text = written(*rows_of_query(data, query, args.processing_time), args.format)
        if args.output is None:
            sys.stdout.write(text)
        else:
            args.output.mkdir(parents=True, exist_ok=True)
            (args.output / f"{query}.{args.format}").write_text(text)


if __name__ == "__main__":
    main()
