//! Makes the rows of persons, auctions and bids, column by column.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, TimestampMillisecondArray};
use arrow_schema::ArrowError;

use super::draws::{Draws, price};
use super::texts::{Tables, TextColumn};
use super::timeline::{Auctions, CATEGORIES, CATEGORY_FIRST, EPOCH, Persons, Run, Timeline};

/// A person, an auction, a bid have about so many bytes, as the reference counts them.
const SIZES_AVERAGE: [usize; 3] = [200, 500, 100];

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// What all events are made of.
pub(super) struct Maker {
    pub(super) seed: u64,
    pub(super) timeline: Timeline,
    pub(super) tables: Tables,
}

impl Maker {
    /// The columns of a port for these runs of events, and how many rows they are.
    pub(super) fn columns(&self, port: usize, runs: &[Run]) -> Result<(usize, Vec<ArrayRef>), ArrowError> {
        let rows = runs.iter().map(|run| run.of_port(port)).map(|of| (of.end - of.start) as usize).sum();
        let columns = match port {
            0 => self.persons(runs, rows),
            1 => self.auctions(runs, rows),
            _ => self.bids(runs, rows),
        };
        Ok((rows, columns?))
    }

    fn persons(&self, runs: &[Run], rows: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        let numbers = || Vec::with_capacity(rows);
        let (mut ids, mut times) = (numbers(), numbers());
        let [mut names, mut addresses, mut cards, mut cities, mut states, mut extras] =
            [16, 20, 19, 16, 2, 144].map(|bytes| TextColumn::with_room(rows, bytes));
        for run in runs {
            for place in run.of_port(0) {
                let number = run.epoch * EPOCH + place;
                let draws = &mut Draws::of(self.seed, number);
                ids.push(Persons::at(run.epoch).newest());
                names.add(one_of(&FIRST_NAMES, draws));
                names.add(b" ");
                names.add(one_of(&LAST_NAMES, draws));
                addresses.add_words(draws, 7, b' ');
                addresses.add(b"@");
                addresses.add_words(draws, 5, b' ');
                addresses.add(b".com");
                add_credit_card(&mut cards, draws);
                cities.add(one_of(&CITIES, draws));
                states.add(one_of(&STATES, draws));
                let texts = [&mut names, &mut addresses, &mut cards, &mut cities, &mut states];
                let size: usize = texts.iter().map(|text| text.row_length()).sum();
                texts.into_iter().for_each(TextColumn::end_row);
                self.tables.add_extra(&mut extras, draws.bits(), 8 + size, SIZES_AVERAGE[0]);
                times.push(self.timeline.time(number));
            }
        }
        let texts = [names, addresses, cards, cities, states].map(TextColumn::finish);
        let mut columns = vec![whole_numbers(ids)];
        for text in texts {
            columns.push(text?);
        }
        columns.extend([points_in_time(times), extras.finish()?]);
        Ok(columns)
    }

    fn auctions(&self, runs: &[Run], rows: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        let numbers = || Vec::with_capacity(rows);
        let [mut ids, mut initials, mut reserves, mut times, mut ends, mut sellers, mut categories] =
            [(); 7].map(|()| numbers());
        let [mut names, mut descriptions, mut extras] =
            [12, 54, 480].map(|bytes| TextColumn::with_room(rows, bytes));
        for run in runs {
            let persons = Persons::at(run.epoch);
            for place in run.of_port(1) {
                let number = run.epoch * EPOCH + place;
                let draws = &mut Draws::of(self.seed, number);
                ids.push(Auctions::at_place(run.epoch, place));
                let choice = draws.bits();
                sellers.push(match choice & 3 {
                    0 => persons.any((choice >> 32) as u32),
                    _ => persons.hot_seller(),
                });
                categories.push(CATEGORY_FIRST + draws.below(CATEGORIES) as i64);
                let initial = price(draws.bits());
                initials.push(initial);
                reserves.push(initial + price(draws.bits()));
                let time = self.timeline.time(number);
                times.push(time);
                ends.push(time.saturating_add(self.timeline.auction_length(number, draws)));
                let name = names.add_words(draws, 20, b' ');
                let description = descriptions.add_words(draws, 100, b' ');
                names.end_row();
                descriptions.end_row();
                let size = 6 * 8 + name + description;
                self.tables.add_extra(&mut extras, draws.bits(), size, SIZES_AVERAGE[1]);
            }
        }
        Ok(vec![
            whole_numbers(ids),
            names.finish()?,
            descriptions.finish()?,
            whole_numbers(initials),
            whole_numbers(reserves),
            points_in_time(times),
            points_in_time(ends),
            whole_numbers(sellers),
            whole_numbers(categories),
            extras.finish()?,
        ])
    }

    fn bids(&self, runs: &[Run], rows: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        let numbers = || Vec::with_capacity(rows);
        let [mut auctions, mut bidders, mut prices, mut times] = [(); 4].map(|()| numbers());
        let [mut channels, mut urls, mut extras] =
            [12, 72, 72].map(|bytes| TextColumn::with_room(rows, bytes));
        for run in runs {
            let places = run.of_port(2);
            let (persons, in_flight) = (Persons::at(run.epoch), Auctions::at(run.epoch));
            let first = run.epoch * EPOCH + places.start;
            let mut clock = self.timeline.from(first);
            for number in first..first + (places.end - places.start) {
                // One draw for several small choices: each has its own bits.
                let draws = &mut Draws::of(self.seed, number);
                let choice = draws.bits();
                let any = in_flight.any((choice >> 32) as u32);
                auctions.push(if choice & 1 == 0 { any } else { in_flight.hot() });
                let others = draws.bits();
                let any = persons.any((others >> 32) as u32);
                bidders.push(if choice & 6 == 0 { any } else { persons.hot_bidder() });
                prices.push(price(draws.bits()));
                let channel = match choice & 8 {
                    0 => self.tables.channel(others as u32),
                    _ => self.tables.hot_channel((choice >> 4) as usize & 3),
                };
                channels.add_first(&channel.name, channel.name_length.into());
                channels.end_row();
                urls.add_first(&channel.url, channel.url_length.into());
                urls.end_row();
                times.push(clock.advance());
                self.tables.add_extra(&mut extras, draws.bits(), 4 * 8, SIZES_AVERAGE[2]);
            }
        }
        Ok(vec![
            whole_numbers(auctions),
            whole_numbers(bidders),
            whole_numbers(prices),
            channels.finish()?,
            urls.finish()?,
            points_in_time(times),
            extras.finish()?,
        ])
    }
}

fn one_of<'a>(texts: &[&'a str], draws: &mut Draws) -> &'a [u8] {
    texts[draws.below(texts.len() as u64) as usize].as_bytes()
}

/// Four groups of four digits, each group uniform.
fn add_credit_card(column: &mut TextColumn, draws: &mut Draws) {
    let mut card = [b' '; 19];
    for group in 0..4 {
        let mut rest = draws.below(10_000);
        for digit in (0..4).rev() {
            card[5 * group + digit] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    column.add(&card);
}

fn whole_numbers(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn points_in_time(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from(values).with_timezone("UTC"))
}
