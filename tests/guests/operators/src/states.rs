//! Named states of every kind, as lines say.

use std::time::Duration;

use millstream::BroadcastAccess;
use millstream::prelude::*;

pub const TOTAL: ValueState<i64> = ValueState::new("total");
const GREATEST: ReducingState<i64> =
    ReducingState::new("greatest", |so_far, amount| *so_far = amount.max(*so_far));
const MEAN: AggregatingState<i64, (i64, i64), String> = AggregatingState::new(
    "mean",
    |(sum, count), amount| (*sum, *count) = (*sum + amount, *count + 1),
    |(sum, count)| format!("{sum}/{count}"),
);
pub const ITEMS: MapState<Option<String>, i64> = MapState::new("items");
pub const SEEN: MapState<Option<String>, i64> = MapState::new("seen");
pub const HISTORY: ListState<(i64, String)> = ListState::new("history");

/// What is done with which state.
#[derive(Record, Clone, Debug)]
pub struct StateLine {
    pub key: i64,
    pub number: i64,
    pub op: String,
    pub item: Option<String>,
    pub amount: i64,
}

/// Tells after each line what its state is.
pub struct States;

impl ProcessFunction for States {
    type In = StateLine;
    type Key = i64;
    type State = i64;
    type Out = (i64, String);

    fn states(&self, states: &mut millstream::States<StateLine>) {
        states.value(TOTAL);
        states.map(SEEN).by(StateLine::ITEM);
        states.reducing(GREATEST);
        states.list(HISTORY);
        states.aggregating(MEAN);
        states.map(ITEMS);
    }

    fn process(&self, line: StateLineRef<'_>, context: &mut Context<'_, Self>) -> Result<()> {
        *context.state_or_default() += 1;
        let (item, amount) = (line.item.map(str::to_owned), line.amount);
        let said = match line.op {
            "total" => {
                *context.value(TOTAL).or_default() += amount;
                format!("{:?}", context.value(TOTAL).get())
            }
            "no total" => {
                context.value(TOTAL).clear();
                format!("{:?}", context.value(TOTAL).get())
            }
            "greatest" => {
                context.reducing(GREATEST).add(amount);
                format!("{:?}", context.reducing(GREATEST).get())
            }
            "mean" => {
                context.aggregating(MEAN).add(amount);
                format!("{:?}", context.aggregating(MEAN).get())
            }
            "put" => {
                context.map(ITEMS).put(item, amount);
                format!("{:?}", context.map(ITEMS).entries())
            }
            "get" => format!("{:?}", context.map(ITEMS).get(&item)),
            "remove" => {
                context.map(ITEMS).remove(item);
                format!("{:?}", context.map(ITEMS).entries())
            }
            "no items" => {
                context.map(ITEMS).clear();
                format!("{:?}", context.map(ITEMS).entries())
            }
            "seen" => {
                *context.entry(SEEN).or_default() += amount;
                format!("{:?}", context.entry(SEEN).get())
            }
            "unseen" => {
                context.entry(SEEN).remove();
                format!("{:?}", context.entry(SEEN).get())
            }
            "add" => {
                context.list(HISTORY).add((amount, item.unwrap_or_default()));
                format!("{:?}", context.list(HISTORY).get())
            }
            "no history" => {
                context.list(HISTORY).clear();
                format!("{:?}", context.list(HISTORY).get())
            }
            "later" => {
                context.set_timer(i64::MAX - 1);
                String::new()
            }
            // What was done before must be undone.
            "fail" | "trap" => {
                context.value(TOTAL).set(amount);
                context.reducing(GREATEST).add(i64::MAX);
                context.aggregating(MEAN).add(amount);
                context.map(ITEMS).clear();
                context.map(ITEMS).put(item, amount);
                context.entry(SEEN).set(amount);
                context.list(HISTORY).add((amount, String::new()));
                context.emit((line.number, "failed"));
                if line.op == "trap" {
                    panic!("as told");
                }
                bail!("as told");
            }
            other => bail!("what is {other:?}?"),
        };
        context.emit((line.number, said));
        Ok(())
    }

    fn on_timer(&self, _: Timer, context: &mut Context<'_, Self>) -> Result<()> {
        let count = context.state().copied();
        let seen = context.map(SEEN).entries();
        context.map(SEEN).clear();
        let after = context.map(SEEN).entries().len();
        let key = context.key();
        context.emit((-1 - key, format!("{count:?} {seen:?} {after}")));
        Ok(())
    }
}

pub const WRITTEN: ValueState<i64> = ValueState::new("written");
pub const USED: ValueState<i64> = ValueState::new("used");
pub const RIDING: MapState<Option<String>, i64> = MapState::new("riding");
pub const READ: MapState<Option<String>, i64> = MapState::new("read");
pub const ADDED: ListState<i64> = ListState::new("added");

/// Tells for each line when it is and what is still there of states that grow old.
pub struct Aging {
    ttl: Duration,
}

impl ProcessFunction for Aging {
    type In = StateLine;
    type Key = i64;
    type State = i64;
    type Out = (i64, String);

    fn states(&self, states: &mut millstream::States<StateLine>) {
        states.value(WRITTEN).ttl(Ttl::after_write(self.ttl));
        states.value(USED).ttl(Ttl::after_use(self.ttl));
        states.map(RIDING).by(StateLine::ITEM).ttl(Ttl::after_use(self.ttl));
        states.map(READ).ttl(Ttl::after_use(self.ttl));
        states.list(ADDED).ttl(Ttl::after_write(self.ttl));
    }

    fn state_ttl(&self) -> Option<Ttl> {
        Some(Ttl::after_write(self.ttl))
    }

    fn process(&self, line: StateLineRef<'_>, context: &mut Context<'_, Self>) -> Result<()> {
        let (item, amount) = (line.item.map(str::to_owned), line.amount);
        let (state, written) = (context.state().copied(), context.value(WRITTEN).get().copied());
        let (used, riding) = (context.value(USED).get().copied(), context.entry(RIDING).get().copied());
        let mut said = format!("{} {state:?} {written:?} {used:?} {riding:?}", context.processing_time());
        match line.op {
            "put" => {
                *context.state_or_default() = amount;
                context.value(WRITTEN).set(amount);
                context.value(USED).set(amount);
                context.entry(RIDING).set(amount);
                context.map(READ).put(item, amount);
                context.list(ADDED).add(amount);
            }
            "get" => said += &format!(" {:?}", context.map(READ).get(&item)),
            "all" => said += &format!(" {:?} {:?}", context.map(READ).entries(), context.list(ADDED).get()),
            _ => {}
        }
        context.emit((line.number, said));
        Ok(())
    }
}

pub const RULES: BroadcastState<String, i64> = BroadcastState::new("rules");
/// The entry that says how many rules there have been.
const COUNT: &str = "#";

/// A rule: a value by name, or none.
#[derive(Record, Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub value: Option<i64>,
}

/// Tells for each line what the rules are, and how many lines its key has had.
pub struct Ruled;

impl KeyedBroadcastProcessFunction for Ruled {
    type In = StateLine;
    type Broadcast = Rule;
    type Key = i64;
    type State = i64;
    type Out = (i64, String);

    fn states(&self, states: &mut millstream::States<StateLine>) {
        states.broadcast(RULES);
    }

    fn process(&self, line: StateLineRef<'_>, context: &mut Context<'_, Broadcasting<Self>>) -> Result<()> {
        *context.state_or_default() += 1;
        let count = context.state().copied();
        let said = format!("{count:?} {:?}", context.broadcast(RULES));
        context.emit((line.number, said));
        Ok(())
    }

    fn process_broadcast(
        &self,
        rule: RuleRef<'_>,
        context: &mut BroadcastContext<'_, '_, Self>,
    ) -> Result<()> {
        change_rules(rule, context.broadcast(RULES))
    }
}

/// Tells for each line what the rules are; lines have no key here.
pub struct Spread;

impl BroadcastProcessFunction for Spread {
    type In = StateLine;
    type Broadcast = Rule;
    type Out = (i64, String);

    fn states(&self, states: &mut BroadcastStates) {
        states.broadcast(RULES);
    }

    fn process(&self, line: StateLineRef<'_>, context: &mut ReadOnlyContext<'_, '_, Self>) -> Result<()> {
        ensure!(line.op != "fail", "as told");
        let said = format!("{:?}", context.broadcast(RULES));
        context.emit((line.number, said));
        Ok(())
    }

    fn process_broadcast(
        &self,
        rule: RuleRef<'_>,
        context: &mut BroadcastContext<'_, '_, Unkeyed<Self>>,
    ) -> Result<()> {
        change_rules(rule, context.broadcast(RULES))
    }
}

/// Does with the rules what a line says, and counts it.
fn change_rules(rule: RuleRef<'_>, mut rules: BroadcastAccess<'_, String, i64>) -> Result<()> {
    match rule.value {
        Some(value) => rules.put(rule.name.into(), value),
        None => rules.remove(rule.name.into()),
    }
    ensure!(rule.name != "bad", "as told");
    let count = rules.get(&COUNT.into()).copied().unwrap_or(0);
    rules.put(COUNT.into(), count + 1);
    Ok(())
}

/// Sums of two streams, by key, in one state.
pub struct Both;

impl CoProcessFunction for Both {
    type First = StateLine;
    type Second = StateLine;
    type Key = i64;
    type State = (i64, i64);
    type Out = (i64, i64, i64);

    fn process_first(&self, line: StateLineRef<'_>, context: &mut CoContext<'_, Self>) -> Result<()> {
        context.state_or_default().0 += line.amount;
        context.set_timer(i64::MAX - 1);
        fails(line)
    }

    fn process_second(&self, line: StateLineRef<'_>, context: &mut CoContext<'_, Self>) -> Result<()> {
        context.state_or_default().1 += line.amount;
        context.set_timer(i64::MAX - 1);
        fails(line)
    }

    fn on_timer(&self, _: Timer, context: &mut CoContext<'_, Self>) -> Result<()> {
        let (first, second) = context.state().copied().unwrap_or_default();
        context.emit((context.key(), first, second));
        Ok(())
    }
}

/// A line may say that it fails, or traps.
fn fails(line: StateLineRef<'_>) -> Result<()> {
    if line.op == "trap" {
        panic!("as told");
    }
    ensure!(line.op != "fail", "as told");
    Ok(())
}

/// The least and the greatest amount of a key.
pub struct Extremes;

impl AggregateFunction for Extremes {
    type In = StateLine;
    type Key = i64;
    type Accumulator = (i64, i64);
    type Out = (i64, i64, i64);

    fn create(&self) -> (i64, i64) {
        (i64::MAX, i64::MIN)
    }

    fn add(&self, line: StateLineRef<'_>, (least, greatest): &mut (i64, i64)) -> Result<()> {
        (*least, *greatest) = (line.amount.min(*least), line.amount.max(*greatest));
        ensure!(line.op != "fail", "as told");
        Ok(())
    }

    fn result(&self, key: i64, (least, greatest): &(i64, i64)) -> (i64, i64, i64) {
        (key, *least, *greatest)
    }
}

/// The arguments of jobs with two inputs.
#[derive(Parser)]
pub struct StatesArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// The file of the second input
    #[arg(long, value_name = "PATH")]
    second: Option<String>,
}

/// Does with named states of every kind what JSON lines say, and tells what they are then.
#[job]
pub fn states(job: &Job, args: StatesArgs) -> Result<()> {
    let lines = job.json::<StateLine>(args.input.source()?).parallelism(1);
    lines.key_by(StateLine::KEY).process(States).on_failure(OnFailure::Skip).sink(&args.output);
    Ok(())
}

/// The arguments of `aging`.
#[derive(Parser)]
pub struct AgingArgs {
    #[command(flatten)]
    states: StatesArgs,
    /// How long states live
    #[arg(long, value_name = "MS", default_value_t = 10)]
    ttl: u64,
}

/// Writes to states that grow old, and tells what is left of them, as JSON lines say.
#[job]
pub fn aging(job: &Job, args: AgingArgs) -> Result<()> {
    let lines = job.json::<StateLine>(args.states.input.source()?).parallelism(1);
    let ttl = Duration::from_millis(args.ttl);
    lines.key_by(StateLine::KEY).process(Aging { ttl }).sink(&args.states.output);
    Ok(())
}

/// Tells for each line of the input what the rules of the second are by then.
#[job]
pub fn ruled(job: &Job, args: StatesArgs) -> Result<()> {
    let lines = job.json::<StateLine>(args.input.source()?).parallelism(1);
    let rules = job
        .json::<Rule>(Connector::files(args.second.unwrap_or_default()))
        .uid("rules")
        .parallelism(1)
        .stream();
    let ruled = lines.key_by(StateLine::KEY).connect_broadcast(rules).process(Ruled);
    ruled.on_failure(OnFailure::Skip).sink(&args.output);
    Ok(())
}

/// The same, for lines without a key.
#[job]
pub fn spread(job: &Job, args: StatesArgs) -> Result<()> {
    let lines = job.json::<StateLine>(args.input.source()?).parallelism(1).stream();
    let rules = Connector::files(args.second.unwrap_or_default());
    let rules = job.json::<Rule>(rules).uid("rules").parallelism(1).stream();
    let spread = lines.rebalance().connect_broadcast(rules).process(Spread);
    spread.on_failure(OnFailure::Skip).sink(&args.output);
    Ok(())
}

/// Sums the amounts of two inputs by key, at the end, and tells which lines of which input have failed.
#[job]
pub fn both(job: &Job, args: StatesArgs) -> Result<()> {
    let first = job.json::<StateLine>(args.input.source()?).parallelism(1);
    let second = Connector::files(args.second.unwrap_or_default());
    let second = job.json::<StateLine>(second).uid("second").stream();
    let both = first.key_by(StateLine::KEY).connect(second.key_by(StateLine::KEY)).process(Both);
    let (sums, of_first, of_second) = both.divert_failures();
    let of_first = of_first.map(|failed| (1, failed.row.number, failed.row.amount));
    let of_second = of_second.map(|failed| (2, failed.row.number, failed.row.amount));
    sums.map(|(key, first, second)| (-key, first, second)).union([of_first, of_second]).sink(&args.output);
    Ok(())
}

/// The least and the greatest amount of each key so far.
#[job]
pub fn extremes(job: &Job, args: StatesArgs) -> Result<()> {
    let lines = job.json::<StateLine>(args.input.source()?).parallelism(1);
    lines.key_by(StateLine::KEY).aggregate_with(Extremes).on_failure(OnFailure::Skip).sink(&args.output);
    Ok(())
}
