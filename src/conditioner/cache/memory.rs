//! STATES IN MEMORY. What was not used for longest goes first; empty prompts go last.

use std::collections::{BTreeMap, HashMap};

use super::key::Digest;
use super::{Asked, States};

/// An encoder (by its token) and a window.
type Key = (u64, Digest);

/// What an entry takes beside its values, roughly.
const OVERHEAD: usize = 256;

/// Empty prompts are kept before all others until they take this part of the room.
const EMPTY_SHARE: usize = 4;

#[derive(Debug)]
pub(super) struct Memory {
    kept: HashMap<Key, Kept>,
    /// By the time of their last use: ordinary windows, and empty prompts.
    order: [BTreeMap<u64, Key>; 2],
    bytes: [usize; 2],
    most: usize,
    clock: u64,
}

#[derive(Debug)]
struct Kept {
    states: States,
    used: u64,
    is_empty: bool,
}

impl Memory {
    pub(super) fn new(most: usize) -> Memory {
        Memory {
            kept: HashMap::new(),
            order: [BTreeMap::new(), BTreeMap::new()],
            bytes: [0; 2],
            most,
            clock: 0,
        }
    }

    pub(super) fn get(&mut self, key: &Key) -> Option<States> {
        let kept = self.kept.get_mut(key)?;
        let order = &mut self.order[usize::from(kept.is_empty)];
        order.remove(&kept.used);
        self.clock += 1;
        kept.used = self.clock;
        order.insert(self.clock, *key);
        Some(kept.states.clone())
    }

    /// Those that will be kept.
    pub(super) fn wanted<'a>(&self, new: &'a [(Asked, States)]) -> Vec<(Asked, &'a States)> {
        let size = |(_, states): &(Asked, States)| states.n_bytes() + OVERHEAD;
        let all_fit = new.iter().map(size).sum::<usize>() <= self.most.div_ceil(2)
            || (new.len() == 1 && size(&new[0]) <= self.most);
        let wanted = new.iter().filter(|one| {
            let alone = one.0.is_empty && size(one) <= self.most;
            all_fit || alone
        });
        wanted.map(|(asked, states)| (*asked, states)).collect()
    }

    pub(super) fn put_all(&mut self, token: u64, new: &[(Asked, States)]) {
        for (asked, states) in new {
            self.put((token, asked.digest), states, asked.is_empty);
        }
        while self.bytes[0] + self.bytes[1] > self.most && self.forget() {}
    }

    fn put(&mut self, key: Key, states: &States, is_empty: bool) {
        let size = states.n_bytes() + OVERHEAD;
        if size > self.most {
            return;
        }
        self.remove(&key);
        self.clock += 1;
        let kind = usize::from(is_empty);
        self.bytes[kind] += size;
        self.order[kind].insert(self.clock, key);
        let (states, used) = (states.clone(), self.clock);
        let kept = Kept {
            states,
            used,
            is_empty,
        };
        self.kept.insert(key, kept);
    }

    /// Drops one entry; false if there is none.
    fn forget(&mut self) -> bool {
        let [ordinary, empty] = self.order.each_ref().map(BTreeMap::first_key_value);
        let too_many_empty = self.bytes[1] > self.most / EMPTY_SHARE;
        let victim = match (ordinary, empty) {
            (Some(one), Some(other)) if too_many_empty => one.min(other),
            (Some(one), _) | (None, Some(one)) => one,
            (None, None) => return false,
        };
        let key = *victim.1;
        self.remove(&key);
        true
    }

    fn remove(&mut self, key: &Key) {
        let Some(kept) = self.kept.remove(key) else {
            return;
        };
        let kind = usize::from(kept.is_empty);
        self.order[kind].remove(&kept.used);
        self.bytes[kind] -= kept.states.n_bytes() + OVERHEAD;
    }

    pub(super) fn clear(&mut self) {
        *self = Memory {
            clock: self.clock,
            ..Memory::new(self.most)
        };
    }

    /// Entries and bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.kept.len(), self.bytes[0] + self.bytes[1])
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;

    const SIZE: usize = 16 + OVERHEAD;

    fn states() -> States {
        States {
            hidden: Tensor::zeros((1, 2, 2), DType::F32, &Device::Cpu).unwrap(),
            pooled: None,
        }
    }

    fn asked(number: u8, is_empty: bool) -> Asked {
        let digest = [number; 32];
        Asked { digest, is_empty }
    }

    fn put(memory: &mut Memory, number: u8, is_empty: bool) {
        memory.put_all(0, &[(asked(number, is_empty), states())]);
    }

    fn there(memory: &Memory) -> Vec<u8> {
        let mut all: Vec<u8> = memory.kept.keys().map(|(_, digest)| digest[0]).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut memory = Memory::new(3 * SIZE);
        for number in 0..3 {
            put(&mut memory, number, false);
        }
        assert!(memory.get(&(0, [0; 32])).is_some());
        assert!(memory.get(&(1, [0; 32])).is_none(), "another encoder's");
        put(&mut memory, 3, false);
        assert_eq!(there(&memory), [0, 2, 3]);
        put(&mut memory, 3, false);
        assert_eq!(
            (there(&memory), memory.size()),
            (vec![0, 2, 3], (3, 3 * SIZE))
        );
        memory.clear();
        assert_eq!(memory.size(), (0, 0));
    }

    #[test]
    fn empty_prompts_stay_but_not_too_many() {
        let mut memory = Memory::new(8 * SIZE);
        put(&mut memory, 0, true);
        put(&mut memory, 1, true);
        for number in 10..100 {
            put(&mut memory, number, false);
        }
        assert_eq!(there(&memory), [0, 1, 94, 95, 96, 97, 98, 99]);
        for number in 2..10 {
            put(&mut memory, number, true);
        }
        for number in 10..100 {
            put(&mut memory, number, false);
        }
        assert_eq!(there(&memory), [8, 9, 94, 95, 96, 97, 98, 99]);
        assert_eq!(memory.size(), (8, 8 * SIZE));
    }

    #[test]
    fn a_long_list_pushes_nothing_out() {
        let memory = Memory::new(8 * SIZE);
        let list: Vec<_> = (0..5).map(|n| (asked(n, n == 3), states())).collect();
        let wanted = |list| {
            memory
                .wanted(list)
                .iter()
                .map(|one| one.0.digest[0])
                .collect()
        };
        let all: Vec<u8> = wanted(&list[..4]);
        assert_eq!(all, [0, 1, 2, 3]);
        let only_empty: Vec<u8> = wanted(&list);
        assert_eq!(only_empty, [3]);
        let none = Memory::new(0);
        assert!(none.wanted(&list[..1]).is_empty());
        assert!(Memory::new(SIZE - 1).wanted(&list[3..4]).is_empty());
    }
}
