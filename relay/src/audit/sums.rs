//! Events that another party can cause at will: a bounded number of them is written, the rest is summed.
//! Pure: the caller gives the time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use super::Event;
use crate::audit::limits::MAX_SUMMED_USERS;
use crate::clock::Timestamp;

/// The books: for each key and window, how many events were written, and what the others come to.
#[derive(Debug)]
pub(super) struct Sums<K> {
    window: Duration,
    /// So many events of a key in a window are written at once.
    allowance: u32,
    /// So many keys have books of their own; the others share one.
    max: usize,
    keys: HashMap<K, Book>,
    others: Option<Book>,
}

#[derive(Debug)]
struct Book {
    began: Timestamp,
    written: u32,
    sum: Option<Box<Sum>>,
}

#[derive(Debug)]
struct Sum {
    /// The last of them.
    event: Event,
    count: u64,
    first: Timestamp,
    last: Timestamp,
    users: BTreeSet<String>,
    /// The bytes of all of them, by the name of the fact.
    bytes: BTreeMap<&'static str, u64>,
}

/// Facts of events that are added up.
const ADDED: [&str; 2] = ["bytes_in", "bytes_out"];

impl<K: Hash + Eq> Sums<K> {
    pub(super) fn new(window: Duration, allowance: u32, max: usize) -> Self {
        Self {
            window,
            allowance,
            max,
            keys: HashMap::new(),
            others: None,
        }
    }

    /// Takes an event. Gives it back if it is to be written now.
    pub(super) fn take(&mut self, key: K, event: Event, now: Timestamp) -> Option<Event> {
        let allowance = self.allowance;
        let (book, event) = self.book(key, event, now);
        if book.written < allowance {
            book.written += 1;
            return Some(event);
        }
        Sum::add(&mut book.sum, event, now);
        None
    }

    /// Adds an event to the sum of its window, however few there were.
    pub(super) fn add(&mut self, key: K, event: Event, now: Timestamp) {
        let (book, event) = self.book(key, event, now);
        Sum::add(&mut book.sum, event, now);
    }

    fn book(&mut self, key: K, event: Event, now: Timestamp) -> (&mut Book, Event) {
        let book = || Book {
            began: now,
            written: 0,
            sum: None,
        };
        let is_full = self.keys.len() >= self.max;
        match is_full && !self.keys.contains_key(&key) {
            false => (self.keys.entry(key).or_insert_with(book), event),
            // The reader of the row sees that it represents others than the one it names.
            true => (
                self.others.get_or_insert_with(book),
                event.with("others", true),
            ),
        }
    }

    /// Returns the sums of the windows that are over at `now`, and of all of them if that is `None`. Call it more
    /// often than once in a window.
    pub(super) fn due(&mut self, now: Option<Timestamp>) -> Vec<Event> {
        let window = self.window;
        let over = |book: &mut Book| now.is_none_or(|now| now.since(book.began) >= window);
        let mut books: Vec<Book> = self
            .keys
            .extract_if(|_, book| over(book))
            .map(|(_, book)| book)
            .collect();
        books.extend(self.others.take_if(over));
        let sums = books.into_iter().filter_map(|book| book.sum);
        sums.map(|sum| sum.event()).collect()
    }
}

impl Sum {
    fn add(sum: &mut Option<Box<Self>>, event: Event, now: Timestamp) {
        let user = event.actor.user.clone();
        let names = event.more.get("names").cloned();
        let sum = sum.get_or_insert_with(|| {
            Box::new(Self {
                event: event.clone(),
                count: 0,
                first: now,
                last: now,
                users: BTreeSet::new(),
                bytes: BTreeMap::new(),
            })
        });
        for name in ADDED {
            if let Some(bytes) = event.more.get(name).and_then(serde_json::Value::as_u64) {
                let all = sum.bytes.entry(name).or_default();
                *all = all.saturating_add(bytes);
            }
        }
        sum.event = event;
        sum.count += 1;
        sum.last = now;
        let names = names.as_ref().and_then(serde_json::Value::as_array);
        let names = names.into_iter().flatten().filter_map(|name| name.as_str());
        for name in user.iter().map(String::as_str).chain(names) {
            if sum.users.len() < MAX_SUMMED_USERS {
                sum.users.insert(name.to_owned());
            }
        }
    }

    fn event(self) -> Event {
        let mut event = self.event;
        if !self.users.is_empty() {
            let users: Vec<_> = self.users.into_iter().collect();
            event = event.with("names", users);
        }
        for (name, bytes) in self.bytes {
            event = event.with(name, bytes);
        }
        event
            .with("count", self.count)
            .with("first", self.first.rfc3339())
            .with("last", self.last.rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::limits::AUDIT_REFUSAL_ROWS;
    use crate::audit::{Actor, EventKind};

    const T0: Timestamp = Timestamp(1_795_323_960_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn at(secs: u64) -> Timestamp {
        T0.after(Duration::from_secs(secs))
    }

    fn failure(name: &str) -> Event {
        Event::new(EventKind::UserLoginFailed).with("names", vec![name.to_owned()])
    }

    #[test]
    fn the_first_of_a_window_is_written_and_the_others_are_one_sum() {
        let mut sums = Sums::new(MINUTE, 1, 8);
        assert!(sums.take("a", failure("root"), at(0)).is_some());
        assert!(sums.take("a", failure("admin"), at(1)).is_none());
        assert!(sums.take("a", failure("pi"), at(30)).is_none());
        assert!(sums.take("b", failure("pi"), at(30)).is_some());
        assert!(sums.due(Some(at(59))).is_empty());
        let due = sums.due(Some(at(60)));
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].more["count"], 2);
        assert_eq!(due[0].more["names"], serde_json::json!(["admin", "pi"]));
        assert_eq!(due[0].more["first"], at(1).rfc3339());
        assert_eq!(due[0].more["last"], at(30).rfc3339());
        // The next window writes at once again, and one without further events tells nothing.
        assert!(sums.take("a", failure("root"), at(61)).is_some());
        assert!(sums.due(Some(at(200))).is_empty());
        assert!(sums.keys.is_empty());
    }

    #[test]
    fn flood_is_bounded_in_rows_and_fully_counted() {
        let mut sums = Sums::new(MINUTE, 1, 100);
        let mut rows = 0;
        for n in 0..100_000_u32 {
            rows += usize::from(
                sums.take(n % 5_000, failure(&n.to_string()), at(1))
                    .is_some(),
            );
        }
        let due = sums.due(None);
        let counted: u64 = due.iter().filter_map(|e| e.more["count"].as_u64()).sum();
        assert_eq!(counted + rows as u64, 100_000);
        assert!(rows + due.len() <= 2 * 101, "{rows} + {}", due.len());
        let names = |event: &Event| event.more["names"].as_array().unwrap().len();
        assert!(due.iter().all(|event| names(event) <= MAX_SUMMED_USERS));
    }

    #[test]
    fn bytes_of_summed_events_are_added_up() {
        let mut sums = Sums::new(MINUTE, 1, 8);
        let closed = |bytes: u64| {
            let event = Event::new(EventKind::PortForward).with("bytes_in", bytes);
            event.with("bytes_out", 1)
        };
        sums.add("a", closed(1_000), at(0));
        sums.add("a", closed(20), at(1));
        let due = sums.due(Some(at(60)));
        assert_eq!(due.len(), 1);
        let more = &due[0].more;
        let facts = ["count", "bytes_in", "bytes_out"].map(|name| more[name].as_u64());
        assert_eq!(facts, [Some(2), Some(1_020), Some(2)]);
    }

    #[test]
    fn a_clock_that_steps_back_delays_a_sum_and_loses_none() {
        let mut sums = Sums::new(MINUTE, 1, 8);
        assert!(sums.take("a", failure("x"), at(100)).is_some());
        assert!(sums.take("a", failure("x"), at(0)).is_none());
        assert!(sums.due(Some(at(10))).is_empty());
        assert_eq!(sums.due(Some(at(160))).len(), 1);
    }

    #[test]
    fn refusals_of_a_user_are_capped_and_summed() {
        let mut sums = Sums::new(MINUTE, AUDIT_REFUSAL_ROWS, 8);
        let rejected = |n: u32| {
            let event = Event::new(EventKind::SessionRejected).user(Actor::by_key("bob", "k"));
            event.refused(format!("too many, the {n}th time"))
        };
        let mut take = |user: &'static str, n, seconds| {
            sums.take((EventKind::SessionRejected, user), rejected(n), at(seconds))
        };
        // Some a second, as a script in a loop: what comes first is there unchanged.
        let taken = (0..250).filter(|n| take("bob", *n, u64::from(n / 10)).is_some());
        assert_eq!(taken.collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        // Another user's are not among them.
        assert!(take("eve", 0, 30).is_some());
        assert!(sums.due(Some(at(59))).is_empty());
        let due = sums.due(Some(at(60)));
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].more["count"], 150);
        assert_eq!(due[0].more["names"], serde_json::json!(["bob"]));
        assert_eq!(due[0].more["first"], at(10).rfc3339());
        assert_eq!(due[0].more["last"], at(24).rfc3339());
        assert_eq!(due[0].reason.as_deref(), Some("too many, the 249th time"));
        // In the next minute there is room for them again.
        let key = (EventKind::SessionRejected, "bob");
        assert!(sums.take(key, rejected(250), at(61)).is_some());
    }
}
