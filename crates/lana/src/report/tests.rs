use super::sample::{empty, full};
use super::{Report, render};
use crate::{Measured, Timing};

/// Renders, and checks what must hold for every page.
fn checked(report: &Report) -> String {
    let page = render(report);
    if let Err(problem) = balanced(&page) {
        panic!("{problem}");
    }
    for word in ["NaN", "inf ", "inf<", "http://", "https://", "<script"] {
        assert!(!page.contains(word), "the page contains `{word}`");
    }
    page
}

/// Whether every element that opens closes, in order, and text holds no bare `<` or `&`.
fn balanced(page: &str) -> Result<(), String> {
    let style = page.find("<style>").zip(page.find("</style>")).ok_or("no style")?;
    let page = format!("{}{}", &page[..style.0], &page[style.1 + "</style>".len()..]);
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no document type")?;
    while let Some(start) = rest.find(['<', '&']) {
        let from = &rest[start..];
        let near = || from.chars().take(60).collect::<String>();
        if from.starts_with('&') {
            let end = from.find(';').filter(|e| *e < 8).ok_or_else(|| format!("bare & near {}", near()))?;
            rest = &from[end..];
            continue;
        }
        let end = from.find('>').ok_or_else(|| format!("open tag near {}", near()))?;
        let tag = &from[1..end];
        if tag.matches('"').count() % 2 != 0 || tag.contains('<') {
            return Err(format!("broken tag near {}", near()));
        }
        match tag.strip_prefix('/') {
            Some(name) if open.pop() != Some(name) => {
                return Err(format!("unexpected close near {}", near()));
            }
            Some(_) => {}
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(char::is_whitespace).next().unwrap_or_default()),
        }
        rest = &from[end + 1..];
    }
    if open.is_empty() { Ok(()) } else { Err(format!("never closed: {open:?}")) }
}

#[test]
fn a_finished_run_is_shown() {
    let report = full();
    let page = checked(&report).replace('\u{a0}', " ").replace("<span>", "").replace("</span>", "");
    assert!(page.contains("resnet56_cifar at 0.5x: <b>2.02x faster</b>, 90.1 % → 88.9 %"), "no headline");
    for layer in &report.pool.layers {
        assert!(page.contains(&format!("<th scope=\"row\">{}</th>", layer.layer)), "{}", layer.layer);
    }
    for operation in
        ["narrow-w0.25", "conv-k3", "lana measure teacher/teacher.onnx budgets/0.5x/student/student.onnx"]
    {
        assert!(page.contains(operation), "{operation}");
    }
    let all = &report.students[0].1.candidates;
    let operation = &all[0].choices[3];
    let family = operation.split('-').next().unwrap();
    let same = |c: &&crate::Candidate| c.choices[3].split('-').next() == Some(family);
    let counted = format!(
        "{}: {family} in {} of {} selections",
        report.pool.layers[3].layer,
        all.iter().filter(same).count(),
        all.len()
    );
    assert!(page.contains(&counted), "{counted}");
    assert!(!page.contains("class=\"nothing\""));
    assert!(page.contains("checked with 20 random selections") && page.contains("4.2 % at worst"));
    // The most accurate finalist first.
    let rows = [">the teacher’s own<", ", taken<", "<td>80.10 % ± 1.31</td>", "<td>81.20 % ± 1.28</td>"];
    let places = rows.map(|row| page.find(row).unwrap_or_else(|| panic!("{row} is not shown")));
    assert!(places[1] < places[3] && places[3] < places[0] && places[0] < places[2], "{places:?}");
}

#[test]
fn what_is_missing_is_said() {
    let page = checked(&empty());
    assert!(page.contains("No budget is finished yet"));
    assert!(!page.contains("class=\"axis\""), "an empty chart was drawn");

    let parts: [fn(&mut Report); 9] = [
        |r| r.students.clear(),
        |r| r.controls.clear(),
        |r| r.scores = None,
        |r| r.table = None,
        |r| r.operations.clear(),
        |r| r.pool.layers.clear(),
        |r| r.pool.layers.truncate(1),
        |r| {
            r.students.iter_mut().for_each(|(s, c)| {
                c.candidates.clear();
                c.limit_ms = None;
                s.limit_ms = None;
                s.epochs.clear();
                s.choices.clear();
            })
        },
        |r| r.teacher_latency = None,
    ];
    for part in parts {
        let mut report = full();
        part(&mut report);
        checked(&report);
    }
}

#[test]
fn numbers_that_are_none_do_not_reach_the_page() {
    let mut report = full();
    report.teacher.val.top1 = f64::NAN;
    report.teacher.val.images = 0;
    if let Some(table) = &mut report.table {
        table.fixed_ms = f64::NAN;
        table.teacher_ms = f64::INFINITY;
        table.layers.values_mut().flat_map(|l| l.values_mut()).step_by(3).for_each(|p| p.ms = f64::NAN);
    }
    if let Some(scores) = &mut report.scores {
        scores.layers.values_mut().flat_map(|l| l.values_mut()).step_by(2).for_each(|s| s.kl.mean = f64::NAN);
    }
    for operation in report.operations.iter_mut().step_by(2) {
        operation.error = f64::NAN;
        operation.curve.iter_mut().for_each(|p| p.1 = f64::INFINITY);
    }
    for (student, candidates) in &mut report.students {
        if let Some(measured) = &mut student.measured {
            measured.ratio = 0.0;
            measured.median_ms = f64::NAN;
        }
        student.used = Some(f64::NAN);
        student.top1 = f64::NAN;
        student.predicted = f64::NAN;
        student.export_difference = f64::NAN;
        student.epochs[0].train_loss = f64::NAN;
        candidates.winner = 1000;
        candidates.correction = f64::NAN;
        candidates.candidates.iter_mut().step_by(2).for_each(|c| {
            c.predicted_ms = 0.0;
            c.top1 = f64::NAN;
        });
    }
    checked(&report);
}

#[test]
fn a_control_that_is_as_good_is_named() {
    let mut report = full();
    let page = checked(&report).replace('\u{a0}', " ");
    assert!(page.contains("as accurate as the student or better"));
    assert!(page.contains("<b>skip-only</b> (−0.40 ± "), "the rival is not named");
    assert!(page.contains("from nothing (another recipe)"));
    report.controls.retain(|control| control.control == "random");
    let page = checked(&report).replace('\u{a0}', " ");
    assert!(
        page.contains("The student beats the one control within the budget by more than two standard errors")
    );
    // So it is by accuracies alone, where the answers to each image are not known.
    report.controls.iter_mut().for_each(|control| control.difference = None);
    assert!(checked(&report).replace('\u{a0}', " ").contains("beats the one control"));
    // One that is over the budget is named where it is more accurate for certain.
    report.controls.iter_mut().for_each(|control| control.meets_budget = Some(false));
    let page = checked(&report).replace('\u{a0}', " ");
    assert!(page.contains("One control is over the budget.") && !page.contains("<b>random</b>"), "{page}");
    for control in &mut report.controls {
        control.difference = Some(crate::Difference { top1: 0.01, error: 0.004, paired: true });
    }
    let page = checked(&report).replace('\u{a0}', " ");
    assert!(page.contains("more accurate than the student by more than two standard errors: <b>random</b> (+1.00 ± 0.40 points at "));
    report.controls.clear();
    assert!(checked(&report).contains("lana finetune RUN --control skip-only"));
}

#[test]
fn every_round_and_every_deployment_is_held_against_its_prediction() {
    let mut report = full();
    let (student, candidates) = &mut report.students[0];
    let timing = |predicted_ms: f64, ms: f64| Timing {
        deployment: "cpu-onnxruntime-b1-t1-fp32".into(),
        limit_ms: Some(2.0),
        predicted_ms,
        measured: student.measured.map(|m| Measured { median_ms: ms, ..m }),
        teacher_ms: Some(4.0),
    };
    for (index, candidate) in candidates.candidates.iter_mut().enumerate() {
        candidate.others.push(timing(2.0, if index % 2 == 0 { 2.2 } else { 1.9 }));
    }
    let own = timing(2.0, 1.95);
    student.others.push(own);
    let page = checked(&report).replace('\u{a0}', " ");
    // 20 of round 1, 10 of round 2: half of them 10 % too slow, half 5 % too fast.
    for text in [
        "0.5x on cpu-onnxruntime-b64-t1-fp32",
        "<b>0.5x on cpu-onnxruntime-b1-t1-fp32</b>: wrong by 7.5 % on average, 10.0 % at worst; bias 2.5 %",
        "<th scope=\"row\">0.5x on cpu-onnxruntime-b1-t1-fp32</th><td>all</td><td>30</td><td>2.5 %</td><td>7.5 %</td>",
        "Latency on cpu-onnxruntime-b1-t1-fp32",
        "98.7 % of the budget used when measured, after 2 rounds",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn what_could_not_be_measured_is_said() {
    let mut report = full();
    for (student, candidates) in &mut report.students {
        (student.measured, student.teacher_measured) = (None, None);
        candidates.candidates.iter_mut().for_each(|c| c.measured = None);
    }
    report.teacher_latency = None;
    let page = checked(&report);
    for text in
        ["predicted, not measured", "predicted: measure it on its device", "Nothing could be measured"]
    {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn the_fixed_cost_has_a_bar_of_its_own_and_noise_a_mark() {
    let mut report = full();
    if let Some(table) = &mut report.table {
        table.layers.values_mut().filter_map(|l| l.get_mut("teacher")).for_each(|p| p.noisy = false);
    }
    assert!(!checked(&report).contains("The measurement scattered: little"));
    let table = report.table.as_mut().expect("a table");
    table.layers.get_mut("layer1.0").and_then(|l| l.get_mut("teacher")).expect("a price").noisy = true;
    let page = checked(&report).replace('\u{a0}', " ");
    assert!(page.contains("outside of layers") && page.contains("The measurement scattered: little"));
    let bars = page.matches("solid f-other").count();
    assert!(bars >= 2, "{bars}");
}

#[test]
fn names_cannot_break_the_page() {
    let bad = "<script>alert(\"1\" & '2')</script>";
    let mut report = full();
    for name in [&mut report.command, &mut report.config_toml, &mut report.created, &mut report.teacher.name]
    {
        *name = bad.into();
    }
    if let Some(table) = &mut report.table {
        table.device = bad.into();
        table.runtime = bad.into();
    }
    report.pool.pool = bad.into();
    for layer in &mut report.pool.layers {
        layer.layer = format!("{bad}{}", layer.layer);
        layer.stage = bad.into();
        layer.operations[0].name = bad.into();
    }
    for (student, candidates) in &mut report.students {
        student.budget = bad.into();
        candidates.budget = bad.into();
        student.choices[0].1 = bad.into();
    }
    checked(&report);
}

/// Writes the page of made-up data to the file that `LANA_REPORT_SAMPLE` names, for looking at it.
#[test]
fn sample_page() {
    if let Some(path) = std::env::var_os("LANA_REPORT_SAMPLE") {
        std::fs::write(path, checked(&full())).expect("the sample can be written");
    }
}
