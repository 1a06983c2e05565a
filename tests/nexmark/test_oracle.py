#!/usr/bin/env python3
"""The oracle against plain Python, and the comparer against faults.

    test_oracle.py EVENTS [EVENTS…]

Takes files of events as oracle.py does. Ends with 0 if all agrees.
"""

import json
import pathlib
import sys
import tempfile
from collections import Counter, defaultdict
from datetime import datetime, timezone

from compare import Wrong, compare, difference
from oracle import database, files_of, rows_of_query, written
from queries import QUERIES


def millis(time):
    if isinstance(time, int):
        return time
    at = datetime.strptime(time, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=timezone.utc)
    return int(at.timestamp()) * 1000 + at.microsecond // 1000


def stamp(ms):
    at = datetime.fromtimestamp(ms // 1000, timezone.utc)
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{ms % 1000:03d}"


def read(path):
    """Persons, auctions and bids, with times in milliseconds, in their order."""
    tables = ([], [], [])
    for file in files_of(path):
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                event = json.loads(line)
                row = event[("person", "auction", "bid")[event["event_type"]]]
                for time in ("dateTime", "expires"):
                    if time in row:
                        row[time] = millis(row[time])
                tables[event["event_type"]].append(row)
    return tables


def euros(price):
    return f"{price * 908 // 1000}.{price * 908 % 1000:03d}"


def q1(_persons, _auctions, bids):
    for b in bids:
        yield b["auction"], b["bidder"], euros(b["price"]), stamp(b["dateTime"]), b["extra"]


def q3(persons, auctions, _bids):
    sellers = defaultdict(list)
    for p in persons:
        if p["state"] in ("OR", "ID", "CA"):
            sellers[p["id"]].append(p)
    for a in auctions:
        if a["category"] == 10:
            for p in sellers[a["seller"]]:
                yield p["name"], p["city"], p["state"], a["id"]


def offers(auctions, bids):
    """Bids on each auction while it lasts, by the auction."""
    by_auction = defaultdict(list)
    for b in bids:
        by_auction[b["auction"]].append(b)
    for a in auctions:
        yield a, [b for b in by_auction[a["id"]] if a["dateTime"] <= b["dateTime"] <= a["expires"]]


def q4(_persons, auctions, bids):
    finals = defaultdict(list)
    for a, on_it in offers(auctions, bids):
        if on_it:
            finals[a["category"]].append(max(b["price"] for b in on_it))
    for category, prices in finals.items():
        yield category, sum(prices) // len(prices)


def q5(_persons, _auctions, bids):
    counts = defaultdict(Counter)
    for b in bids:
        start = b["dateTime"] // 2000 * 2000
        for window in range(start - 8000, start + 1, 2000):
            counts[window][b["auction"]] += 1
    for window in counts.values():
        most = max(window.values())
        yield from ((auction, num) for auction, num in window.items() if num >= most)


def q7(_persons, _auctions, bids):
    most = defaultdict(int)
    for b in bids:
        end = b["dateTime"] // 10_000 * 10_000 + 10_000
        most[end] = max(most[end], b["price"])
    for b in bids:
        for end, price in most.items():
            if b["price"] == price and end - 10_000 <= b["dateTime"] <= end:
                yield b["auction"], b["price"], b["bidder"], stamp(b["dateTime"]), b["extra"]


def q8(persons, auctions, _bids):
    sold = {(a["seller"], a["dateTime"] // 10_000) for a in auctions}
    for id, name, window in {(p["id"], p["name"], p["dateTime"] // 10_000) for p in persons}:
        if (id, window) in sold:
            yield id, name, stamp(window * 10_000)


def q9(_persons, auctions, bids):
    for a, on_it in offers(auctions, bids):
        if on_it:
            # `min` takes the first of equals.
            b = min(on_it, key=lambda b: (-b["price"], b["dateTime"]))
            row = {**a, "dateTime": stamp(a["dateTime"]), "expires": stamp(a["expires"])}
            won = (b["auction"], b["bidder"], b["price"], stamp(b["dateTime"]), b["extra"])
            yield *row.values(), *won


def q11(_persons, _auctions, bids):
    times = defaultdict(list)
    for b in bids:
        times[b["bidder"]].append(b["dateTime"])
    for bidder, of_bidder in times.items():
        session = []
        for time in [*sorted(of_bidder), None]:
            if session and (time is None or time - session[-1] > 10_000):
                yield bidder, len(session), stamp(session[0]), stamp(session[-1] + 10_000)
                session = []
            session.append(time)


def q15(_persons, _auctions, bids):
    days = defaultdict(list)
    for b in bids:
        days[stamp(b["dateTime"])[:10]].append(b)
    for day, of_day in days.items():
        rank = lambda b: 1 + (b["price"] >= 10_000) + (b["price"] >= 1_000_000)  # noqa: E731
        groups = [of_day] + [[b for b in of_day if rank(b) == wanted] for wanted in (1, 2, 3)]
        yield (
            day,
            *(len(group) for group in groups),
            *(len({b["bidder"] for b in group}) for group in groups),
            *(len({b["auction"] for b in group}) for group in groups),
        )


def bid_row(b):
    return b["auction"], b["bidder"], b["price"], b["channel"], b["url"], stamp(b["dateTime"]), b["extra"]


def q18(_persons, _auctions, bids):
    last = {}
    for b in bids:
        key = b["bidder"], b["auction"]
        if key not in last or b["dateTime"] > last[key]["dateTime"]:
            last[key] = b
    yield from (bid_row(b) for b in last.values())


def q19(_persons, _auctions, bids):
    by_auction = defaultdict(list)
    for b in bids:
        by_auction[b["auction"]].append(b)
    for of_auction in by_auction.values():
        for rank, b in enumerate(sorted(of_auction, key=lambda b: -b["price"])[:10], 1):
            yield *bid_row(b), rank


PLAIN = {f.__name__: f for f in (q1, q3, q4, q5, q7, q8, q9, q11, q15, q18, q19)}


def check_queries(events):
    """Every query runs; those that are written out above give the same."""
    tables, data, wrong = read(events), database(events), 0
    for query in QUERIES:
        _, rows = rows_of_query(data, query)
        if query not in PLAIN:
            continue
        lines = difference(Counter(PLAIN[query](*tables)), Counter(rows))
        wrong += bool(lines)
        print(f"{query}: {len(rows)} rows", *(lines or ["as plain Python"]), sep="\n  ")
    return wrong


def check_comparer(events):
    """Changes are applied, ties are let pass, and faults are seen."""
    data, wrong = database(events), 0
    names, rows = rows_of_query(data, "q18")

    def expect(what, fault, ours, **options):
        nonlocal wrong
        with tempfile.TemporaryDirectory() as folder:
            mine, theirs = pathlib.Path(folder, "part-0-0.json"), pathlib.Path(folder, "expected.json")
            mine.write_text("".join(json.dumps(row) + "\n" for row in ours))
            theirs.write_text(written(names, rows, "json"))
            try:
                seen = bool(compare(mine, theirs, **options))
            except Wrong:
                seen = True
        wrong += seen != fault
        print(f"{'WRONG' if seen != fault else 'ok'}: {what}")

    plain = [dict(zip(names, row)) for row in rows]
    change = lambda op, row: {"op": op, **row}  # noqa: E731
    other = {**plain[0], "price": -1}
    inserts = [change("+I", row) for row in plain]
    updated = [change("+I", other), change("-U", other), change("+U", plain[0]), *inserts[1:]]
    keyed = [change("+U", other), *inserts, change("-D", inserts[0]), change("+U", plain[0])]
    by_key = {"key": ["bidder", "auction"]}
    expect("equal rows", False, reversed(plain))
    expect("a changelog", False, updated)
    expect("upserts", False, keyed, **by_key)
    expect("a row that lacks", True, plain[1:])
    expect("a row that is there twice", True, [*plain, plain[0]])
    expect("a value that differs", True, [other, *plain[1:]])
    expect("a delete of what is not there", True, [*inserts, change("-D", other)])
    expect("a kind that lacks", True, [*inserts[1:], plain[0]])
    expect("columns of another order", True, [dict(reversed(row.items())) for row in plain])
    tied = last_of_ties(data)
    differs = Counter(tuple(row.values()) for row in tied) != Counter(rows)
    expect("other rows of ties, to the letter", differs, tied)
    ties = {"query": "q18", "events": events}
    expect("other rows of ties", False, tied, **ties)
    expect("a row that was not to be chosen", True, [other, *tied[1:]], **ties)
    expect("a row that was to be chosen once", True, [tied[1], *tied[1:]], **ties)
    return wrong


def last_of_ties(data):
    """Q18 with the last of tied rows in place of the first."""
    sql = QUERIES["q18"].replace("DESC, seq)", "DESC, seq DESC)")
    result = data.execute(sql)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row)) for row in result.fetchall()]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    faults = sum(check_queries(events) + check_comparer(events) for events in sys.argv[1:])
    sys.exit(f"{faults} wrong" if faults else 0)
