//! Compares decoding, resizing and the operations of RandAugment with PIL and timm; `cargo xtask parity --data` runs it on
//! what `xtask/parity/timm_data.py` wrote: `cargo run -p lana-data --example parity -- FOLDER`
#![allow(clippy::print_stdout)]

use std::{collections::BTreeMap, fs, path::Path, process::ExitCode};

use lana_data::{Area, Interpolation, Operation, Picture};
use serde::Deserialize;

/// Largest difference of a byte that is no difference.
const TOLERANCE: u8 = 2;

/// One thing that was done with a picture.
#[derive(Deserialize)]
struct Case {
    /// What it is listed under.
    kind: String,
    file: String,
    expected: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Deserialize)]
#[serde(tag = "what", rename_all = "lowercase")]
enum What {
    Decode,
    Evaluate { size: usize, crop: f32, interpolation: Interpolation },
    Crop { area: [usize; 4], size: usize, interpolation: Interpolation },
    Operation { operation: String, value: f64, fill: [u8; 3], interpolation: Interpolation },
}

/// The differences of one kind.
#[derive(Default)]
struct Row {
    cases: usize,
    values: usize,
    sum: u64,
    beyond: usize,
    most: u8,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: parity FOLDER")?;
    let folder = Path::new(&folder);
    let cases: Vec<Case> = serde_json::from_slice(&fs::read(folder.join("cases.json"))?)?;
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for case in &cases {
        let picture = Picture::decode(&fs::read(folder.join(&case.file))?)?;
        let ours = apply(&case.what, picture)?;
        let theirs = fs::read(folder.join(&case.expected))?;
        let differs = format!("{}: {} bytes, PIL has {}", case.kind, ours.pixels.len(), theirs.len());
        if ours.pixels.len() != theirs.len() {
            return Err(differs.into());
        }
        let row = rows.entry(case.kind.clone()).or_default();
        row.cases += 1;
        row.values += theirs.len();
        for (a, b) in ours.pixels.iter().zip(&theirs) {
            let difference = a.abs_diff(*b);
            row.sum += u64::from(difference);
            row.beyond += usize::from(difference > TOLERANCE);
            row.most = row.most.max(difference);
        }
    }
    println!("| what | cases | largest difference | mean | share beyond {TOLERANCE} of 255 |");
    println!("|---|---|---|---|---|");
    let mut failed = false;
    for (kind, row) in &rows {
        let mean = row.sum as f64 / row.values as f64;
        let beyond = row.beyond as f64 / row.values as f64;
        println!("| {kind} | {} | {} | {mean:.4} | {beyond:.6} |", row.cases, row.most);
        failed |= match kind {
            // PIL decodes JPEG by another library: half a level of 255 in the mean is allowed.
            kind if kind.contains("JPEG") => mean > 0.5 || beyond > 0.01,
            // In strips of a few pixels that are drawn out single values may differ by more.
            kind if kind.starts_with("resized crop") => mean > 0.1 || beyond > 1e-4,
            _ => row.most > TOLERANCE,
        };
    }
    println!("\n{}", if failed { "parity: different" } else { "parity: the same" });
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn apply(what: &What, mut picture: Picture) -> Result<Picture, Box<dyn std::error::Error>> {
    Ok(match what {
        What::Decode => picture,
        What::Evaluate { size, crop, interpolation } => {
            picture.center_square(*size, *crop, *interpolation)?.into_owned()
        }
        &What::Crop { area: [left, top, width, height], size, interpolation } => {
            picture.resized_crop(Area { left, top, width, height }, size, interpolation)?
        }
        What::Operation { operation, value, fill, interpolation } => {
            let operation = match operation.as_str() {
                "AutoContrast" => Operation::AutoContrast,
                "Equalize" => Operation::Equalize,
                "Invert" => Operation::Invert,
                "Rotate" => Operation::Rotate(*value),
                "Posterize" => Operation::Posterize(*value as u32),
                "Solarize" => Operation::Solarize(*value as u32),
                "SolarizeAdd" => Operation::SolarizeAdd(*value as u32),
                "Color" => Operation::Color(*value as f32),
                "Contrast" => Operation::Contrast(*value as f32),
                "Brightness" => Operation::Brightness(*value as f32),
                "Sharpness" => Operation::Sharpness(*value as f32),
                "ShearX" => Operation::ShearX(*value),
                "ShearY" => Operation::ShearY(*value),
                "TranslateXRel" => Operation::TranslateX(*value),
                "TranslateYRel" => Operation::TranslateY(*value),
                "Hue" => Operation::Hue(*value as u8),
                other => return Err(format!("there is no operation {other}").into()),
            };
            operation.apply(&mut picture, *fill, *interpolation);
            picture
        }
    })
}
