use lana::ZooOptions;

/// How a network of the zoo is to differ from its own description.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Network {
    /// Number of its classes [default: the network's own]
    #[arg(long, value_name = "N")]
    pub(crate) num_classes: Option<usize>,

    /// Height and width of its input in pixels [default: the network's own]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) resolution: Option<usize>,
}

impl Network {
    pub(crate) fn options(&self) -> ZooOptions {
        ZooOptions { num_classes: self.num_classes, resolution: self.resolution, ..ZooOptions::default() }
    }

    pub(crate) fn is_given(&self) -> bool {
        self.num_classes.is_some() || self.resolution.is_some()
    }
}
