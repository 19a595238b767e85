//! Doing the same thing many times: slowly at first, so that what fails for all fails but a few times.

use futures::future::join_all;

/// Runs `work` `count` times, in batches of 1, 2, 4, ..., and stops after a batch with a failure.
/// Answers how often it went well, and the first error.
pub async fn slow_start<F, R, E>(count: usize, mut work: F) -> (usize, Option<E>)
where
    F: FnMut(usize) -> R,
    R: Future<Output = Result<(), E>>,
{
    let (mut done, mut size, mut good) = (0, 1, 0);
    while done < count {
        size = size.min(count - done);
        let results = join_all((done..done + size).map(&mut work)).await;
        done += size;
        good += results.iter().filter(|r| r.is_ok()).count();
        if let Some(e) = results.into_iter().find_map(Result::err) {
            return (good, Some(e));
        }
        size *= 2;
    }
    (good, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_failure_stops_the_growth() {
        for (count, fails_at, want_tried, want_good) in
            [(10, 100, 10, 10), (10, 0, 1, 0), (10, 2, 3, 2), (0, 0, 0, 0), (7, 6, 7, 6)]
        {
            let tried = Cell::new(0);
            let (good, e) = slow_start(count, |i| {
                tried.set(tried.get() + 1);
                async move { if i == fails_at { Err("no") } else { Ok(()) } }
            })
            .await;
            assert_eq!(
                (tried.get(), good, e.is_some()),
                (want_tried, want_good, fails_at < count),
                "{count} {fails_at}"
            );
        }
    }
}
