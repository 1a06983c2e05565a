//! Orders with what is known of their customers, as it changes.
//!
//! Customers come as a stream of versions: of each customer the one with the latest time counts, and is a
//! row of a table. An order is joined with that table. When a customer moves, the orders that have been
//! given already are updated: what leaves is a changelog, and an order without a customer is one until
//! the customer comes.
//!
//! With `--as-of` an order is joined with its customer as it was when the order was made, once that is known
//! (a temporal join), and with the discount of the customer's tier, which is looked up in a table that lies
//! outside; what leaves is never updated.
//!
//! ```text
//! streamctl run enrichment.wasm
//! streamctl run enrichment.wasm --input orders.jsonl --customers customers.jsonl --execution batch
//! streamctl run enrichment.wasm --as-of --tiers tiers.csv
//! ```

use std::time::Duration;

use millstream::prelude::*;

/// Read when no input is given.
const ORDERS: &str = include_str!("../orders.jsonl");
/// Read when no customers are given.
const CUSTOMERS: &str = include_str!("../customers.jsonl");
/// Read when no tiers are given.
const TIERS: &str = include_str!("../tiers.csv");

/// A line of the input.
#[derive(Clone, Debug, PartialEq, Record)]
struct Order {
    order: i64,
    customer: String,
    cents: i64,
    at: Timestamp,
}

/// A version of a customer.
#[derive(Clone, Debug, PartialEq, Record)]
struct Customer {
    name: String,
    city: String,
    tier: Option<String>,
    since: Timestamp,
}

/// An order, and its customer if there is one.
#[derive(Clone, Debug, PartialEq, Record)]
struct Joined {
    order: i64,
    customer: String,
    cents: i64,
    at: Timestamp,
    name: Option<String>,
    city: Option<String>,
    tier: Option<String>,
    since: Option<Timestamp>,
}

/// A line of the table of tiers.
#[derive(Clone, Debug, PartialEq, Record)]
struct Tier {
    tier: Option<String>,
    percent: i64,
}

/// The same, and the customer's tier if there is one.
#[derive(Clone, Debug, PartialEq, Record)]
struct Discounted {
    order: i64,
    customer: String,
    cents: i64,
    at: Timestamp,
    name: Option<String>,
    city: Option<String>,
    tier: Option<String>,
    since: Option<Timestamp>,
    of_tier: Option<String>,
    percent: Option<i64>,
}

#[derive(Parser)]
struct EnrichmentArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// File, folder or glob of customers
    #[arg(long, help_heading = "Input", value_name = "PATH")]
    customers: Option<String>,
    /// How long an order is kept, to be updated when its customer changes [default: for ever]
    #[arg(long, value_name = "HOURS")]
    keep: Option<u32>,
    /// Give each order once, with its customer as it was then
    #[arg(long, conflicts_with = "keep")]
    as_of: bool,
    /// CSV of tiers and their discounts in per cent, read again each minute
    #[arg(long, help_heading = "Input", value_name = "PATH", requires = "as_of")]
    tiers: Option<String>,
}

/// Versions of customers may come so late, and orders wait for them.
const LATE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Joins orders with what is known of their customers, as it changes.
#[job]
fn enrichment(job: &Job, args: EnrichmentArgs) -> Result<()> {
    let orders = job.json::<Order>(args.input.or_sample(ORDERS)).uid("orders");
    let customers = args.customers.map_or_else(|| Connector::text(CUSTOMERS), Connector::files);
    let customers = job.json::<Customer>(customers).uid("customers");

    if args.as_of {
        let orders = orders.watermarks(Watermarks::monotonous().time(Order::AT));
        let customers = customers.watermarks(Watermarks::bounded(LATE).time(Customer::SINCE));
        let tiers = args.tiers.map_or_else(|| Connector::text(TIERS), Connector::files);
        let tiers = Table::<Tier>::csv(tiers.format_option("header", true));
        orders
            .key_by(Order::CUSTOMER)
            .temporal_join(customers.key_by(Customer::NAME))
            .left::<Joined>()
            .lookup_join(tiers, Joined::TIER, Tier::TIER)
            .reload(Duration::from_secs(60))
            .left::<Discounted>()
            .select((
                Discounted::ORDER,
                Discounted::CUSTOMER,
                Discounted::CENTS,
                Discounted::CITY,
                Discounted::TIER,
                Discounted::PERCENT,
            ))
            .sink(&args.output);
        return Ok(());
    }

    // The stream of versions as a table: of each name the version with the latest time.
    let table = customers.key_by(Customer::NAME).deduplicate_last(Customer::SINCE);

    let join = orders.key_by(Order::CUSTOMER).join(table.key_by(Customer::NAME)).unbounded();
    let join = match args.keep {
        Some(hours) => join.ttl(Ttl::after_use(Duration::from_secs(3_600 * u64::from(hours)))),
        None => join,
    };
    join.left::<Joined>()
        .select((Joined::ORDER, Joined::CUSTOMER, Joined::CENTS, Joined::CITY, Joined::TIER))
        .sink(&args.output);
    Ok(())
}

millstream::jobs!(enrichment);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millstream::testing::Harness;

    use super::*;

    #[test]
    fn what_leaves_is_a_changelog_of_orders() {
        let graph = Harness::of(enrichment).args(["--keep", "24"]).plan().unwrap();
        let select = graph.nodes.iter().find(|node| node.name == "Select").unwrap();
        let names: Vec<&str> = select.outputs[0].schema.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["order", "customer", "cents", "city", "tier"]);
        assert!(select.outputs[0].changes);
    }

    type Row = (i64, String, i64, Option<String>, Option<String>);

    fn row(order: i64, city: Option<&str>) -> Row {
        (order, "ann".into(), 100, city.map(str::to_owned), None)
    }

    #[test]
    fn orders_follow_their_customer() {
        let harness = Harness::of(enrichment).args(["--output", "rows"]);
        let mut driver = harness.component("enrichment.wasm").streamctl("../../bin/streamctl").driver();
        let order = |order| Order { order, customer: "ann".into(), cents: 100, at: Timestamp(0) };
        let customer = |city: &str, since| Customer {
            name: "ann".into(),
            city: city.into(),
            tier: None,
            since: Timestamp(since),
        };
        driver.push::<Order>("orders", order(1));
        assert_eq!(driver.take_changes::<Row>("rows"), [(RowKind::Insert, row(1, None))]);
        driver.push::<Customer>("customers", customer("Oslo", 20));
        let gone_and_there: Vec<_> = driver.take_changes::<Row>("rows");
        assert_eq!(table(&gone_and_there), [(row(1, None), -1), (row(1, Some("Oslo")), 1)]);
        // An older version changes nothing.
        driver.push::<Customer>("customers", customer("Rome", 10));
        assert!(driver.take::<Row>("rows").is_empty());
        driver.push::<Order>("orders", order(2));
        assert_eq!(driver.take_changes::<Row>("rows"), [(RowKind::Insert, row(2, Some("Oslo")))]);
        driver.push::<Customer>("customers", customer("Bergen", 30));
        let moved: Vec<_> = driver.take_changes::<Row>("rows");
        let both = [(1, "Bergen", 1), (1, "Oslo", -1), (2, "Bergen", 1), (2, "Oslo", -1)];
        assert_eq!(table(&moved), both.map(|(order, city, count)| (row(order, Some(city)), count)));
        driver.finish();
    }

    /// How often each row is in the table more than before.
    fn table(changes: &[(RowKind, Row)]) -> Vec<(Row, i64)> {
        let mut table = BTreeMap::new();
        for (kind, row) in changes {
            *table.entry(row.clone()).or_insert(0) += if kind.is_added() { 1 } else { -1 };
        }
        table.into_iter().filter(|(_, count)| *count != 0).collect()
    }
}
