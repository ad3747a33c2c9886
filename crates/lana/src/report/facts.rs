//! What sections look up in a report.

use super::svg::Marker;
use super::{Price, Report};
use crate::{Candidates, PoolLayer, StudentMetrics};

/// How what belongs to one budget is drawn everywhere on the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    /// Class that sets its colour.
    pub(super) class: &'static str,
    /// Its marker.
    pub(super) marker: Marker,
}

/// One finished budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Student<'a> {
    /// Its figures.
    pub(super) metrics: &'a StudentMetrics,
    /// What it was chosen from.
    pub(super) candidates: &'a Candidates,
    /// How it is drawn.
    pub(super) series: Series,
}

impl Student<'_> {
    /// The operation that stands at a layer.
    pub(super) fn choice(&self, layer: &str) -> Option<&str> {
        self.metrics.choices.iter().find(|(name, _)| name == layer).map(|(_, operation)| operation.as_str())
    }
}

impl Report {
    /// The finished budgets.
    pub(super) fn finished(&self) -> Vec<Student<'_>> {
        const SERIES: [Series; 4] = [
            Series { class: "b0", marker: Marker::Circle },
            Series { class: "b1", marker: Marker::Square },
            Series { class: "b2", marker: Marker::Triangle },
            Series { class: "b3", marker: Marker::Diamond },
        ];
        let numbered = self.students.iter().enumerate();
        numbered
            .map(|(i, (metrics, candidates))| Student {
                metrics,
                candidates,
                series: SERIES[i % SERIES.len()],
            })
            .collect()
    }

    /// Median latency of the teacher in milliseconds and its interval, where one is known.
    pub(super) fn teacher_ms(&self) -> Option<(f64, Option<[f64; 2]>)> {
        match (self.teacher_latency, self.students.first(), &self.table) {
            (Some(own), _, _) => Some((own.median_ms, Some(own.ci_ms))),
            (None, Some((StudentMetrics { teacher_measured: Some(ms), .. }, _)), _) => Some((*ms, None)),
            (None, _, Some(table)) => Some((table.teacher_ms, None)),
            (None, _, None) => None,
        }
    }

    /// Cost of an operation by the lookup table.
    pub(super) fn price(&self, layer: &str, operation: &str) -> Option<Price> {
        self.table.as_ref()?.layers.get(layer)?.get(operation).copied().filter(|p| p.ms.is_finite())
    }

    /// The score the selection went by: KL divergence or change of the loss, in nats.
    pub(super) fn score(&self, layer: &str, operation: &str) -> Option<f64> {
        if operation == "teacher" {
            return self.scores.as_ref().map(|_| 0.0);
        }
        let score = self.scores.as_ref()?.layers.get(layer)?.get(operation)?;
        let mean = if self.scores_by_loss() { score.loss.mean } else { score.kl.mean };
        Some(mean).filter(|m| m.is_finite())
    }

    /// What [`Report::score`] is.
    pub(super) fn score_name(&self) -> &'static str {
        if self.scores_by_loss() { "change of loss" } else { "KL divergence" }
    }

    /// A text of the configuration, such as `val` or `score.by`.
    pub(super) fn config(&self, key: &str) -> Option<String> {
        let table: toml::Table = toml::from_str(&self.config_toml).ok()?;
        let value = match key.split_once('.') {
            Some((section, key)) => table.get(section)?.get(key)?,
            None => table.get(key)?,
        };
        Some(value.as_str().map_or_else(|| value.to_string(), String::from))
    }

    /// Layers by stage, in the order of the network.
    pub(super) fn stages(&self) -> Vec<(&str, Vec<&PoolLayer>)> {
        let mut stages: Vec<(&str, Vec<&PoolLayer>)> = Vec::new();
        for layer in &self.pool.layers {
            match stages.last_mut() {
                Some((stage, layers)) if *stage == layer.stage => layers.push(layer),
                _ => stages.push((&layer.stage, vec![layer])),
            }
        }
        stages
    }

    fn scores_by_loss(&self) -> bool {
        self.config("score.by").as_deref() == Some("loss")
    }
}

/// A layer's name without that of its stage: `0` for `layer1.0`.
pub(super) fn short_name(layer: &PoolLayer) -> &str {
    let rest = layer.layer.strip_prefix(layer.stage.as_str()).unwrap_or(&layer.layer);
    let rest = rest.trim_start_matches(['.', '/', '_']);
    if rest.is_empty() { &layer.layer } else { rest }
}
