//! READING AND COPYING AT ONCE. While one thing is on its way to a GPU, the next is read.

use crate::error::Result;

/// Calls `make` for each item, in order, and `take` with what it gives. While one is taken on this
/// thread, the next is made by the caller's rayon pool, so that two exist at a time. The first error
/// of either ends it.
pub(super) fn make_ahead<T: Sync, M: Send, R>(
    items: &[T],
    make: impl Fn(&T) -> Result<M> + Sync,
    mut take: impl FnMut(M) -> Result<R>,
) -> Result<Vec<R>> {
    let mut taken = Vec::with_capacity(items.len());
    let mut items = items.iter();
    let mut made = items.next().map(&make);
    while let Some(this) = made.take() {
        let this = this?;
        let result = rayon::in_place_scope(|scope| {
            if let Some(next) = items.next() {
                scope.spawn(|_| made = Some(make(next)));
            }
            take(this)
        });
        taken.push(result?);
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::error::{Error, ErrorKind};

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn all_come_in_their_order() {
        for n in [0, 1, 2, 7] {
            let items: Vec<usize> = (0..n).collect();
            let taken = make_ahead(&items, |item| Ok(item * 10), |made| Ok(made + 1));
            let want: Vec<usize> = items.iter().map(|item| item * 10 + 1).collect();
            assert_eq!(taken.unwrap(), want);
        }
    }

    /// Each but the last is given away only when the next has been begun.
    #[test]
    fn the_next_is_made_while_one_is_taken() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        let (begun, seen) = mpsc::channel();
        let make = |item: &usize| {
            begun.send(*item).unwrap();
            Ok(*item)
        };
        let mut made_first = true;
        let taken = pool.unwrap().install(move || {
            make_ahead(&[0, 1, 2], make, |item| {
                if std::mem::take(&mut made_first) {
                    assert_eq!(seen.recv_timeout(PATIENCE), Ok(0));
                }
                if item < 2 {
                    assert_eq!(seen.recv_timeout(PATIENCE), Ok(item + 1));
                }
                Ok(item)
            })
        });
        assert_eq!(taken.unwrap(), [0, 1, 2]);
    }

    #[test]
    fn one_thread_is_enough() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let taken = pool
            .unwrap()
            .install(|| make_ahead(&[1, 2, 3], |item| Ok(*item), Ok));
        assert_eq!(taken.unwrap(), [1, 2, 3]);
    }

    #[test]
    fn the_first_error_ends_it() {
        let failed = || Error::new(ErrorKind::FileFormat, "broken");
        let mut n_taken = 0;
        let make = |item: &usize| if *item == 2 { Err(failed()) } else { Ok(*item) };
        let taken = make_ahead(&[0, 1, 2, 3], make, |_| {
            n_taken += 1;
            Ok(())
        });
        assert!(taken.is_err());
        assert_eq!(n_taken, 2);
        let taken = make_ahead(&[0, 1], |item| Ok(*item), |_| Err::<(), _>(failed()));
        assert!(taken.is_err());
    }
}
