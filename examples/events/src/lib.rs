//! Totals of purchases from JSON events; bad lines and large purchases go aside.

use millstream::prelude::*;

/// Read when no input is given.
const SAMPLE: &str = include_str!("../sample.jsonl");

/// What happened in a shop: a line of the input.
#[derive(Clone, Debug, PartialEq, Record)]
struct Event {
    user: String,
    kind: String,
    cents: Option<i64>,
    device: Option<Device>,
    tags: Option<Vec<String>>,
}

/// What the user held in hand.
#[derive(Clone, Debug, PartialEq, Record)]
struct Device {
    system: String,
    version: Option<i32>,
}

/// A purchase that has a price.
#[derive(Clone, Debug, PartialEq, Record)]
struct Purchase {
    user: String,
    cents: i64,
    is_mobile: bool,
}

#[derive(Parser)]
struct EventsArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Folder for what goes aside: `malformed` lines, `unpriced` and `large` purchases
    #[arg(long, value_name = "DIR")]
    side: Option<String>,
    /// Purchases of more than this are large
    #[arg(long, value_name = "CENTS", default_value_t = 100_000)]
    large: i64,
}

impl EventsArgs {
    /// Where rows of this kind go aside.
    fn side(&self, kind: &str) -> Sink {
        match &self.side {
            Some(folder) => Sink::files(format!("{folder}/{kind}")),
            None => Sink::blackhole(),
        }
    }
}

/// Totals what each user has bought: for each purchase one row, with the user's cents and purchases so far.
#[job]
fn events(job: &Job, args: EventsArgs) -> Result<()> {
    let (events, malformed) = job.json::<Event>(args.input.or_sample(SAMPLE)).divert_failures();
    malformed
        .map(|line| (String::from_utf8_lossy(line.row).into_owned(), line.failure.to_string()))
        .names(["record", "failure"])
        .name("Malformed")
        .sink(args.side("malformed"));

    let (purchases, unpriced) = events
        .filter(|event| event.kind == "purchase")
        .try_flat_map(|event, out| {
            let Some(cents) = event.cents else { bail!("a purchase without a price") };
            ensure!(cents >= 0, "a price of {cents} cents");
            let is_mobile = event.device.is_some_and(|device| matches!(device.system, "android" | "ios"));
            out.emit(PurchaseRef::new(event.user, cents, is_mobile));
            Ok(())
        })
        .name("Price")
        .divert_failures();
    unpriced.map(|event| (event.row.user.to_string(), event.failure.to_string())).sink(args.side("unpriced"));

    let limit = args.large;
    let (purchases, large) = purchases.side_output("large").flat_map(move |purchase, out, large| {
        out.emit(purchase);
        if purchase.cents > limit {
            large.emit(purchase);
        }
    });
    large.sink(args.side("large"));

    purchases
        .key_by(Purchase::USER)
        .aggregate((sum(Purchase::CENTS), count()))
        .names(["user", "cents", "purchases"])
        .sink(&args.output);
    Ok(())
}

millstream::jobs!(events);

#[cfg(test)]
mod tests {
    use millstream::testing::{Harness, Run};

    use super::*;

    fn event(user: &str, kind: &str, cents: Option<i64>) -> Event {
        let device = Some(Device { system: "ios".into(), version: None });
        Event { user: user.into(), kind: kind.into(), cents, device, tags: None }
    }

    fn run() -> Run {
        let rows = [
            event("ann", "purchase", Some(100)),
            event("ann", "view", Some(7)),
            event("bob", "purchase", None),
            event("bob", "purchase", Some(200_000)),
            event("ann", "purchase", Some(50)),
            event("cy", "purchase", Some(-1)),
        ];
        Harness::of(events).args(["--output", "totals", "--side", "aside"]).rows::<Event>("", rows).run()
    }

    #[test]
    fn purchases_are_totalled() {
        let rows: Vec<(String, i64, i64)> = run().rows("totals");
        let expected = [("ann", 100, 1), ("bob", 200_000, 1), ("ann", 150, 2)];
        assert_eq!(rows, expected.map(|(user, cents, count)| (user.to_string(), cents, count)));
    }

    #[test]
    fn what_has_no_price_goes_aside() {
        let rows: Vec<(String, String)> = run().rows("aside/unpriced");
        let expected = [("bob", "a purchase without a price"), ("cy", "a price of -1 cents")];
        assert_eq!(rows, expected.map(|(user, failure)| (user.to_string(), failure.to_string())));
    }

    #[test]
    fn large_purchases_go_aside_too() {
        let expected = Purchase { user: "bob".into(), cents: 200_000, is_mobile: true };
        assert_eq!(run().rows::<Purchase>("aside/large"), [expected]);
    }
}
