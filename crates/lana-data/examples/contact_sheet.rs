//! Writes images of a data set side by side into one PNG:
//! `cargo run --release -p lana-data --example contact_sheet -- generated:shapes sheet.png`

use lana_data::{DataSpec, Dataset, DatasetOptions, Interpolation};

const COLUMNS: u32 = 10;
const ROWS: u32 = 6;
const ZOOM: u32 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(spec), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: contact_sheet DATA FILE.png".into());
    };
    let dataset = Dataset::open(&spec.parse::<DataSpec>()?, &DatasetOptions::default())?;
    let first = dataset.get(0)?.picture;
    let side = first.width.min(first.height) as u32;

    // Columns are classes: the first images of each.
    let mut columns = vec![Vec::new(); COLUMNS as usize];
    for (index, &label) in dataset.labels().iter().enumerate() {
        if let Some(column) = columns.get_mut(label as usize) {
            column.push(index);
        }
    }
    let cell = side * ZOOM + 4;
    let mut sheet = image::RgbImage::from_pixel(COLUMNS * cell, ROWS * cell, image::Rgb([255; 3]));
    for (column, images) in columns.iter().enumerate() {
        for (row, &index) in images.iter().take(ROWS as usize).enumerate() {
            let square = dataset
                .get(index)?
                .picture
                .center_square(side as usize, 1.0, Interpolation::Bicubic)?
                .into_owned();
            for y in 0..side * ZOOM {
                for x in 0..side * ZOOM {
                    let at = ((y / ZOOM * side + x / ZOOM) * 3) as usize;
                    let pixel = image::Rgb([square.pixels[at], square.pixels[at + 1], square.pixels[at + 2]]);
                    sheet.put_pixel(column as u32 * cell + 2 + x, row as u32 * cell + 2 + y, pixel);
                }
            }
        }
    }
    sheet.save(path)?;
    Ok(())
}
