//! `report.html`: everything a run has found out, on one page that needs nothing but itself.
//!
//! [`render`] turns a [`Report`] into the page. It measures and reads nothing; what is not there yet is said in a
//! sentence. `page` holds the frame, `sections` one file for each part of the page, `chart`, `axis` and `svg` draw,
//! `family` decides how operations look, `format` how numbers read, `facts` looks things up.
//!
//! To look at the page with made-up data:
//! `LANA_REPORT_SAMPLE=/tmp/report.html cargo test -p lana report::tests::sample_page`.
//! A picture of its upper part:
//! `chromium --headless --hide-scrollbars --window-size=900,1500 --screenshot=report.png RUN/report.html`.

use std::collections::BTreeMap;

use lana_latency::Figures;

use crate::{
    Candidates, ControlMetrics, OperationRecord, PoolRecord, PretrainPrecision, Scores, StudentMetrics,
    TeacherMetrics,
};

mod axis;
mod chart;
mod facts;
mod family;
mod format;
mod page;
mod sections;
mod svg;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

/// What the report is made from: the files of a run directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// `run.toml` as it stands.
    pub config_toml: String,
    /// The command that made the run, as typed; empty if it is not known.
    pub command: String,
    /// When the report was made, for people to read.
    pub created: String,
    /// `teacher/metrics.json`.
    pub teacher: TeacherMetrics,
    /// The teacher's latency. If none, the first student's measurement of it stands in.
    pub teacher_latency: Option<TeacherLatency>,
    /// `pool.json`: layers in the order of the network with the operations that stand there.
    pub pool: PoolRecord,
    /// The lookup table of the device, if it has been measured.
    pub table: Option<LatencyTable>,
    /// `operations/LAYER/OP.json`, as many as there are, in any order.
    pub operations: Vec<OperationRecord>,
    /// `operations/precision.json`, if number formats had to be decided.
    pub precision: Option<PretrainPrecision>,
    /// `scores.json`, if it is there.
    pub scores: Option<Scores>,
    /// `student/metrics.json` and `candidates.json` of each budget that is finished, in the order of the budgets.
    pub students: Vec<(StudentMetrics, Candidates)>,
    /// What students are compared with, under each budget.
    pub controls: Vec<ControlMetrics>,
}

/// A latency of the teacher that was measured by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TeacherLatency {
    /// Median in milliseconds for one batch.
    pub median_ms: f64,
    /// Its 95 % confidence interval.
    pub ci_ms: [f64; 2],
}

/// What the report shows of a lookup table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyTable {
    /// The device, such as the name of the processor.
    pub device: String,
    /// The runtime with its version.
    pub runtime: String,
    /// Images in a batch.
    pub batch: usize,
    /// Threads of the runtime.
    pub threads: usize,
    /// Milliseconds outside of all layers: stem, head, overhead.
    pub fixed_ms: f64,
    /// The whole teacher, measured, in milliseconds.
    pub teacher_ms: f64,
    /// By layer and operation.
    pub layers: BTreeMap<String, BTreeMap<String, Price>>,
    /// How well it predicts random selections, if that has been checked.
    pub check: Option<Figures>,
}

/// Cost of one operation at one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Milliseconds for one batch.
    pub ms: f64,
    /// Whether the measurement scattered so much that it is worth little.
    pub noisy: bool,
}

/// The page.
pub fn render(report: &Report) -> String {
    page::page(report)
}
