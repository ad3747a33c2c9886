//! Drawing the images of `generated:shapes`.
//!
//! Ten shapes, each at a random place, size, rotation, stretch and colour, over a gradient, waves or clouds, among blobs,
//! lines and small scraps, often partly covered, always with noise. The class is the shape alone: colours and
//! backgrounds are drawn without regard to it. The largest closed figure is the one that counts.
//!
//! Every figure is a signed distance: negative inside, positive outside, in the figure's own units (after Inigo
//! Quilez, <https://iquilezles.org/articles/distfunctions2d/>). One distance per pixel gives an anti-aliased edge at any
//! image size. Coordinates run from -1 to 1 across the image. Only operations that IEEE 754 defines to the last bit are
//! used (no sin, no atan2 of the platform), so an image is the same everywhere.
//!
//! How hard it is was set by training: on the 10,000 images, six epochs bring a plain network of seven 3x3 convolutions
//! to 82 % (16 to 128 channels, two minutes of one core) and one of half the width to 54 %. Networks that do not see the
//! whole figure do much worse: five convolutions, with a receptive field of 21 pixels, stay near half.

use crate::random::Random;

/// The classes, in the order of their labels.
pub(crate) const NAMES: [&str; 10] =
    ["disc", "ring", "crescent", "triangle", "square", "arrow", "star", "cross", "heart", "spiral"];

type Colour = [f32; 3];
type Point = [f32; 2];

/// Draws the shape numbered `class` (see [`NAMES`]): `size` x `size` pixels, RGB interleaved.
pub(crate) fn draw(class: u32, random: &mut Random, size: usize) -> Vec<u8> {
    let back = Colours::background(random);
    let mut canvas = Canvas::new(size, &back, random);

    let front = Colours::contrasting(random, &back);
    for _ in 0..random.below(4) {
        canvas.distractor(random, &front);
    }

    let figure = Figure::random(class, random);
    if random.chance(0.25) {
        let shift = [random.between(0.03, 0.1), random.between(0.03, 0.1)];
        canvas.shadow(&figure, shift);
    }
    canvas.figure(&figure, &Fill::random(&front, random));

    if random.chance(0.35) {
        canvas.occluder(random, &figure);
    }
    canvas.finish(random)
}

// ---------------------------------------------------------------------------------------------------- colours

fn mix(a: Colour, b: Colour, t: f32) -> Colour {
    [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t]
}

/// Hue, saturation and value, each in 0..1.
fn hsv(hue: f32, saturation: f32, value: f32) -> Colour {
    [5.0, 3.0, 1.0].map(|n| {
        let k = n + hue * 6.0;
        let k = k - (k / 6.0).floor() * 6.0;
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

fn luma(c: Colour) -> f32 {
    0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2]
}

/// The two ends of a gradient.
struct Colours(Colour, Colour);

impl Colours {
    fn near(base: Point, value: f32, spread: f32, random: &mut Random) -> Colours {
        let [hue, saturation] = base;
        let mut one = || {
            hsv(
                hue + random.between(-spread, spread) * 0.5,
                (saturation + random.between(-spread, spread)).clamp(0.0, 0.95),
                (value + random.between(-spread, spread)).clamp(0.05, 1.0),
            )
        };
        Colours(one(), one())
    }

    fn background(random: &mut Random) -> Colours {
        let base = [random.unit(), random.between(0.1, 0.7)];
        Colours::near(base, random.between(0.2, 0.95), 0.25, random)
    }

    /// Colours that stand out from `back`, more or less.
    fn contrasting(random: &mut Random, back: &Colours) -> Colours {
        let ground = mix(back.0, back.1, 0.5);
        let mut colours = Colours(ground, ground);
        // The last try stands, whatever it is: a few images are hard because figure and ground are alike.
        for _ in 0..6 {
            let base = [random.unit(), random.between(0.3, 0.95)];
            colours = Colours::near(base, random.between(0.25, 1.0), 0.14, random);
            let middle = mix(colours.0, colours.1, 0.5);
            let hues: f32 = (0..3).map(|c| (middle[c] - ground[c]).abs()).sum();
            if (luma(middle) - luma(ground)).abs() + 0.25 * hues > 0.5 {
                break;
            }
        }
        colours
    }
}

// ---------------------------------------------------------------------------------------------------- geometry

/// A direction of length 1, uniform (rejection instead of sine and cosine).
fn direction(random: &mut Random) -> Point {
    loop {
        let (x, y) = (random.between(-1.0, 1.0), random.between(-1.0, 1.0));
        let square = x * x + y * y;
        if (0.01..=1.0).contains(&square) {
            let length = square.sqrt();
            return [x / length, y / length];
        }
    }
}

/// A direction at most 66 degrees from upright.
fn tilt(random: &mut Random) -> Point {
    loop {
        let axis = direction(random);
        if axis[0] >= 0.4 {
            return axis;
        }
    }
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// The angle of (x, y) in turns, 0..1 (a polynomial after Abramowitz and Stegun 4.4.49, error below 0.00002).
fn turn(x: f32, y: f32) -> f32 {
    let (ax, ay) = (x.abs(), y.abs());
    let z = ax.min(ay) / ax.max(ay).max(1e-9);
    let s = z * z;
    let eighth = z * (0.999866 + s * (-0.3302995 + s * (0.180141 + s * (-0.085133 + s * 0.0208351))))
        / std::f32::consts::TAU;
    let quarter = if ay > ax { 0.25 - eighth } else { eighth };
    let half = if x < 0.0 { 0.5 - quarter } else { quarter };
    if y < 0.0 { 1.0 - half } else { half }
}

/// A smooth periodic wave between 0 and 1 with period 1.
fn wave(x: f32) -> f32 {
    let t = x - x.floor();
    let tent = 1.0 - (2.0 * t - 1.0).abs();
    tent * tent * (3.0 - 2.0 * tent)
}

/// The figure that gives the class: where it lies and how it is proportioned.
struct Figure {
    class: u32,
    centre: Point,
    /// Half its extent, in units of half the image.
    radius: f32,
    axis: Point,
    stretch: f32,
    /// Free proportion of each shape, 0..1: the width of the ring, the depth of the star's notches…
    form: f32,
    /// How much its corners are rounded.
    round: f32,
}

impl Figure {
    fn random(class: u32, random: &mut Random) -> Figure {
        let radius = random.between(0.55, 0.86);
        // A little of it may leave the image.
        let room = 1.0 - 0.86 * radius;
        Figure {
            class,
            radius,
            centre: [random.between(-room, room), random.between(-room, room)],
            axis: tilt(random),
            stretch: random.between(0.9, 1.11),
            form: random.unit(),
            round: random.between(0.0, 0.07),
        }
    }

    /// Image coordinates to the figure's own.
    fn local(&self, x: f32, y: f32) -> Point {
        let (x, y) = ((x - self.centre[0]) / self.radius, (y - self.centre[1]) / self.radius);
        let [c, s] = self.axis;
        [(c * x + s * y) * self.stretch, (c * y - s * x) / self.stretch]
    }

    /// The signed distance from the edge, in units of the radius.
    fn distance(&self, [x, y]: Point) -> f32 {
        let (ax, ay) = (x.abs(), y.abs());
        let form = self.form;
        let corners = match self.class {
            0 => return length(x, y) - 0.86,
            1 => {
                let half_width = 0.11 + 0.12 * form;
                return (length(x, y) - (0.95 - half_width)).abs() - half_width;
            }
            2 => (length(x, y) - 0.95).max(0.86 - 0.1 * form - length(x - 0.4 - 0.15 * form, y)),
            3 => (ax * 0.866_025_4 + y * 0.5).max(-y) - 0.53,
            4 => ax.max(ay) - 0.76,
            5 => arrow(ax, y, 0.18 + 0.12 * form),
            6 => star(x, y, 0.36 + 0.12 * form),
            7 => {
                let arm = 0.22 + 0.14 * form;
                (ax - 0.92).max(ay - arm).min((ax - arm).max(ay - 0.92))
            }
            8 => heart(x, y),
            _ => return spiral(x, y, 1.6 + 0.5 * form),
        };
        corners - self.round
    }
}

/// Pointing to positive y; `ax` is the distance from its axis, `shaft` half the width of its shaft.
fn arrow(ax: f32, y: f32, shaft: f32) -> f32 {
    let head = (0.05 - y).max(ax * 0.810_664 + (y - 0.95) * 0.585_49);
    let shaft = (ax - shaft).max((y + 0.4).abs() - 0.5);
    head.min(shaft)
}

/// Five points; `inner` is the radius of the notches, as a share of that of the points.
fn star(x: f32, y: f32, inner: f32) -> f32 {
    // cos and sin of 36 degrees: two reflections fold the star into half a point.
    let (c, s) = (0.809_017_f32, 0.587_785_25_f32);
    let (mut x, mut y) = (x.abs(), y);
    let fold = 2.0 * (c * x - s * y).max(0.0);
    (x, y) = (x - fold * c, y + fold * s);
    let fold = 2.0 * (-c * x - s * y).max(0.0);
    (x, y) = (x + fold * c, y + fold * s);
    (x, y) = (x.abs(), y - 1.0);
    let edge = [inner * s, inner * c - 1.0];
    let along = ((x * edge[0] + y * edge[1]) / (edge[0] * edge[0] + edge[1] * edge[1])).clamp(0.0, 1.0);
    let distance = length(x - edge[0] * along, y - edge[1] * along);
    if y * edge[0] > x * edge[1] { distance } else { -distance }
}

fn heart(x: f32, y: f32) -> f32 {
    const SCALE: f32 = 0.6;
    let (x, y) = (x.abs() * SCALE, 0.54 - y * SCALE);
    let distance = if x + y > 1.0 {
        length(x - 0.25, y - 0.75) - 0.353_553_4
    } else {
        let diagonal = 0.5 * (x + y).max(0.0);
        let nearest = length(x, y - 1.0).min(length(x - diagonal, y - diagonal));
        if x > y { nearest } else { -nearest }
    };
    distance / SCALE
}

/// An Archimedean spiral of constant pitch.
fn spiral(x: f32, y: f32, turns: f32) -> f32 {
    let pitch = 0.9 / turns;
    let (radius, angle) = (length(x, y), turn(x, y));
    // The winding nearest to this radius, among those that exist.
    let winding = (radius / pitch - angle).round().clamp(0.0, (turns - angle).floor());
    (radius - (angle + winding) * pitch).abs() - 0.2 * pitch - 0.02
}

/// How the figure is painted: a gradient, perhaps striped, perhaps with an outline.
struct Fill {
    colours: Colours,
    along: Point,
    stripes: f32,
    frequency: f32,
    outline: f32,
    outline_colour: Colour,
}

impl Fill {
    fn random(front: &Colours, random: &mut Random) -> Fill {
        let darker = random.chance(0.6);
        let towards = if darker { [0.05; 3] } else { [1.0; 3] };
        Fill {
            colours: Colours(front.0, front.1),
            along: direction(random),
            stripes: if random.chance(0.2) { random.between(0.15, 0.4) } else { 0.0 },
            frequency: random.between(1.2, 2.4),
            outline: if random.chance(0.25) { random.between(0.08, 0.15) } else { 0.0 },
            outline_colour: mix(front.0, towards, random.between(0.4, 0.8)),
        }
    }

    fn at(&self, local: Point, distance: f32) -> Colour {
        if distance > -self.outline {
            return self.outline_colour;
        }
        let along = local[0] * self.along[0] + local[1] * self.along[1];
        let colour = mix(self.colours.0, self.colours.1, (0.5 + 0.5 * along).clamp(0.0, 1.0));
        if self.stripes > 0.0 {
            mix(colour, [1.0; 3], self.stripes * wave(along * self.frequency))
        } else {
            colour
        }
    }
}

// ---------------------------------------------------------------------------------------------------- canvas

struct Canvas {
    size: usize,
    pixels: Vec<Colour>,
}

impl Canvas {
    fn new(size: usize, back: &Colours, random: &mut Random) -> Canvas {
        let along = direction(random);
        let centre = [random.between(-1.0, 1.0), random.between(-1.0, 1.0)];
        let frequency = random.between(0.7, 2.2);
        let phase = random.unit();
        let kind = random.below(4);
        let clouds = Clouds::random(random);
        let strength = random.between(0.02, 0.13);
        let scale = 2.0 / size as f32;
        let mut pixels = Vec::with_capacity(size * size);
        for row in 0..size {
            let y = (row as f32 + 0.5) * scale - 1.0;
            for column in 0..size {
                let x = (column as f32 + 0.5) * scale - 1.0;
                let cloud = clouds.at(x, y);
                let projected = x * along[0] + y * along[1];
                let t = match kind {
                    0 => (0.5 + 0.45 * projected).clamp(0.0, 1.0),
                    1 => (0.6 * length(x - centre[0], y - centre[1])).min(1.0),
                    2 => wave(projected * frequency + phase + 0.3 * cloud),
                    _ => 0.5 + 0.5 * cloud,
                };
                let colour = mix(back.0, back.1, t);
                pixels.push(colour.map(|v| v + strength * cloud));
            }
        }
        Canvas { size, pixels }
    }

    /// Paints every pixel within `extent` of `centre` whose distance says so. `paint` gives the distance from the edge
    /// in image units (negative inside), and the colour with its opacity.
    fn paint(&mut self, centre: Point, extent: f32, paint: impl Fn(f32, f32) -> (f32, Colour, f32)) {
        let half = self.size as f32 / 2.0;
        let (pixel, unit) = (1.0 / half, half);
        let range = |middle: f32| {
            let low = ((middle - extent + 1.0) * half - 1.0).max(0.0) as usize;
            let high = ((middle + extent + 1.0) * half + 2.0).max(0.0) as usize;
            low..high.min(self.size)
        };
        let columns = range(centre[0]);
        for row in range(centre[1]) {
            let y = (row as f32 + 0.5) * pixel - 1.0;
            for column in columns.clone() {
                let x = (column as f32 + 0.5) * pixel - 1.0;
                let (distance, colour, opacity) = paint(x, y);
                let cover = (0.5 - distance * unit).clamp(0.0, 1.0) * opacity;
                if cover > 0.0 {
                    let under = &mut self.pixels[row * self.size + column];
                    *under = mix(*under, colour, cover);
                }
            }
        }
    }

    fn figure(&mut self, figure: &Figure, fill: &Fill) {
        self.paint(figure.centre, figure.radius * 1.3, |x, y| {
            let local = figure.local(x, y);
            let distance = figure.distance(local);
            (distance * figure.radius, fill.at(local, distance), 1.0)
        });
    }

    fn shadow(&mut self, figure: &Figure, shift: Point) {
        let centre = [figure.centre[0] + shift[0], figure.centre[1] + shift[1]];
        self.paint(centre, figure.radius * 1.3, |x, y| {
            let distance = figure.distance(figure.local(x - shift[0], y - shift[1]));
            // A wide edge makes the shadow soft.
            (distance * figure.radius * 0.4, [0.02, 0.02, 0.06], 0.35)
        });
    }

    fn line(&mut self, from: Point, along: Point, reach: f32, width: f32, colour: Colour, opacity: f32) {
        let middle = [from[0] + along[0] * reach * 0.5, from[1] + along[1] * reach * 0.5];
        self.paint(middle, reach * 0.5 + width, |x, y| {
            let (x, y) = (x - from[0], y - from[1]);
            let t = (x * along[0] + y * along[1]).clamp(0.0, reach);
            (length(x - along[0] * t, y - along[1] * t) - width, colour, opacity)
        });
    }

    fn blob(&mut self, centre: Point, radius: f32, colour: Colour, opacity: f32) {
        self.paint(centre, radius, |x, y| (length(x - centre[0], y - centre[1]) - radius, colour, opacity));
    }

    /// A line, a blob or a small figure that means nothing, now and then in the colour of the real one.
    fn distractor(&mut self, random: &mut Random, front: &Colours) {
        let centre = [random.between(-1.0, 1.0), random.between(-1.0, 1.0)];
        let own = hsv(random.unit(), random.between(0.2, 0.9), random.between(0.2, 1.0));
        let colour = if random.chance(0.3) { front.0 } else { own };
        let opacity = random.between(0.5, 1.0);
        match random.below(3) {
            0 => {
                let (along, reach) = (direction(random), random.between(0.3, 1.4));
                self.line(centre, along, reach, random.between(0.02, 0.06), colour, opacity);
            }
            1 => self.blob(centre, random.between(0.06, 0.2), colour, opacity),
            _ => {
                let scrap = Figure {
                    radius: random.between(0.1, 0.18),
                    centre,
                    ..Figure::random(random.below(NAMES.len() as u32 - 1), random)
                };
                self.paint(centre, scrap.radius * 1.3, |x, y| {
                    (scrap.distance(scrap.local(x, y)) * scrap.radius, colour, opacity)
                });
            }
        }
    }

    /// Something in front of the figure's rim.
    fn occluder(&mut self, random: &mut Random, figure: &Figure) {
        let colour = hsv(random.unit(), random.between(0.1, 0.8), random.between(0.15, 1.0));
        let [dx, dy] = direction(random);
        let off = figure.radius * random.between(0.3, 0.9);
        let at = [figure.centre[0] + dx * off, figure.centre[1] + dy * off];
        if random.chance(0.5) {
            self.blob(at, figure.radius * random.between(0.2, 0.42), colour, 1.0);
        } else {
            let width = figure.radius * random.between(0.08, 0.2);
            // Across the direction from the centre, so that it cuts the rim and seldom the middle.
            let start = [at[0] + dy * 1.2, at[1] - dx * 1.2];
            self.line(start, [-dy, dx], 2.4, width, colour, 1.0);
        }
    }

    /// Light, noise, and eight bits.
    fn finish(self, random: &mut Random) -> Vec<u8> {
        let contrast = random.between(0.75, 1.1);
        let light = random.between(-0.08, 0.08);
        let noise = random.between(0.01, 0.06);
        let values = self.size * self.size * 3;
        // The sum of two bytes has mean 255 and standard deviation 104.5: near enough to normal, and cheap.
        let mut bytes = vec![0; 2 * values];
        random.fill(&mut bytes);
        let noise = noise / 104.5;
        let mut out = Vec::with_capacity(values);
        for (pixel, noises) in self.pixels.iter().zip(bytes.chunks_exact(6)) {
            for (value, pair) in pixel.iter().zip(noises.chunks_exact(2)) {
                let jitter = (i32::from(pair[0]) + i32::from(pair[1]) - 255) as f32 * noise;
                let value = (value - 0.5) * contrast + 0.5 + light + jitter;
                // A float cast saturates, which does the clamping.
                out.push((value * 255.0 + 0.5) as u8);
            }
        }
        out
    }
}

/// Smooth noise between -1 and 1: random values on a grid, blended.
struct Clouds {
    values: [[f32; Clouds::CELLS + 2]; Clouds::CELLS + 2],
}

impl Clouds {
    const CELLS: usize = 5;

    fn random(random: &mut Random) -> Clouds {
        let mut values = [[0.0; Clouds::CELLS + 2]; Clouds::CELLS + 2];
        values.iter_mut().flatten().for_each(|value| *value = random.between(-1.0, 1.0));
        Clouds { values }
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        let place = |v: f32| {
            let scaled = (v + 1.0) * 0.5 * Clouds::CELLS as f32;
            let cell = scaled as usize;
            let t = scaled - cell as f32;
            (cell.min(Clouds::CELLS), t * t * (3.0 - 2.0 * t))
        };
        let ((column, tx), (row, ty)) = (place(x), place(y));
        let blend = |row: usize| {
            let (a, b) = (self.values[row][column], self.values[row][column + 1]);
            a + (b - a) * tx
        };
        let (a, b) = (blend(row), blend(row + 1));
        a + (b - a) * ty
    }
}
