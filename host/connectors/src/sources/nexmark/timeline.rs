//! What event n is, when it takes place, and which persons and auctions there are by then.
//!
//! Of 50 consecutive events (an *epoch*) the first is a person, the next three are auctions, the
//! other 46 bids. Source: `GeneratorConfig`, `PersonGenerator`, `AuctionGenerator`.

use std::ops::Range;

use super::draws::{Draws, scale};

/// Events of an epoch.
pub(super) const EPOCH: u64 = 50;
/// Where in an epoch the events of each port are: persons, auctions, bids.
pub(super) const PLACES: [Range<u64>; 3] = [0..1, 1..4, 4..50];

/// The first person and the first auction have this number.
pub(super) const ID_FIRST: i64 = 1_000;
/// The first category.
pub(super) const CATEGORY_FIRST: i64 = 10;
/// How many categories there are.
pub(super) const CATEGORIES: u64 = 5;
/// Bids go to so many of the last auctions.
pub(super) const AUCTIONS_IN_FLIGHT: i64 = 100;
/// Sellers and bidders are of so many of the last persons.
const PERSONS_ACTIVE: i64 = 1_000;
/// And of so many persons and auctions that are yet to come.
pub(super) const LEAD: i64 = 10;
/// One of so many persons, or auctions, is hot.
const HOT_ONE_OF: i64 = 100;

/// Consecutive events within one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The epoch.
    pub(super) epoch: u64,
    /// Which of its events.
    pub(super) places: Range<u64>,
}

impl Run {
    /// The part of this run that is for a port.
    pub(super) fn of_port(&self, port: usize) -> Range<u64> {
        let of_port = &PLACES[port];
        let start = self.places.start.max(of_port.start);
        start..self.places.end.min(of_port.end).max(start)
    }
}

/// The persons that there are when events of an epoch take place, numbered from 0.
pub(super) struct Persons {
    last: i64,
}

impl Persons {
    pub(super) fn at(epoch: u64) -> Self {
        Self { last: epoch as i64 }
    }

    /// The person that begins the epoch.
    pub(super) fn newest(&self) -> i64 {
        self.last + ID_FIRST
    }

    /// The seller that three auctions of four have.
    pub(super) fn hot_seller(&self) -> i64 {
        self.last / HOT_ONE_OF * HOT_ONE_OF + ID_FIRST
    }

    /// The bidder that three bids of four have: never the hot seller.
    pub(super) fn hot_bidder(&self) -> i64 {
        self.hot_seller() + 1
    }

    /// One of the active persons, or of the next.
    pub(super) fn any(&self, bits: u32) -> i64 {
        let count = self.last + 1;
        let active = count.min(PERSONS_ACTIVE);
        count - active + scale(bits, (active + LEAD) as u64) as i64 + ID_FIRST
    }
}

/// The auctions that there are when the bids of an epoch take place.
pub(super) struct Auctions {
    last: i64,
    first_in_flight: i64,
}

impl Auctions {
    pub(super) fn at(epoch: u64) -> Self {
        let last = (epoch as i64).wrapping_mul(3).wrapping_add(2);
        Self { last, first_in_flight: (last - AUCTIONS_IN_FLIGHT).max(0) }
    }

    /// The auction that is at this place of the epoch.
    pub(super) fn at_place(epoch: u64, place: u64) -> i64 {
        (epoch as i64).wrapping_mul(3).wrapping_add((place - PLACES[1].start) as i64) + ID_FIRST
    }

    /// The auction that every other bid is for.
    pub(super) fn hot(&self) -> i64 {
        self.last / HOT_ONE_OF * HOT_ONE_OF + ID_FIRST
    }

    /// One of those in flight, or of the next.
    pub(super) fn any(&self, bits: u32) -> i64 {
        let count = self.last - self.first_in_flight + 1 + LEAD;
        self.first_in_flight + scale(bits, count as u64) as i64 + ID_FIRST
    }
}

/// When events take place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    /// When the first event takes place, in milliseconds since the epoch.
    pub(super) base_time: i64,
    /// Events a second; at least 1.
    pub(super) rate: u64,
}

impl Timeline {
    /// When event `number` takes place.
    pub(super) fn time(&self, number: u64) -> i64 {
        self.from(number).time()
    }

    /// The times of event `number` and those after it.
    pub(super) fn from(&self, number: u64) -> Times {
        let (product, rate) = (u128::from(number) * 1_000, u128::from(self.rate));
        let since = i64::try_from(product / rate).unwrap_or(i64::MAX);
        Times {
            time: self.base_time.saturating_add(since),
            rest: (product % rate) as u64,
            rate: self.rate,
            step: (1_000 / self.rate) as i64,
            step_rest: 1_000 % self.rate,
        }
    }

    /// How long an auction lasts that begins with event `number`: on average until the auctions in
    /// flight now are over, from 1 ms on.
    pub(super) fn auction_length(&self, number: u64, draws: &mut Draws) -> i64 {
        let ahead = AUCTIONS_IN_FLIGHT as u64 * EPOCH / 3;
        let horizon = self.time(number.saturating_add(ahead)).saturating_sub(self.time(number)).max(0);
        let bound = (horizon as u64).saturating_mul(2).clamp(1, u64::from(u32::MAX));
        1 + draws.below(bound) as i64
    }
}

/// Times of consecutive events, without a division for each.
pub(super) struct Times {
    time: i64,
    /// Of a millisecond, in 1 / rate.
    rest: u64,
    rate: u64,
    step: i64,
    step_rest: u64,
}

impl Times {
    /// Of the event that is next.
    pub(super) fn time(&self) -> i64 {
        self.time
    }

    /// Of the next event; goes on to the one after it.
    pub(super) fn advance(&mut self) -> i64 {
        let time = self.time;
        let rest = self.rest + self.step_rest;
        let carry = rest >= self.rate;
        self.rest = if carry { rest - self.rate } else { rest };
        self.time = time.saturating_add(self.step + i64::from(carry));
        time
    }
}
