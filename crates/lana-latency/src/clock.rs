//! The clock around one run, and the time in it that belongs to other processes.

use std::time::{Duration, Instant};

use crate::{Deployment, Processor};

/// Time of one run.
pub(crate) struct Timed {
    /// What counts.
    pub(crate) counted: Duration,
    /// From start to end.
    pub(crate) elapsed: Duration,
    /// Time in which a thread of the run was ready but another process had the core: of the thread that waited longest.
    /// Known on Linux.
    pub(crate) waited: Duration,
}

/// Times runs in one deployment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Whether the calling thread does all the work, so that what it waited can be told from what it worked. With several
    /// threads nobody can say by how much one that waits delays the others; with a GPU the work goes on meanwhile. Then
    /// waiting is only reported.
    alone: bool,
}

impl Clock {
    pub(crate) fn new(deployment: &Deployment) -> Self {
        Clock { alone: deployment.threads == 1 && deployment.processor == Processor::Cpu }
    }

    /// Runs once; what `run` gives is dropped after the clock has stopped.
    pub(crate) fn time<T, E>(self, run: impl FnOnce() -> Result<T, E>) -> Result<Timed, E> {
        let before = self.waiting();
        let start = Instant::now();
        let outcome = run();
        let elapsed = start.elapsed();
        let after = self.waiting();
        drop(outcome?);
        let longest = after.iter().map(|(thread, waited)| {
            let begun =
                before.iter().find(|(t, _)| t == thread).map_or(Duration::ZERO, |(_, waited)| *waited);
            waited.saturating_sub(begun)
        });
        Ok(Timed::new(elapsed, longest.max().unwrap_or_default(), self.alone))
    }

    /// How long each thread that may take part has been ready to run without a core to run on, ever since it started.
    fn waiting(self) -> Vec<(u64, Duration)> {
        if self.alone {
            return waited("/proc/thread-self/schedstat").map(|waited| (0, waited)).into_iter().collect();
        }
        let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let waited = threads.filter_map(|thread| {
            let number = thread.file_name().to_str()?.parse().ok()?;
            Some((number, waited(thread.path().join("schedstat"))?))
        });
        waited.collect()
    }
}

/// The second number of Linux's `schedstat`. It is exact once the thread runs again, unlike the first, the time it ran.
fn waited(path: impl AsRef<std::path::Path>) -> Option<Duration> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

impl Timed {
    /// Who waited for longer than the run took did so before it began or after its end, while the clock stood: that is no
    /// part of the run.
    fn new(elapsed: Duration, waited: Duration, alone: bool) -> Timed {
        let waited = if waited < elapsed { waited } else { Duration::ZERO };
        Timed { counted: if alone { elapsed - waited } else { elapsed }, elapsed, waited }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_always_takes_time() {
        let ms = Duration::from_millis;
        let run = |elapsed, waited| Timed::new(ms(elapsed), ms(waited), true).counted;
        assert_eq!([run(10, 0), run(10, 4), run(10, 10), run(10, 14)], [ms(10), ms(6), ms(10), ms(10)]);
        // With several threads waiting is known, but not what it cost.
        let several = Timed::new(ms(10), ms(4), false);
        assert_eq!((several.counted, several.waited), (ms(10), ms(4)));
    }

    #[test]
    fn a_thread_that_sleeps_does_not_wait_for_a_core() {
        let nap = Duration::from_millis(30);
        for threads in [1, 2] {
            let clock = Clock::new(&Deployment { threads, ..Deployment::default() });
            let sleep = || {
                std::thread::sleep(nap);
                Ok::<_, ()>(())
            };
            let timed = clock.time(sleep).expect("no error");
            assert!(timed.elapsed >= nap && timed.counted <= timed.elapsed && timed.waited < timed.elapsed);
        }
    }
}
