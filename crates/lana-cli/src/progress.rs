//! Progress on stderr: bars on a terminal, a few plain lines anywhere else.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::format;
use crate::output::error_line;

/// The bars on the screen: at most one, but whatever else writes to stderr must be able to take it off for a moment.
pub(crate) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Plain lines are at least so far apart …
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
/// … but for this share of the stage, which may come earlier, though not in a rush.
const PLAIN_SHARE: f64 = 0.1;
const PLAIN_RUSH: Duration = Duration::from_secs(1);

/// Shows the progress of the pipeline on stderr.
pub(crate) struct Terminal {
    stage: Mutex<Option<Stage>>,
}

impl Terminal {
    /// Nothing is shown before the first stage begins.
    pub(crate) fn new() -> Self {
        Terminal { stage: Mutex::new(None) }
    }

    /// Takes the bar of an unfinished stage off the screen.
    pub(crate) fn clear(&self) {
        if let Some(Stage { bar: Some(bar), .. }) = self.stage().take() {
            bar.finish_and_clear();
            BARS.remove(&bar);
        }
    }

    fn stage(&self) -> MutexGuard<'_, Option<Stage>> {
        // A thread that panicked while it held the lock leaves nothing worse than an old number.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stage begins: `total` units lie ahead.
    pub(crate) fn begin(&self, stage: &str, total: u64, unit: &str) {
        self.clear();
        let meter = Meter::new(stage, total, unit, Instant::now());
        let bar = (!BARS.is_hidden()).then(|| BARS.add(new_bar(stage, total)));
        match &bar {
            Some(bar) => bar.set_message(meter.words()),
            None => error_line(&meter.first_line()),
        }
        *self.stage() = Some(Stage { meter, bar });
    }

    /// So many units are done in all.
    pub(crate) fn advance(&self, done: u64, note: &str) {
        let now = Instant::now();
        let mut stage = self.stage();
        let Some(Stage { meter, bar }) = stage.as_mut() else { return };
        meter.advance(done, note, now);
        match bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(meter.words());
            }
            None => {
                if meter.plain_line_is_due(now) {
                    error_line(&format!("{}: {}", meter.stage, meter.words()));
                }
            }
        }
    }

    /// The stage is over.
    pub(crate) fn finish(&self, summary: &str) {
        let Some(Stage { meter, bar }) = self.stage().take() else { return };
        if let Some(bar) = bar {
            bar.finish_and_clear();
            BARS.remove(&bar);
        }
        let summary = if summary.is_empty() { "done" } else { summary };
        let time = format::duration(meter.began.elapsed().as_secs_f64());
        error_line(&format!("{}: {summary} ({time})", meter.stage));
    }

    /// A line for people.
    pub(crate) fn say(&self, line: &str) {
        error_line(line);
    }
}

#[cfg(feature = "training")]
impl lana::Progress for Terminal {
    fn begin(&self, stage: &str, total: u64, unit: &str) {
        self.begin(stage, total, unit);
    }

    fn advance(&self, done: u64, note: &str) {
        self.advance(done, note);
    }

    fn finish(&self, summary: &str) {
        self.finish(summary);
    }

    fn say(&self, line: &str) {
        self.say(line);
    }

    fn warn(&self, line: &str) {
        error_line(&format!("warning: {line}"));
    }
}

struct Stage {
    meter: Meter,
    bar: Option<ProgressBar>,
}

fn new_bar(stage: &str, total: u64) -> ProgressBar {
    let template = match total {
        0 => "{prefix:.bold} {spinner} {wide_msg}",
        _ => "{prefix:.bold} {bar:30.cyan} {wide_msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_prefix(stage.to_string())
}

/// How far a stage is, how fast, and how long it will still take.
struct Meter {
    stage: String,
    unit: String,
    total: u64,
    done: u64,
    /// The last note that said anything.
    note: String,
    began: Instant,
    /// The first that was heard: work done before (by a run that was interrupted), and the slow first step, say nothing
    /// about the rate.
    first: Option<(Instant, u64)>,
    now: Instant,
    printed: (Instant, u64),
}

impl Meter {
    fn new(stage: &str, total: u64, unit: &str, now: Instant) -> Self {
        let (stage, unit) = (stage.to_string(), unit.to_string());
        let note = String::new();
        Meter { stage, unit, total, done: 0, note, began: now, first: None, now, printed: (now, 0) }
    }

    fn advance(&mut self, done: u64, note: &str, now: Instant) {
        self.first.get_or_insert((now, done));
        if !note.is_empty() {
            self.note = note.to_string();
        }
        (self.done, self.now) = (done, now);
    }

    /// Units in a second, once there is something to tell it by.
    fn rate(&self) -> Option<f64> {
        let (since, first) = self.first?;
        let seconds = self.now.duration_since(since).as_secs_f64();
        (self.done > first && seconds >= 0.5).then(|| (self.done - first) as f64 / seconds)
    }

    fn seconds_left(&self) -> Option<f64> {
        (self.total > 0).then_some(())?;
        Some(self.total.saturating_sub(self.done) as f64 / self.rate()?)
    }

    /// `45 %, 5,760 of 12,800 images, 211/s, 33 s left, loss 0.12`.
    fn words(&self) -> String {
        let done = format::count(self.done);
        let mut parts = match self.total {
            0 => vec![format!("{done} {}", self.unit)],
            total => vec![
                format!("{:.0} %", (100.0 * self.done as f64 / total as f64).min(100.0).floor()),
                format!("{done} of {} {}", format::count(total), self.unit),
            ],
        };
        parts.extend(self.rate().map(|rate| format!("{}/s", format::rate(rate))));
        parts.extend(self.seconds_left().map(|seconds| format!("{} left", format::duration(seconds))));
        if !self.note.is_empty() {
            parts.push(self.note.clone());
        }
        parts.join(", ")
    }

    fn first_line(&self) -> String {
        match self.total {
            0 => format!("{}:", self.stage),
            total => format!("{}: {} {}", self.stage, format::count(total), self.unit),
        }
    }

    /// Whether it is time for another plain line; if so, the next one is counted from here.
    fn plain_line_is_due(&mut self, now: Instant) -> bool {
        let waited = now.duration_since(self.printed.0);
        let share = self.done.saturating_sub(self.printed.1) as f64 / self.total.max(1) as f64;
        let due =
            waited >= PLAIN_INTERVAL || (self.total > 0 && share >= PLAIN_SHARE && waited >= PLAIN_RUSH);
        if due {
            self.printed = (now, self.done);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_rate_leaves_out_what_was_done_before() {
        let start = Instant::now();
        let mut meter = Meter::new("pretrain", 12_800, "images", start);
        assert_eq!(meter.words(), "0 %, 0 of 12,800 images");
        meter.advance(6_400, "resumed", after(start, 0.1));
        assert_eq!(meter.words(), "50 %, 6,400 of 12,800 images, resumed");
        meter.advance(7_400, "loss 0.12", after(start, 10.1));
        assert_eq!(meter.words(), "57 %, 7,400 of 12,800 images, 100/s, 54 s left, loss 0.12");
        meter.advance(12_800, "", after(start, 64.1));
        // A note stays until there is another.
        assert_eq!(meter.words(), "100 %, 12,800 of 12,800 images, 100/s, 0.0 s left, loss 0.12");
    }

    #[test]
    fn a_stage_of_unknown_length_counts() {
        let start = Instant::now();
        let mut meter = Meter::new("solve", 0, "solutions", start);
        assert_eq!(meter.first_line(), "solve:");
        meter.advance(0, "", start);
        meter.advance(3, "", after(start, 6.0));
        assert_eq!(meter.words(), "3 solutions, 0.50/s");
    }

    #[test]
    fn plain_lines_are_few() {
        let start = Instant::now();
        // A minute, heard of every tenth of a second: a line for each ten percent.
        let mut meter = Meter::new("score", 600, "batches", start);
        let lines = (1..=600)
            .filter(|&step| {
                let now = after(start, step as f64 * 0.1);
                meter.advance(step, "", now);
                meter.plain_line_is_due(now)
            })
            .count();
        assert_eq!(lines, 10);
        // An hour: a line every ten seconds.
        let mut meter = Meter::new("pretrain", 3600, "batches", start);
        let lines = (1..=3600)
            .filter(|&step| {
                let now = after(start, step as f64);
                meter.advance(step, "", now);
                meter.plain_line_is_due(now)
            })
            .count();
        assert_eq!(lines, 360);
        // Half a second: none.
        let mut meter = Meter::new("export", 5, "files", start);
        for step in 1..=5 {
            let now = after(start, step as f64 * 0.1);
            meter.advance(step, "", now);
            assert!(!meter.plain_line_is_due(now));
        }
    }
}
