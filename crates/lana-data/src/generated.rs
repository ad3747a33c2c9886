//! `generated:shapes` as a data set: which class an image has, and the seed it is drawn from.

use crate::{
    error::Error,
    picture::Picture,
    random::{Purpose, Random},
    shapes,
    source::Source,
    spec::{GeneratedSpec, Split},
};

/// Images drawn when they are asked for.
pub(crate) struct Generated {
    spec: GeneratedSpec,
    size: usize,
    labels: Vec<u32>,
}

impl Generated {
    pub(crate) fn new(spec: &GeneratedSpec, size: usize) -> Generated {
        let classes = shapes::NAMES.len();
        let mut labels = Vec::with_capacity(spec.images + classes);
        // Each ten images are the ten classes in random order: balanced at any number of images, and the label of an
        // image does not depend on how many there are.
        for ten in 0..spec.images.div_ceil(classes) {
            let mut block: Vec<u32> = (0..classes as u32).collect();
            Random::new(Purpose::Classes, [spec.seed, stream(spec.split), ten as u64])
                .draw_to_front(&mut block, classes);
            labels.extend(block);
        }
        labels.truncate(spec.images);
        Generated { spec: spec.clone(), size, labels }
    }
}

fn stream(split: Split) -> u64 {
    match split {
        Split::Train => 0,
        Split::Val => 1,
    }
}

impl Source for Generated {
    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn read(&self, index: usize) -> Result<Picture, Error> {
        let place = [self.spec.seed, stream(self.spec.split), index as u64];
        let mut random = Random::new(Purpose::Draw, place);
        let pixels = shapes::draw(self.labels[index], &mut random, self.size);
        Ok(Picture { width: self.size, height: self.size, pixels })
    }

    fn name(&self, index: usize) -> String {
        format!("generated:shapes image {index}")
    }

    fn decoded_bytes(&self, _most: u64) -> u64 {
        (self.labels.len() * 3 * self.size * self.size) as u64
    }

    fn classes(&self) -> usize {
        shapes::NAMES.len()
    }

    fn class_names(&self) -> Option<Vec<String>> {
        Some(shapes::NAMES.map(String::from).to_vec())
    }
}
