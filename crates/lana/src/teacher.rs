//! Where a teacher comes from: a network of the zoo by its name, or an ONNX file.
//!
//! A file brings its weights, its input and its classes. What it does not bring: which of its regions can be replaced (found by
//! [`lana_graph::discover`], changed by `[layers]`), how images become its input (`[preprocessing]`), and logits where it ends
//! with a softmax, which is left out: distillation and every loss here want what stands in front of it.

use std::path::Path;

use lana_graph::{Graph, LayerRules, Op, Shape, Value, Weights, discover, group};
use lana_models::zoo::{self, Preprocessing};

use crate::{Config, Error, Result};

/// A teacher before it is taken in.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) graph: Graph,
    /// Those that a file brings.
    pub(crate) weights: Option<Weights>,
    pub(crate) preprocessing: Preprocessing,
}

/// Side from which on images are resized a little larger than the input and cut, where nothing else is said.
const LARGE: usize = 128;
/// The share of them that is then kept, as for most networks that were trained on ImageNet.
const CROP: f32 = 0.875;

/// Whether the name of a network is that of an ONNX file.
pub(crate) fn is_file(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// What a network is called: its name, or that of its file.
pub(crate) fn title(name: &str) -> String {
    let stem = Path::new(name).file_stem().filter(|_| is_file(name));
    stem.map_or_else(|| name.to_string(), |stem| stem.to_string_lossy().into_owned())
}

/// Builds the teacher that a configuration names, or reads it.
pub(crate) fn read(config: &Config) -> Result<Origin> {
    if !is_file(&config.teacher) {
        if Path::new(&config.teacher).exists() {
            return Err(Error::input(
                format!("{}: networks are read from files that end in .onnx", config.teacher),
                "export the network as ONNX, rename the file, or name a network of `lana zoo`",
            ));
        }
        let graph = zoo::build(&config.teacher, &config.zoo_options())?;
        let graph = with_layers(&graph, &config.layers)?;
        let preprocessing = preprocessing(config, &graph)?;
        return Ok(Origin { graph, weights: None, preprocessing });
    }
    let name = &config.teacher;
    let own = [
        ("weights", config.weights.is_some()),
        ("num-classes", config.num_classes.is_some()),
        ("resolution", config.resolution.is_some()),
    ];
    if let Some((option, _)) = own.iter().find(|(_, given)| *given) {
        return Err(Error::input(
            format!("teacher {name}: --{option} is given, but an ONNX file has its own"),
            format!("leave out --{option}, or name a network of `lana zoo` instead of the file"),
        ));
    }
    let (graph, weights) = import(name)?;
    let graph = with_layers(&graph, &config.layers).map_err(|error| in_file(name, error))?;
    let preprocessing = preprocessing(config, &graph)?;
    Ok(Origin { graph, weights: Some(weights), preprocessing })
}

/// An error about the network of a file, with the path of the file in place of the network's name.
fn in_file(name: &str, error: Error) -> Error {
    match error {
        Error::Graph(lana_graph::Error::Graph { reason, .. }) => {
            Error::Graph(lana_graph::Error::File { path: name.into(), reason })
        }
        other => other,
    }
}

/// The graph with its layers by `rules`: its own, if it says what they are and nothing is changed by name. Where these are not single
/// blocks, as in the files of a run, they stay what they are.
pub(crate) fn with_layers(graph: &Graph, rules: &LayerRules) -> Result<Graph> {
    let is_of_blocks = || discover(graph, &LayerRules::alone()).is_ok_and(|b| b.layers() == graph.layers());
    let graph = match graph.layers().is_empty() || rules.name_any() {
        true => discover(graph, rules)?,
        false if is_of_blocks() => group(graph, rules.group)?,
        false => graph.clone(),
    };
    // Their operations are files under their names.
    match graph.layers().iter().find(|layer| !is_file_name(&layer.name)) {
        Some(layer) => Err(Error::input(
            format!("the layer {:?} cannot be a folder's name", layer.name),
            "give the module or the node that it is called after another name, or leave it out by `layers.exclude`",
        )),
        None => Ok(graph),
    }
}

/// Whether a folder can have this name anywhere.
fn is_file_name(name: &str) -> bool {
    let is_plain =
        |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.chars().all(is_plain)
}

/// Reads the file of a classifier, up to its logits.
pub(crate) fn import(name: &str) -> Result<(Graph, Weights)> {
    if !Path::new(name).is_file() {
        return Err(Error::input(format!("{name}: there is no such file"), "check the path"));
    }
    let (graph, weights) = lana_onnx::import_file(Path::new(name))?;
    // Most files call their network "main_graph".
    let graph = logits(graph).and_then(|graph| named(&graph, title(name)));
    let graph = graph.map_err(|error| in_file(name, error))?;
    let dims = graph.input_shape().dims();
    let is_classifier =
        matches!(dims, [3, height, width] if height == width) && graph.output_shape().dims().len() == 1;
    if !is_classifier {
        return Err(Error::input(
            format!("{name} makes {} of {}", graph.output_shape(), graph.input_shape()),
            "export a classifier: one that makes a vector of classes of a square image with three channels, 3×N×N",
        ));
    }
    Ok((graph, weights))
}

/// How images become the input of a configuration's teacher.
pub(crate) fn preprocessing(config: &Config, graph: &Graph) -> Result<Preprocessing> {
    let own = match is_file(&config.teacher) {
        false => zoo::entry(&config.teacher)?.preprocessing,
        true => of_file(graph.input_shape()),
    };
    Ok(config.preprocessing.over(own))
}

/// How images become the input of an ONNX file, of which nothing is known.
pub(crate) fn of_file(input: &Shape) -> Preprocessing {
    match input.dims().get(1) {
        Some(side) if *side >= LARGE => Preprocessing::IMAGENET.with_crop(CROP),
        _ => Preprocessing::IMAGENET,
    }
}

/// The graph under another name.
fn named(graph: &Graph, name: String) -> Result<Graph> {
    let (input, nodes) = (graph.input_shape().clone(), graph.nodes().to_vec());
    Ok(Graph::new(name, input, nodes, graph.output(), graph.layers().to_vec())?)
}

/// The graph up to its logits.
fn logits(graph: Graph) -> Result<Graph> {
    let Some(removed) = softmax_at_the_end(&graph) else { return Ok(graph) };
    let input = graph.nodes()[removed].inputs[0];
    // The softmax is read by nobody else, or by a change of dimensions alone: only the last nodes move.
    let moved = |value: Value| match value.index() {
        at if at <= removed => value,
        at if at == removed + 1 => input,
        at => Value::of_node(at - 2),
    };
    let mut nodes = graph.nodes().to_vec();
    nodes.remove(removed);
    nodes[removed..].iter_mut().flat_map(|node| &mut node.inputs).for_each(|value| *value = moved(*value));
    let (output, layers) = (moved(graph.output()), graph.layers().to_vec());
    Ok(Graph::new(graph.name(), graph.input_shape().clone(), nodes, output, layers)?)
}

/// The node that makes probabilities, or their logarithms, of all logits, if nothing follows but other dimensions.
fn softmax_at_the_end(graph: &Graph) -> Option<usize> {
    let mut value = graph.output();
    loop {
        let node = value.node()?;
        let (op, input) = (&graph.nodes()[node].op, graph.nodes()[node].inputs.first().copied()?);
        match op {
            Op::Softmax { axis } | Op::LogSoftmax { axis } => {
                let shape = graph.shape(value);
                return (shape.dims()[*axis] == shape.elements()).then_some(node);
            }
            Op::Reshape { .. } | Op::Flatten => value = input,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use lana_graph::{GraphBuilder, LayerRules};
    use lana_models::{init, zoo::ZooOptions};
    use lana_onnx::ExportOptions;
    use tempfile::TempDir;

    use super::*;

    /// Writes a network as an ONNX file without what lana alone puts there, as others would.
    fn written(folder: &TempDir, graph: &Graph) -> Config {
        let path = folder.path().join("model.onnx");
        let weights = init::random(graph, 1);
        let (deployed, weights) = lana_graph::deploy(graph, &weights).unwrap();
        let bytes = lana_onnx::export(&deployed, &weights, &ExportOptions::default()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        Config { teacher: path.display().to_string(), ..Config::default() }
    }

    #[test]
    fn names_that_no_folder_can_have_are_refused() {
        for (name, is_good) in [
            ("layer1.0-2", true),
            ("encoder.layer_3.été", true),
            ("../out", false),
            ("a/b", false),
            (".", false),
            ("", false),
            ("a\nb", false),
            ("a:b", false),
        ] {
            assert_eq!(is_file_name(name), is_good, "{name:?}");
        }
        assert!(!is_file_name(&"x".repeat(201)));
        let folder = TempDir::new().unwrap();
        let config = Config { teacher: folder.path().display().to_string(), ..Config::default() };
        assert!(read(&config).unwrap_err().to_string().contains(".onnx"));
    }

    #[test]
    fn a_file_is_a_teacher_with_its_own_weights() {
        let folder = TempDir::new().unwrap();
        let graph = zoo::build("resnet20_cifar", &ZooOptions::default()).unwrap();
        let config = written(&folder, &graph);
        let origin = read(&config).unwrap();
        let names = |graph: &Graph| graph.layers().iter().map(|l| l.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&origin.graph), names(&group(&graph, 3).unwrap()));
        assert_eq!(origin.graph.name(), "model");
        origin.weights.unwrap().check(&origin.graph).unwrap();
        assert_eq!(origin.preprocessing, Preprocessing::IMAGENET);
        // Rules hold for what is known already, too.
        let rules = LayerRules { exclude: vec!["layer1.*".into()], ..LayerRules::alone() };
        let fewer = read(&Config { layers: rules.clone(), ..config.clone() }).unwrap();
        assert_eq!(fewer.graph.layers().len(), graph.layers().len() - 3);
        let zoo =
            read(&Config { teacher: "resnet20_cifar".into(), layers: rules, ..Config::default() }).unwrap();
        assert_eq!(zoo.graph.layers().len(), graph.layers().len() - 3);
        let error = read(&Config { num_classes: Some(10), ..config }).unwrap_err();
        assert!(error.to_string().contains("--num-classes"), "{error}");
    }

    #[test]
    fn what_is_no_classifier_of_images_is_refused_and_a_softmax_is_left_out() {
        let folder = TempDir::new().unwrap();
        let mut b = GraphBuilder::new("net", Shape::image(3, 8, 8));
        let mut x = b.input();
        for name in ["stem", "middle"] {
            x = b.conv(name, x, 8, 3, 1, 1).unwrap();
        }
        let map = x;
        let x = b.node("pool", Op::GlobalAveragePool, &[x]).unwrap();
        let x = b.node("flatten", Op::Flatten, &[x]).unwrap();
        let x = b.node("fc", Op::Linear { out_features: 5, bias: true }, &[x]).unwrap();
        let x = b.node("softmax", Op::Softmax { axis: 0 }, &[x]).unwrap();
        let whole = b.finish(x).unwrap();
        // Logarithms, or a map of one pixel that is a vector only afterwards, are no different.
        let ended = |ops: [Op; 3]| {
            let mut nodes = whole.nodes()[..3].to_vec();
            for (at, op) in ops.into_iter().enumerate() {
                let inputs = vec![Value::of_node(nodes.len() - 1)];
                nodes.push(lana_graph::Node { name: format!("end{at}"), op, inputs });
            }
            let output = Value::of_node(nodes.len() - 1);
            Graph::new("ended", whole.input_shape().clone(), nodes, output, Vec::new()).unwrap()
        };
        let classes = Op::Linear { out_features: 5, bias: true };
        let others = [
            ended([Op::Flatten, classes, Op::LogSoftmax { axis: 0 }]),
            ended([Op::Scale { factor: 2.0 }, Op::Softmax { axis: 0 }, Op::Reshape { shape: vec![8] }]),
        ];
        for (graph, end) in others.iter().zip(["linear", "reshape"]) {
            let read = read(&written(&folder, graph)).unwrap().graph;
            assert_eq!(read.nodes().last().unwrap().op.kind(), end);
            assert_eq!(read.nodes().len(), graph.nodes().len() - 1);
        }
        let origin = read(&written(&folder, &whole)).unwrap();
        assert_eq!(origin.graph.nodes().last().unwrap().name, "fc");
        assert_eq!(origin.graph.layers().len(), 1);

        let nodes = whole.nodes()[..2].to_vec();
        let maps = Graph::new("maps", whole.input_shape().clone(), nodes, map, Vec::new()).unwrap();
        let error = read(&written(&folder, &maps)).unwrap_err();
        assert!(error.to_string().contains("8×8×8 of 3×8×8"), "{error}");
        let missing =
            Config { teacher: folder.path().join("no.onnx").display().to_string(), ..Config::default() };
        assert!(read(&missing).unwrap_err().to_string().contains("no.onnx"));
    }
}
