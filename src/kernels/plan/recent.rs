//! A few values by key, those used last.

/// At most `capacity` values; a new one takes the place of the one that was longest unused.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    /// The one used last is last.
    entries: Vec<(K, V)>,
    capacity: usize,
}

impl<K: PartialEq, V> Recent<K, V> {
    pub(crate) fn new(capacity: usize) -> Recent<K, V> {
        let entries = Vec::with_capacity(capacity);
        Recent { entries, capacity }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        let place = self.entries.iter().position(|(other, _)| other == key)?;
        let entry = self.entries.remove(place);
        self.entries.push(entry);
        self.entries.last_mut().map(|(_, value)| value)
    }

    /// Keeps a value; what has to go for it is given back.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let same = self.entries.iter().position(|(other, _)| *other == key);
        let full = (self.entries.len() >= self.capacity).then_some(0);
        let gone = same.or(full).map(|place| self.entries.remove(place).1);
        self.entries.push((key, value));
        gone
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_longest_unused_goes() {
        let mut recent = Recent::new(2);
        assert_eq!(recent.insert("a", 1), None);
        assert_eq!(recent.insert("b", 2), None);
        assert_eq!(recent.get(&"a").copied(), Some(1));
        assert_eq!(recent.insert("c", 3), Some(2));
        assert_eq!(
            (recent.get(&"b").copied(), recent.get(&"a").copied()),
            (None, Some(1))
        );
    }

    #[test]
    fn a_key_has_one_value() {
        let mut recent = Recent::new(2);
        recent.insert("a", 1);
        recent.insert("b", 2);
        assert_eq!(recent.insert("a", 4), Some(1));
        assert_eq!(
            (recent.get(&"b").copied(), recent.get(&"a").copied()),
            (Some(2), Some(4))
        );
        assert_eq!(recent.len(), 2);
        recent.clear();
        assert_eq!(recent.get(&"a").copied(), None);
    }
}
