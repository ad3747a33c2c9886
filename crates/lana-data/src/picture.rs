//! Pictures: from the bytes of a file to RGB pixels, and from any shape to the square that networks take.
//!
//! The kind of file is told from its first bytes, not from its name: ImageNet has a PNG named `.JPEG`. Orientation
//! tags (EXIF) are ignored, as torchvision ignores them. Resizing and cropping are PIL's: filters that widen when they shrink
//! (antialias), rows first, then columns, rounded to bytes in between.

use std::borrow::Cow;

use fast_image_resize as fir;
use image::ImageFormat;
use serde::{Deserialize, Serialize};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

/// An image of 8 bits per channel, of any width and height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Height x width x 3 bytes, rows from the top, red, green, blue interleaved (HWC).
    pub pixels: Vec<u8>,
}

/// How pixels are weighed when an image is resized. Both widen their window when shrinking (antialias), as PIL does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Triangle filter, torchvision's default.
    Bilinear,
    /// Catmull-Rom (a = -0.5), PIL's bicubic and timm's default.
    #[default]
    Bicubic,
}

/// File name extensions that are taken for images, lower case.
pub(crate) const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Decodes a JPEG, PNG or WebP; grey becomes RGB, transparency is dropped. The error is a reason without the file.
pub(crate) fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let format = match bytes {
        [] => return Err("the file is empty".into()),
        [0xff, 0xd8, ..] => return decode_jpeg(bytes),
        [0x89, b'P', b'N', b'G', ..] => ImageFormat::Png,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => ImageFormat::WebP,
        _ => return Err("neither a JPEG, a PNG nor a WebP".into()),
    };
    // Not a reader of our own type: the decoders are generic and would be compiled into this crate once more.
    let image =
        image::load_from_memory_with_format(bytes, format).map_err(|error| error.to_string())?.into_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Picture { width, height, pixels: image.into_raw() })
}

fn decode_jpeg(bytes: &[u8]) -> Result<Picture, String> {
    // The decoder paints what is missing grey and reports success; within the last row of blocks even its strict mode
    // does. A whole JPEG ends with the marker EOI, though rubbish may follow it.
    if !bytes.windows(2).rev().any(|pair| pair == [0xff, 0xd9]) {
        return Err("the JPEG is cut off".into());
    }
    let attempt = |strict| {
        let options =
            DecoderOptions::new_fast().set_strict_mode(strict).jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        let pixels = decoder.decode().map_err(|error| format!("{error:?}"))?;
        let info = decoder.info().ok_or("no image header")?;
        let (width, height) = (usize::from(info.width), usize::from(info.height));
        if width == 0 || height == 0 || pixels.len() != width * height * 3 {
            return Err(format!("{} bytes for {width}x{height} pixels", pixels.len()));
        }
        Ok(Picture { width, height, pixels })
    };
    attempt(true).or_else(|reason: String| {
        // Stray bytes between headers are harmless, common, and accepted by every other decoder.
        if reason.contains("[strict-mode]") { attempt(false) } else { Err(reason) }
    })
}

/// A rectangle of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Columns to its left.
    pub left: usize,
    /// Rows above it.
    pub top: usize,
    /// Its columns.
    pub width: usize,
    /// Its rows.
    pub height: usize,
}

impl Picture {
    /// Decodes a JPEG, PNG or WebP; grey becomes RGB, transparency is dropped.
    ///
    /// # Errors
    ///
    /// Why it does not decode, without the name of the file.
    pub fn decode(bytes: &[u8]) -> Result<Picture, String> {
        decode(bytes)
    }

    /// All of it.
    fn area(&self) -> Area {
        Area { left: 0, top: 0, width: self.width, height: self.height }
    }

    /// A part of it brought to `size` x `size` pixels, as PIL's `crop` and `resize`: what lies outside counts for nothing.
    ///
    /// # Errors
    ///
    /// If the area is empty or reaches over the edge.
    pub fn resized_crop(
        &self,
        area: Area,
        size: usize,
        interpolation: Interpolation,
    ) -> Result<Picture, String> {
        resize(self, area, [size; 2], interpolation)
    }

    /// The square of `size` x `size` pixels from the middle, after the shorter side was brought to `size / crop` pixels:
    /// torchvision's Resize and CenterCrop, as timm evaluates. An image that fits is left untouched.
    ///
    /// # Errors
    ///
    /// If the picture has no pixels.
    pub fn center_square(
        &self,
        size: usize,
        crop: f32,
        interpolation: Interpolation,
    ) -> Result<Cow<'_, Picture>, String> {
        if self.width == size && self.height == size && crop == 1.0 {
            return Ok(Cow::Borrowed(self));
        }
        // The decimal that was written: 0.8 in 32 bits is a little more, and 224 / 0.8 would not be 280.
        let crop: f64 = crop.to_string().parse().map_err(|_| format!("a crop of {crop}"))?;
        let short = ((size as f64 / crop) as usize).max(size);
        // In whole numbers, as torchvision: 500 x 375 pixels become 341 x 256.
        let other =
            |side: usize, shorter: usize| (short as u64 * side as u64 / shorter.max(1) as u64) as usize;
        let (width, height) = match self.width <= self.height {
            true => (short, other(self.height, self.width)),
            false => (other(self.width, self.height), short),
        };
        let scaled = match (width, height) == (self.width, self.height) {
            true => Cow::Borrowed(self),
            false => Cow::Owned(resize(self, self.area(), [width, height], interpolation)?),
        };
        let middle = |side: usize| ((side - size) as f64 / 2.0).round_ties_even() as usize;
        let (left, top) = (middle(width), middle(height));
        let rows = scaled.pixels.chunks_exact(width * 3).skip(top).take(size);
        let mut pixels = Vec::with_capacity(size * size * 3);
        rows.for_each(|row| pixels.extend_from_slice(&row[left * 3..(left + size) * 3]));
        Ok(Cow::Owned(Picture { width: size, height: size, pixels }))
    }
}

/// Brings a part of a picture to another width and height.
///
/// One direction at a time: the resizer would take columns first, PIL takes rows first, and what is cut off at 0 and 255 in
/// between differs at sharp edges.
fn resize(
    from: &Picture,
    area: Area,
    to: [usize; 2],
    interpolation: Interpolation,
) -> Result<Picture, String> {
    let filter = match interpolation {
        Interpolation::Bilinear => fir::FilterType::Bilinear,
        Interpolation::Bicubic => fir::FilterType::CatmullRom,
    };
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(filter)).use_alpha(false);
    // Typed images: the untyped ones would compile the resizer for all thirteen kinds of pixel.
    type Image<'a> = fir::images::TypedImage<'a, fir::pixels::U8x3>;
    type ImageRef<'a> = fir::images::TypedImageRef<'a, fir::pixels::U8x3>;
    type Part<'a> = fir::images::TypedCroppedImage<'a, ImageRef<'a>>;
    let text = |error: &dyn std::fmt::Display| error.to_string();

    let source =
        ImageRef::from_buffer(from.width as u32, from.height as u32, &from.pixels).map_err(|e| text(&e))?;
    let [left, top, wide, high] = [area.left, area.top, area.width, area.height].map(|side| side as u32);
    let part = Part::new(source, left, top, wide, high).map_err(|e| text(&e))?;
    let [width, height] = to;
    let mut resizer = fir::Resizer::new();
    let mut rows = vec![0; width * area.height * 3];
    let mut target = Image::from_buffer(width as u32, high, &mut rows).map_err(|e| text(&e))?;
    resizer.resize_typed(&part, &mut target, &options).map_err(|e| text(&e))?;
    if area.height == height {
        return Ok(Picture { width, height, pixels: rows });
    }
    let source = ImageRef::from_buffer(width as u32, high, &rows).map_err(|e| text(&e))?;
    let mut pixels = vec![0; width * height * 3];
    let mut target = Image::from_buffer(width as u32, height as u32, &mut pixels).map_err(|e| text(&e))?;
    resizer.resize_typed(&source, &mut target, &options).map_err(|e| text(&e))?;
    Ok(Picture { width, height, pixels })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn encode(image: image::DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn ramp() -> image::RgbImage {
        image::RgbImage::from_fn(48, 40, |x, y| image::Rgb([x as u8 * 5, y as u8 * 6, 128]))
    }

    #[test]
    fn every_format_gives_the_same_picture() {
        let truth = ramp().into_raw();
        for (format, most) in [(ImageFormat::Png, 0), (ImageFormat::WebP, 0), (ImageFormat::Jpeg, 40)] {
            let decoded = decode(&encode(ramp().into(), format)).unwrap();
            assert_eq!((decoded.width, decoded.height), (48, 40));
            let worst = decoded.pixels.iter().zip(&truth).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst <= Some(most), "{format:?}: {worst:?}");
        }
    }

    #[test]
    fn grey_becomes_rgb() {
        let grey = image::GrayImage::from_pixel(9, 9, image::Luma([77]));
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let decoded = decode(&encode(grey.clone().into(), format)).unwrap();
            assert!(decoded.pixels.iter().all(|&v| v.abs_diff(77) <= 1), "{format:?}");
            assert_eq!(decoded.pixels.len(), 9 * 9 * 3);
        }
    }

    #[test]
    fn broken_images_are_errors() {
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Jpeg] {
            let whole = encode(ramp().into(), format);
            for cut in [1, whole.len() / 2, whole.len() - 3] {
                // A PNG without its last checksum still has every pixel.
                if format == ImageFormat::Png && cut + 3 == whole.len() {
                    continue;
                }
                assert!(decode(&whole[..cut]).is_err(), "{format:?} cut to {cut} of {}", whole.len());
            }
        }
        assert!(decode(b"").unwrap_err().contains("empty"));
        assert!(decode(b"<html>404</html>").unwrap_err().contains("neither"));
    }

    #[test]
    fn squares_come_from_the_middle() {
        // Left and right quarters red, the middle green: a wide image keeps its middle.
        let wide = image::RgbImage::from_fn(80, 40, |x, _| {
            image::Rgb(if (20..60).contains(&x) { [0, 255, 0] } else { [255, 0, 0] })
        });
        let rgb = Picture { width: 80, height: 40, pixels: wide.into_raw() };
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
            let square = rgb.center_square(10, 0.8, interpolation).unwrap();
            assert!(square.pixels.chunks_exact(3).all(|pixel| pixel == [0, 255, 0]));
        }
        let same = Picture { width: 4, height: 4, pixels: (0..48).collect() };
        assert_eq!(same.center_square(4, 1.0, Interpolation::Bicubic).unwrap().pixels, same.pixels);
    }
}
