//! Keeping a measurement on the same cores.
//!
//! A thread that the system moves to another core finds its second-level cache empty there, and on processors with fast and
//! slow cores another speed. So the thread that measures, and the runtime's threads that it starts (they inherit it), stay on
//! as many cores as the deployment has threads: the fastest, one for each physical core where there are enough, those that
//! others use least at the start. Where the system has no such thing (all but Linux), where every core is needed anyway, or
//! where the work is a GPU's, nothing is pinned.

use crate::{Deployment, Processor};

/// Pins the calling thread, until the guard is dropped; none where nothing is to be done.
pub(crate) fn pin(deployment: &Deployment) -> Option<Pinned> {
    match deployment.processor {
        Processor::Cpu => Pinned::to_best(deployment.threads),
        Processor::Cuda => None,
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) struct Pinned;

#[cfg(not(target_os = "linux"))]
impl Pinned {
    fn to_best(_: usize) -> Option<Self> {
        None
    }
}

#[cfg(target_os = "linux")]
pub(crate) use linux::Pinned;

#[cfg(target_os = "linux")]
mod linux {
    use std::cmp::Reverse;
    use std::sync::OnceLock;
    use std::time::Duration;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// The calling thread is kept on some cores; when this is dropped, it may run where it could before.
    pub(crate) struct Pinned {
        before: CpuSet,
    }

    impl Pinned {
        pub(super) fn to_best(threads: usize) -> Option<Self> {
            let before = sched_getaffinity(None).ok()?;
            let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| before.is_set(cpu)).collect();
            if allowed.len() <= threads {
                return None;
            }
            let mut cores = CpuSet::new();
            best(&allowed, threads).into_iter().for_each(|cpu| cores.set(cpu));
            sched_setaffinity(None, &cores).ok()?;
            Some(Pinned { before })
        }
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            // It was allowed before.
            let _ = sched_setaffinity(None, &self.before);
        }
    }

    /// So many of the logical cores.
    fn best(allowed: &[usize], count: usize) -> Vec<usize> {
        // Looked at once: tables measure hundreds of times, and should do so on the same cores.
        static BUSY: OnceLock<Vec<(usize, u64)>> = OnceLock::new();
        let busy = BUSY.get_or_init(|| {
            let before = busy_ticks(&stat());
            std::thread::sleep(Duration::from_millis(100));
            let after = busy_ticks(&stat());
            let during = after.into_iter().map(|(cpu, ticks)| {
                let begun = before.iter().find(|(c, _)| *c == cpu).map_or(ticks, |(_, ticks)| *ticks);
                (cpu, ticks.saturating_sub(begun))
            });
            during.collect()
        });
        let cores: Vec<Core> = allowed
            .iter()
            .map(|&number| {
                let read = |file: &str| {
                    std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{number}/{file}")).ok()
                };
                let siblings = read("topology/thread_siblings_list").unwrap_or_default();
                let first = siblings.split([',', '-']).next().and_then(|n| n.trim().parse().ok());
                let speed = read("cpufreq/cpuinfo_max_freq").and_then(|n| n.trim().parse().ok());
                let busy = busy.iter().find(|(cpu, _)| *cpu == number).map_or(0, |(_, ticks)| *ticks);
                Core { number, physical: first.unwrap_or(number), speed: speed.unwrap_or(0), busy }
            })
            .collect();
        ranked(cores).into_iter().take(count).collect()
    }

    fn stat() -> String {
        std::fs::read_to_string("/proc/stat").unwrap_or_default()
    }

    /// Ticks that each core has worked, of `/proc/stat`: user, nice, system, and not idle or waiting for disks.
    fn busy_ticks(stat: &str) -> Vec<(usize, u64)> {
        let core = |line: &str| {
            let (name, ticks) = line.split_once(' ')?;
            let number = name.strip_prefix("cpu")?.parse().ok()?;
            Some((number, ticks.split_whitespace().take(3).filter_map(|t| t.parse::<u64>().ok()).sum()))
        };
        stat.lines().filter_map(core).collect()
    }

    /// A logical core.
    struct Core {
        number: usize,
        /// The first logical core of the physical one.
        physical: usize,
        speed: u64,
        busy: u64,
    }

    /// Numbers of the cores, the best first.
    fn ranked(mut cores: Vec<Core>) -> Vec<usize> {
        cores.sort_by_key(|core| (Reverse(core.speed), core.busy, core.number));
        let mut taken = Vec::new();
        // Second threads of a core that is taken come last.
        let (first, second): (Vec<Core>, Vec<Core>) = cores.into_iter().partition(|core| {
            let fresh = !taken.contains(&core.physical);
            taken.push(core.physical);
            fresh
        });
        first.into_iter().chain(second).map(|core| core.number).collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn fast_and_idle_cores_of_their_own_come_first() {
            let core = |number, physical, speed, busy| Core { number, physical, speed, busy };
            // Two fast cores of two threads each, one busy; two slow ones.
            let cores = vec![
                core(0, 0, 5000, 9),
                core(1, 0, 5000, 0),
                core(2, 2, 5000, 9),
                core(3, 2, 5000, 2),
                core(4, 4, 3000, 0),
                core(5, 5, 3000, 0),
            ];
            assert_eq!(ranked(cores), [1, 3, 4, 5, 0, 2]);
        }

        #[test]
        fn ticks_are_read_core_by_core() {
            let stat = "cpu  9 9 9 9\ncpu0 100 5 20 7000 3 0 0 0 0 0\ncpu1 1 1 1 1\nintr 5\n";
            assert_eq!(busy_ticks(stat), [(0, 125), (1, 3)]);
            assert!(!busy_ticks(&super::stat()).is_empty());
        }

        #[test]
        fn a_thread_is_free_again_afterwards() {
            let allowed = |set: &CpuSet| (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).count();
            let now = || allowed(&sched_getaffinity(None).expect("Linux"));
            let before = now();
            if let Some(pinned) = Pinned::to_best(1) {
                assert_eq!(now(), 1);
                // Nothing is left to choose from.
                assert!(Pinned::to_best(1).is_none());
                drop(pinned);
            }
            assert_eq!(now(), before);
            assert!(Pinned::to_best(before).is_none());
        }
    }
}
