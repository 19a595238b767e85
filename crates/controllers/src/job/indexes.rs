//! Sets of completion indexes, as `status.completedIndexes` writes them: `0,3-5,7`.

use std::fmt;

/// A set of indexes: intervals in order, with gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads the text form. What is not of it, or not below `completions`, is left out.
    pub fn parse(text: &str, completions: i32) -> Self {
        let read = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse::<i32>().ok()?, last.trim().parse::<i32>().ok()?);
            let last = last.min(completions - 1);
            (0 <= first && first <= last).then_some((first, last))
        };
        Self::join(text.split(',').filter_map(read).collect())
    }

    fn join(mut intervals: Vec<(i32, i32)>) -> Self {
        intervals.sort_unstable();
        let mut joined: Vec<(i32, i32)> = Vec::new();
        for (first, last) in intervals {
            match joined.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Indexes(joined)
    }

    /// The set with these, too.
    pub fn with(&self, more: impl IntoIterator<Item = i32>) -> Self {
        Self::join(self.0.iter().copied().chain(more.into_iter().map(|i| (i, i))).collect())
    }

    /// All that is in either.
    pub fn union(&self, other: &Indexes) -> Self {
        Self::join(self.0.iter().chain(&other.0).copied().collect())
    }

    /// Whether it has an index.
    pub fn has(&self, index: i32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).and_then(|i| self.0.get(i)).is_some_and(|(_, last)| index <= *last)
    }

    /// How many there are.
    pub fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many of them are in another set.
    pub fn overlap(&self, other: &Indexes) -> i32 {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a, b)));
        pairs.map(|(a, b)| (a.1.min(b.1) - a.0.max(b.0) + 1).max(0)).sum()
    }

    /// The first `count` indexes below `completions` that are not in it.
    pub fn missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut found = Vec::new();
        let mut next = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            found.extend((next..first.min(completions)).take(count - found.len()));
            next = last.saturating_add(1);
            if found.len() >= count {
                break;
            }
        }
        found
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn sets_are_read_and_written() {
        for (text, completions, want, total) in [
            ("", 9, "", 0),
            ("0,3-5,7", 9, "0,3-5,7", 5),
            ("0,1,2", 9, "0-2", 3),
            ("1,2", 9, "1,2", 2),
            ("0-20", 5, "0-4", 5),
            ("x,3-1,2", 9, "2", 1),
        ] {
            let set = Indexes::parse(text, completions);
            assert_eq!((set.to_string().as_str(), set.total()), (want, total), "{text}");
        }
        let set = Indexes::parse("1,3-5", 9);
        assert!(set.has(4) && !set.has(2) && !set.has(0) && !set.has(6));
        assert_eq!(set.missing(3, 9), [0, 2, 6]);
        assert_eq!(set.missing(9, 7), [0, 2, 6]);
        assert_eq!(set.overlap(&Indexes::parse("0-4", 9)), 3);
        assert_eq!(set.union(&Indexes::parse("2", 9)).to_string(), "1-5");
    }

    proptest! {
        #[test]
        fn sets_are_sets(items in proptest::collection::btree_set(0..60i32, 0..40), count in 0usize..70) {
            let set = Indexes::default().with(items.iter().copied());
            prop_assert_eq!(set.total() as usize, items.len());
            prop_assert_eq!(Indexes::parse(&set.to_string(), 60), set.clone());
            prop_assert!((0..60).all(|i| set.has(i) == items.contains(&i)));
            let want: Vec<i32> = (0..60).filter(|i| !items.contains(i)).take(count).collect();
            prop_assert_eq!(set.missing(count, 60), want);
            let _: BTreeSet<i32> = items;
        }
    }
}
