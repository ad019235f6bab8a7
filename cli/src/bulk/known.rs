//! What a run remembers of lines that are behind it, in bounded memory.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};

use unicode_normalization::UnicodeNormalization as _;

use crate::job::Key;

/// Different prompts that are remembered, to be encoded once.
const PROMPTS: usize = 1 << 18;

/// How far the writer is behind the reader at most, in lines.
const BEHIND: usize = 1 << 15;

/// Things that were said once.
const SAID: usize = 1 << 14;

/// A hash for sets of this process.
pub(super) fn hashed(value: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

/// The ids of all lines, as hashes of 64 bits: 9 to 18 bytes a line, and as much again for an id that is not
/// its own [`folded`] form. Among ten million ids, two share one by accident in one of 370,000 runs; the second is
/// then refused as if it were the first.
#[derive(Debug)]
pub(super) struct Ids {
    all: HashSet<u64>,
    /// The folded forms of those that are others than their own; `None` where nobody asks.
    folded: Option<HashSet<u64>>,
}

/// What there was of an id before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    Nothing,
    Itself,
    /// Another one that some disks take for the same.
    Alike,
}

impl Ids {
    /// None yet, and whether those that are alike are told apart from new ones.
    pub(super) fn new(alike: bool) -> Ids {
        Ids {
            all: HashSet::new(),
            folded: alike.then(HashSet::new),
        }
    }

    pub(super) fn add(&mut self, id: &str) -> Met {
        let own = hashed(id);
        if !self.all.insert(own) {
            return Met::Itself;
        }
        let Some(others) = &mut self.folded else {
            return Met::Nothing;
        };
        let folded = folded(id);
        let is_alike = if folded == id {
            others.contains(&own)
        } else {
            let form = hashed(&*folded);
            !others.insert(form) || self.all.contains(&form)
        };
        if is_alike { Met::Alike } else { Met::Nothing }
    }
}

/// What a name is to disks that tell neither case nor the ways to write an accent apart (macOS, Windows).
fn folded(id: &str) -> Cow<'_, str> {
    let is_plain = |byte: &u8| byte.is_ascii() && !byte.is_ascii_uppercase();
    if id.as_bytes().iter().all(is_plain) {
        return Cow::Borrowed(id);
    }
    let small = id.nfc().flat_map(char::to_lowercase);
    Cow::Owned(small.nfc().collect())
}

/// Requests that earlier runs have packed: two hashes of 64 bits, 18 to 36 bytes each.
#[derive(Debug, Default)]
pub(super) struct Finished {
    /// What was asked for last, by id.
    requests: HashMap<u64, u64>,
    /// Files, ids and requests of all tensors that there are, until that is [`settled`](Self::settle).
    tensors: HashSet<u64>,
}

impl Finished {
    pub(super) fn add(&mut self, id: &str, request: &str) {
        self.requests.insert(hashed(id), hashed(request));
    }

    /// One that has tensors in this file. What is added later counts.
    pub(super) fn add_packed(&mut self, file: &str, id: &str, request: &str) {
        self.add(id, request);
        self.tensors.insert(hashed((file, id, request)));
    }

    pub(super) fn has(&self, id: &str, request: &str) -> bool {
        self.requests.get(&hashed(id)) == Some(&hashed(request))
    }

    /// Whether a file has the tensors of a request, were another one asked for under its id later or not.
    pub(super) fn has_packed(&self, file: &str, id: &str, request: &str) -> bool {
        self.tensors.contains(&hashed((file, id, request)))
    }

    /// Whatever was asked for under this id.
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.requests.contains_key(&hashed(id))
    }

    /// Where tensors lie does not matter any more.
    pub(super) fn settle(&mut self) {
        self.tensors = HashSet::new();
    }
}

/// The last so many different jobs with something about each; the oldest is forgotten.
#[derive(Debug)]
pub(super) struct Recent<T> {
    jobs: HashMap<Key, T>,
    order: VecDeque<Key>,
    at_most: usize,
}

impl<T> Recent<T> {
    /// For whoever reads.
    pub(super) fn ahead() -> Recent<T> {
        Recent::of(PROMPTS)
    }

    /// For whoever writes: remembers all that the reader does.
    pub(super) fn behind() -> Recent<T> {
        Recent::of(PROMPTS + BEHIND)
    }

    fn of(at_most: usize) -> Recent<T> {
        Recent {
            jobs: HashMap::new(),
            order: VecDeque::new(),
            at_most,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&T> {
        self.jobs.get(key)
    }

    pub(super) fn insert(&mut self, key: Key, about: T) {
        if self.jobs.insert(key, about).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.at_most
            && let Some(oldest) = self.order.pop_front()
        {
            self.jobs.remove(&oldest);
        }
    }
}

/// What would be said of every line, and is said once; again when very much else was said between.
#[derive(Debug, Default)]
pub(super) struct Said(HashSet<u64>);

impl Said {
    /// True if it was not said yet.
    pub(super) fn first(&mut self, text: &str) -> bool {
        if self.0.len() >= SAID {
            self.0.clear();
        }
        self.0.insert(hashed(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let key = |number| Key::from([number; 16]);
        let mut recent = Recent::of(2);
        for number in [1, 2, 2, 3] {
            recent.insert(key(number), number);
        }
        assert_eq!(
            [1, 2, 3].map(|number| recent.get(&key(number)).copied()),
            [None, Some(2), Some(3)]
        );
        assert_eq!((recent.jobs.len(), recent.order.len()), (2, 2));
    }

    #[test]
    fn ids_that_a_disk_may_take_for_one() {
        use Met::{Alike, Itself, Nothing};
        let mut ids = Ids::new(true);
        let found = [
            "a", "A", "a", "B", "b", "B", "c", "\u{e9}", "E\u{301}", "e", "\u{c9}",
        ];
        let found = found.map(|id| ids.add(id));
        let want = [
            Nothing, Alike, Itself, Nothing, Alike, Itself, Nothing, Nothing, Alike, Nothing, Alike,
        ];
        assert_eq!(found, want);
        let mut apart = Ids::new(false);
        assert_eq!(
            ["a", "A", "a"].map(|id| apart.add(id)),
            [Nothing, Nothing, Itself]
        );
    }

    /// What is asked for last counts; what was there before is there all the same.
    #[test]
    fn the_last_request_of_an_id_counts() {
        let mut finished = Finished::default();
        finished.add_packed("1", "a", "old");
        finished.add_packed("2", "a", "new");
        assert!(finished.has("a", "new") && !finished.has("a", "old"));
        assert!(finished.has_packed("1", "a", "old") && finished.has_packed("2", "a", "new"));
        assert!(!finished.has_packed("2", "a", "old"));
        finished.settle();
        assert!(finished.has("a", "new") && finished.has_id("a") && !finished.has_id("b"));
    }

    #[test]
    fn what_is_said_is_bounded() {
        let mut said = Said::default();
        assert!(said.first("a") && !said.first("a"));
        for number in 0..3 * SAID {
            said.first(&number.to_string());
        }
        assert!(said.0.len() <= SAID);
    }
}
