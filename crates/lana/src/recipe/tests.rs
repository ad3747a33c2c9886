#![allow(clippy::unwrap_used)]

use lana_models::pool::Pools;
use lana_models::zoo::{self, ZooOptions};

use super::*;
use crate::context::pool_of;

#[test]
fn presets_are_valid_and_the_default_is_one() {
    for name in Recipe::presets() {
        let recipe = Recipe::named(name).unwrap();
        assert_eq!(toml::from_str::<Recipe>(&recipe.to_toml()).unwrap(), recipe, "{name}");
        // Checkpoints and records keep it as JSON, and are taken up if it is the same.
        let json = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe, "{name}");
    }
    assert_eq!(Recipe::named("finetune-short").unwrap(), Recipe::default());
}

#[test]
fn keys_are_put_over_the_recipe_that_is_named() {
    let cifar = Recipe::named("cifar").unwrap();
    let mine: Recipe = toml::from_str("recipe = \"cifar\"\nepochs = 5\nema = 0\nbatch = \"auto\"").unwrap();
    assert_eq!(mine, Recipe { epochs: 5, ema: 0.0, batch: BatchSize::Auto, ..cifar });
    let course = "distillation = { from = 4.0, to = 1, shape = \"cosine\" }";
    let changing: Recipe = toml::from_str(course).unwrap();
    assert_eq!(changing.distillation, Course::Changing { from: 4.0, to: 1.0, shape: Shape::Cosine });
    assert_eq!(toml::from_str::<Recipe>(&changing.to_toml()).unwrap(), changing);
    for (text, named) in [
        ("epoch = 3", "epoch"),
        ("batch = \"all\"", "batch"),
        ("recipe = \"nowhere\"", "nowhere"),
        ("recipe = 3", "recipe"),
        ("schedule = \"poly\"", "`schedule`"),
        ("epochs = -1", "`epochs`"),
        ("distillation = { from = 1.0 }", "`distillation`: expected a number, or { from"),
        ("[augment]\nscale = [0.5]", "`augment.scale`"),
        ("[augment]\nmixup = true", "`augment.mixup`"),
        ("[augment]\nmixup_alpha = 1", "`mixup_alpha`"),
    ] {
        let error = toml::from_str::<Recipe>(text).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn a_recipe_over_itself_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let [a, b] = ["a.toml", "b.toml"].map(|name| folder.path().join(name));
    std::fs::write(&a, format!("recipe = {b:?}\nepochs = 3")).unwrap();
    std::fs::write(&b, format!("recipe = {a:?}")).unwrap();
    let error = Recipe::named(a.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("put over itself"), "{error}");
    std::fs::write(&b, "recipe = \"cifar\"").unwrap();
    let expected = Recipe { epochs: 3, ..Recipe::named("cifar").unwrap() };
    assert_eq!(Recipe::named(a.to_str().unwrap()).unwrap(), expected);
}

#[test]
fn keys_of_the_augmentation_are_put_over_one_by_one() {
    let imagenet = Recipe::named("imagenet").unwrap();
    let mine: Recipe = toml::from_str("recipe = \"imagenet\"\n[augment]\nmixup = 0\n").unwrap();
    let augment = Augmentation { mixup: 0.0, ..imagenet.augment.clone() };
    assert_eq!(mine, Recipe { augment, ..imagenet.clone() });
    assert!(imagenet.augment.mixes() && imagenet.augment.scale == Some([0.08, 1.0]));
    assert_eq!(imagenet.mixture(0.0).smoothing, 0.1);
    for preset in ["finetune-short", "cifar"] {
        assert_eq!(Recipe::named(preset).unwrap().augment, Augmentation::crop_flip(4));
    }
}

#[test]
fn recipes_of_older_runs_are_read() {
    let older: Recipe = toml::from_str("label_smoothing = 0.1\ncrop_padding = 2\nepochs = 3").unwrap();
    let augment = Augmentation { smoothing: 0.1, ..Augmentation::crop_flip(2) };
    assert_eq!(older, Recipe { epochs: 3, augment: augment.clone(), ..Recipe::default() });
    assert!(!older.to_toml().contains("label_smoothing"));
    // As before, a crop out of a border takes the place of the preset's.
    let over: Recipe = toml::from_str("recipe = \"imagenet\"\ncrop_padding = 2").unwrap();
    assert_eq!(over.augment, augment);
    for (text, named) in [
        ("crop_padding = 4\n[augment]\nhflip = 0.0", "older words"),
        ("label_smoothing = 0.1\n[augment]\nsmoothing = 0.1", "older words"),
        ("crop_padding = -1", "crop_padding"),
        ("augment = 3", "augment"),
        ("[augment]\nmix_up = 0.2", "mix_up"),
        ("[augment]\nauto_augment = \"rand-q3\"", "rand-q3"),
    ] {
        let error = toml::from_str::<Recipe>(text).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn wrong_values_are_refused_by_name() {
    type Change = fn(&mut Recipe);
    let wrong: [(&str, Change); 9] = [
        ("epochs", |r| r.epochs = 0),
        ("batch", |r| r.batch = 0.into()),
        ("accumulate", |r| r.accumulate = 0),
        ("learning_rate", |r| r.learning_rate = f64::NAN),
        ("ema", |r| r.ema = 1.0),
        ("features", |r| r.features = Course::Changing { from: 1.0, to: -1.0, shape: Shape::Linear }),
        ("decay_rate", |r| r.decay_rate = 0.0),
        ("precision", |r| r.precision = Precision::Fp16),
        ("augment.mixup", |r| r.augment.mixup = -1.0),
    ];
    for (key, change) in wrong {
        let mut recipe = Recipe::default();
        change(&mut recipe);
        let error = recipe.validate("finetune.").unwrap_err();
        assert!(error.to_string().contains(&format!("`finetune.{key}`")), "{error}");
        assert_eq!(error.exit_status(), 2);
    }
}

#[test]
fn learning_rates_are_timms() {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} and {b}");
    // CosineLRScheduler(t_initial=10, warmup_t=2, warmup_lr_init=0.1, lr_min=0.01) for a rate of 1.
    let cosine = Recipe {
        epochs: 10,
        learning_rate: 1.0,
        warmup_epochs: 2.0,
        warmup_lr: 0.1,
        min_lr: 0.01,
        warmup_prefix: false,
        ..Recipe::default()
    };
    for (at, expected) in
        [(0.0, 0.1), (1.0, 0.55), (2.0, 0.905_463_412_215_598_8), (5.0, 0.505), (10.0, 0.01)]
    {
        near(cosine.rate(at, 128), expected);
    }
    let prefix = Recipe { warmup_prefix: true, ..cosine.clone() };
    for (at, expected) in [(2.0, 1.0), (6.0, 0.505), (10.0, 0.01)] {
        near(prefix.rate(at, 128), expected);
    }
    // StepLRScheduler(decay_t=2.4, decay_rate=0.97, warmup_t=3, warmup_lr_init=0.1).
    let step = Recipe { schedule: ScheduleKind::Step, warmup_epochs: 3.0, ..cosine.clone() };
    for (at, expected) in
        [(1.5, 0.55), (3.0, 0.97), (4.79, 0.97), (4.81, 0.97f64.powi(2)), (9.7, 0.97f64.powi(4))]
    {
        near(step.rate(at, 128), expected);
    }
    let scaled = Recipe { learning_rate_batch: Some(256), accumulate: 4, ..prefix };
    near(scaled.rate(2.0, 128), 2.0);
}

#[test]
fn weights_move_from_end_to_end() {
    let course = |shape| Course::Changing { from: 4.0, to: 1.0, shape };
    assert_eq!([0.0, 0.5, 1.0].map(|d| course(Shape::Linear).at(d)), [4.0, 2.5, 1.0]);
    assert_eq!([0.0, 0.5, 1.0, 2.0].map(|d| course(Shape::Cosine).at(d)), [4.0, 2.5, 1.0, 1.0]);
    assert!((course(Shape::Cosine).at(0.25) - 3.560_660_171_779_821).abs() < 1e-12);
}

#[test]
fn parts_are_frozen_by_patterns_of_names_and_of_their_beginnings() {
    let graph = zoo::build("resnet20_cifar", &ZooOptions::default()).unwrap();
    let frozen = |patterns: &[&str]| {
        let freeze = patterns.iter().map(|p| p.to_string()).collect();
        Recipe { freeze, ..Recipe::default() }.frozen(&graph)
    };
    assert!(frozen(&[]).unwrap().is_empty());
    let names = frozen(&["layer1", "*.bn1.weight"]).unwrap();
    assert!(names.iter().all(|n| n.starts_with("layer1.") || n.ends_with("bn1.weight")));
    assert!(
        names.iter().any(|n| n == "layer1.0.bn2.running_var")
            && names.iter().any(|n| n == "layer3.2.bn1.weight")
    );
    assert_eq!(frozen(&["layer1.*"]).unwrap(), frozen(&["layer1"]).unwrap());
    let error = frozen(&["stem"]).unwrap_err();
    assert!(error.to_string().contains("`stem`") && error.exit_status() == 2, "{error}");
}

#[test]
fn maps_are_compared_where_both_networks_have_them() {
    let build = |name: &str| zoo::build(name, &ZooOptions::default()).unwrap();
    let (small, large) = (build("resnet20_cifar"), build("resnet56_cifar"));
    let recipe = Recipe { features: 1.0.into(), ..Recipe::default() };
    let plain = Recipe { features: 0.0.into(), ..Recipe::default() };
    assert_eq!(plain.matched(&large, &large).unwrap(), Matched::default());
    let behind = |graph: &Graph, names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| graph.layer(name).unwrap().1.output).collect()
    };
    let of = |graph: &Graph, names: [&str; 3]| Matched {
        student: behind(graph, &names),
        teacher: behind(&large, &names),
    };
    assert_eq!(recipe.matched(&large, &large).unwrap(), of(&large, ["layer1.8", "layer2.8", "layer3.8"]));
    // A layer that is left out gives what the one before it gives.
    let pool = pool_of(&Pools::parse("identity", &[]).unwrap(), &large).unwrap();
    let place = pool.iter().find(|place| place.layer == "layer2.8").unwrap();
    let skipped = large.replace("layer2.8", &place.operations[0].1).unwrap();
    let ends = recipe.matched(&skipped, &large).unwrap();
    assert_eq!(ends.student[1], behind(&skipped, &["layer2.7"])[0]);
    let error = recipe.matched(&small, &large).unwrap_err().to_string();
    assert!(error.contains("layer1.8"), "{error}");
    let named = Recipe { feature_layers: vec!["layer?.2".into()], ..recipe.clone() };
    assert_eq!(named.matched(&small, &large).unwrap(), of(&small, ["layer1.2", "layer2.2", "layer3.2"]));
    let none = Recipe { feature_layers: vec!["layer9*".into()], ..recipe };
    assert!(none.matched(&large, &large).unwrap_err().to_string().contains("`feature_layers`"));
}

#[test]
fn what_is_dropped_is_what_the_recipe_says() {
    let graph = zoo::build("efficientnet_b0", &ZooOptions { drop_path_rate: 0.3, ..ZooOptions::default() });
    let graph = graph.unwrap();
    let rates = |graph: &Graph| -> Vec<f64> {
        let rate = |op: &Op| match op {
            Op::DropPath { rate } | Op::Dropout { rate } if *rate > 0.0 => Some(*rate),
            _ => None,
        };
        graph.nodes().iter().filter_map(|n| rate(&n.op)).collect()
    };
    assert!(rates(&Recipe::default().with_drops(&graph).unwrap()).is_empty());
    let dropping = Recipe { dropout: 0.2, drop_path: 0.1, ..Recipe::default() }.with_drops(&graph).unwrap();
    let (dropout, paths) = rates(&dropping).split_last().map(|(d, p)| (*d, p.to_vec())).unwrap();
    assert!(dropout == 0.2 && paths.len() > 5 && paths.is_sorted() && paths.iter().all(|p| *p < 0.1 + 1e-12));
    let names = |graph: &Graph| graph.parameters().into_iter().map(|p| p.name).collect::<Vec<_>>();
    assert_eq!(names(&dropping), names(&graph));
}
