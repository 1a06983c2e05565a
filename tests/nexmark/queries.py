"""What each query of Nexmark gives, as SQL over the finished set of events.

The tables are `person`, `auction` and `bid`, in the standard form; times are milliseconds since 1970,
and `seq` is an event's place in the file. `stamp(ms)` writes a time, `euros(price)` is 0.908 * price as
a decimal(23, 3). Windows are written out: a window of `size` begins at `ms - ms % size`.

Source of the queries: https://github.com/nexmark/nexmark, nexmark-flink/src/main/resources/queries.
"""

MACROS = """
CREATE MACRO stamp(ms) AS strftime(make_timestamp(ms * 1000), '%Y-%m-%d %H:%M:%S.%g');
CREATE MACRO day(ms) AS strftime(make_timestamp(ms * 1000), '%Y-%m-%d');
CREATE MACRO minute_of_day(ms) AS strftime(make_timestamp(ms * 1000), '%H:%M');
CREATE MACRO euros(price) AS CAST(0.908 AS DECIMAL(4, 3)) * CAST(price AS DECIMAL(19, 0));
CREATE MACRO start_of(ms, size) AS ms - ((ms % size) + size) % size;
"""

# Counts over all bids of a group, and over those of each rank of price.
RANKS = {
    "total": "TRUE",
    "rank1": "price < 10000",
    "rank2": "price >= 10000 AND price < 1000000",
    "rank3": "price >= 1000000",
}


def _counts(of, what):
    return ",\n  ".join(f"count({of}) FILTER (WHERE {test}) AS {rank}_{what}" for rank, test in RANKS.items())


BIDS, BIDDERS, AUCTIONS = (
    _counts("*", "bids"),
    _counts("DISTINCT bidder", "bidders"),
    _counts("DISTINCT auction", "auctions"),
)

# Bids on an auction while it lasts.
OFFERS = """
  SELECT A.*, B.auction, B.bidder, B.price, B.dateTime AS bid_dateTime, B.extra AS bid_extra, B.seq AS bid_seq
  FROM auction A JOIN bid B ON A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires
"""

OFFER_COLUMNS = """id, itemName, description, initialBid, reserve, stamp(dateTime) AS dateTime,
  stamp(expires) AS expires, seller, category, extra, auction, bidder, price,
  stamp(bid_dateTime) AS bid_dateTime, bid_extra"""

BID_COLUMNS = "auction, bidder, price, channel, url, stamp(dateTime) AS dateTime, extra"

# Bids of each auction in the ten seconds that end every two seconds.
HOT = """
  SELECT auction, count(*) AS num, starttime
  FROM (SELECT auction, unnest(generate_series(start_of(dateTime, 2000) - 8000, start_of(dateTime, 2000), 2000))
          AS starttime FROM bid)
  GROUP BY auction, starttime
"""

QUERIES = {
    "q0": "SELECT auction, bidder, price, stamp(dateTime) AS dateTime, extra FROM bid",
    "q1": "SELECT auction, bidder, euros(price)::VARCHAR AS price, stamp(dateTime) AS dateTime, extra FROM bid",
    "q2": "SELECT auction, price FROM bid WHERE auction % 123 = 0",
    "q3": """
        SELECT P.name, P.city, P.state, A.id
        FROM auction A JOIN person P ON A.seller = P.id
        WHERE A.category = 10 AND P.state IN ('OR', 'ID', 'CA')""",
    "q4": f"""
        SELECT category, sum(final) // count(*) AS average
        FROM (SELECT max(price) AS final, category FROM ({OFFERS}) GROUP BY id, category)
        GROUP BY category""",
    "q5": f"""
        SELECT H.auction, H.num
        FROM ({HOT}) H JOIN (SELECT max(num) AS most, starttime FROM ({HOT}) GROUP BY starttime) M
          ON H.starttime = M.starttime AND H.num >= M.most""",
    # BETWEEN takes both ends: a bid at the very end of a window counts there too.
    "q7": """
        SELECT B.auction, B.price, B.bidder, stamp(B.dateTime) AS dateTime, B.extra
        FROM bid B JOIN (
          SELECT max(price) AS most, start_of(dateTime, 10000) + 10000 AS ends
          FROM bid GROUP BY start_of(dateTime, 10000)
        ) M ON B.price = M.most AND B.dateTime BETWEEN M.ends - 10000 AND M.ends""",
    "q8": """
        SELECT P.id, P.name, stamp(P.starttime) AS starttime
        FROM (SELECT DISTINCT id, name, start_of(dateTime, 10000) AS starttime FROM person) P
        JOIN (SELECT DISTINCT seller, start_of(dateTime, 10000) AS starttime FROM auction) A
          ON P.id = A.seller AND P.starttime = A.starttime""",
    "q9": f"""
        SELECT {OFFER_COLUMNS} FROM ({OFFERS})
        QUALIFY row_number() OVER (PARTITION BY id ORDER BY price DESC, bid_dateTime, bid_seq) = 1""",
    "q10": """
        SELECT auction, bidder, price, stamp(dateTime) AS dateTime, extra, day(dateTime) AS dt,
          minute_of_day(dateTime) AS hm
        FROM bid""",
    # A session ends when for longer than ten seconds there is no bid.
    "q11": """
        WITH gaps AS (
          SELECT bidder, dateTime,
            dateTime - lag(dateTime) OVER (PARTITION BY bidder ORDER BY dateTime) > 10000 AS begins
          FROM bid
        ), sessions AS (
          SELECT bidder, dateTime,
            count(*) FILTER (WHERE begins) OVER (
              PARTITION BY bidder ORDER BY dateTime RANGE UNBOUNDED PRECEDING) AS session
          FROM gaps
        )
        SELECT bidder, count(*) AS bid_count, stamp(min(dateTime)) AS starttime,
          stamp(max(dateTime) + 10000) AS endtime
        FROM sessions GROUP BY bidder, session""",
    # All bids come at $processing_time.
    "q12": """
        SELECT bidder, count(*) AS bid_count,
          stamp(start_of($processing_time, 10000)) AS starttime,
          stamp(start_of($processing_time, 10000) + 10000) AS endtime
        FROM bid GROUP BY bidder""",
    "q13": """
        SELECT B.auction, B.bidder, B.price, stamp(B.dateTime) AS dateTime, S.value
        FROM bid B JOIN side_input S ON B.auction % 10000 = S.key""",
    "q14": """
        SELECT auction, bidder, euros(price)::VARCHAR AS price,
          CASE
            WHEN hour(make_timestamp(dateTime * 1000)) BETWEEN 8 AND 18 THEN 'dayTime'
            WHEN hour(make_timestamp(dateTime * 1000)) <= 6 OR hour(make_timestamp(dateTime * 1000)) >= 20
              THEN 'nightTime'
            ELSE 'otherTime'
          END AS bidTimeType,
          stamp(dateTime) AS dateTime, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
        FROM bid WHERE euros(price) > 1000000 AND euros(price) < 50000000""",
    "q15": f"""
        SELECT day(dateTime) AS day,
          {BIDS},
          {BIDDERS},
          {AUCTIONS}
        FROM bid GROUP BY day(dateTime)""",
    "q16": f"""
        SELECT channel, day(dateTime) AS day, max(minute_of_day(dateTime)) AS minute,
          {BIDS},
          {BIDDERS},
          {AUCTIONS}
        FROM bid GROUP BY channel, day(dateTime)""",
    "q17": f"""
        SELECT auction, day(dateTime) AS day,
          {BIDS},
          min(price) AS min_price, max(price) AS max_price, sum(price)::BIGINT // count(*) AS avg_price,
          sum(price)::BIGINT AS sum_price
        FROM bid GROUP BY auction, day(dateTime)""",
    "q18": f"""
        SELECT {BID_COLUMNS} FROM bid
        QUALIFY row_number() OVER (PARTITION BY bidder, auction ORDER BY bid.dateTime DESC, seq) = 1""",
    "q19": f"""
        SELECT {BID_COLUMNS},
          row_number() OVER (PARTITION BY auction ORDER BY price DESC, seq) AS rank_number
        FROM bid QUALIFY rank_number <= 10""",
    "q20": """
        SELECT B.auction, B.bidder, B.price, B.channel, B.url, stamp(B.dateTime) AS bid_dateTime,
          B.extra AS bid_extra, A.itemName, A.description, A.initialBid, A.reserve,
          stamp(A.dateTime) AS auction_dateTime, stamp(A.expires) AS expires, A.seller, A.category,
          A.extra AS auction_extra
        FROM bid B JOIN auction A ON B.auction = A.id WHERE A.category = 10""",
    # Of the URLs that Nexmark makes; `lower` is not needed for its channels, but is part of the query.
    "q21": r"""
        SELECT * FROM (
          SELECT auction, bidder, price, channel,
            CASE lower(channel)
              WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'
              ELSE CASE WHEN regexp_matches(url, '(&|^)channel_id=')
                THEN regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) END
            END AS channel_id
          FROM bid
        ) WHERE channel_id IS NOT NULL""",
    "q22": """
        SELECT auction, bidder, price, channel, string_split(url, '/')[4] AS dir1,
          string_split(url, '/')[5] AS dir2, string_split(url, '/')[6] AS dir3
        FROM bid""",
}

# Queries whose order leaves ties: the columns that are the same whichever of the tied rows is taken, and
# the rows out of which one may be taken.
TIES = {
    "q9": (["id", "price", "bid_dateTime"], f"SELECT {OFFER_COLUMNS} FROM ({OFFERS})"),
    "q18": (["bidder", "auction", "dateTime"], f"SELECT {BID_COLUMNS} FROM bid"),
    "q19": (["auction", "price", "rank_number"], f"SELECT {BID_COLUMNS} FROM bid"),
}
