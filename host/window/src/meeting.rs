//! Sessions of a key, and how they meet.
//!
//! Source: Flink, `MergingWindowSet`: windows that touch are merged; a row is late when the window that it
//! makes or joins is.

/// A session of a key at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Its group in the aggregates, once rows are assigned.
    pub(crate) group: u32,
    /// It has rows of the batch at hand, or has merged with one.
    pub(crate) is_changed: bool,
}

/// Puts a row's time into the key's sessions, which are in order of time and apart; those that it joins
/// become one. The session's number; none where it would have gone already (`cleared`: sessions that end
/// up to this instant have).
pub(crate) fn join(
    sessions: &mut Vec<Session>,
    time: i64,
    gap: i64,
    cleared: i64,
    merged: &mut Vec<u32>,
) -> Option<u32> {
    let (mut start, mut end) = (time, time.saturating_add(gap));
    let from = sessions.partition_point(|session| session.end < start);
    let to = from + sessions[from..].partition_point(|session| session.start <= end);
    let Some(first) = sessions.get(from).copied().filter(|_| to > from) else {
        if end <= cleared {
            return None;
        }
        // Sessions of a call are fewer than rows.
        let group = merged.len() as u32;
        merged.push(group);
        sessions.insert(from, Session { start, end, group, is_changed: true });
        return Some(group);
    };
    start = start.min(first.start);
    end = end.max(sessions[to - 1].end);
    for session in &sessions[from + 1..to] {
        merged[session.group as usize] = first.group;
    }
    sessions.drain(from + 1..to);
    sessions[from] = Session { start, end, group: first.group, is_changed: true };
    Some(first.group)
}

/// What a session has become.
pub(crate) fn root(merged: &[u32], mut number: u32) -> u32 {
    while merged[number as usize] != number {
        number = merged[number as usize];
    }
    number
}
