//! What operations are called.
//!
//! A file may call its nodes and weights anything, of any length. What lana calls its layers becomes part of paths of files, of
//! tables, patterns and programs. So every name that leaves the importer has passed [`safe`] and [`Names::unique`].

use std::collections::{HashMap, HashSet};

use lana_graph::Graph;

use crate::proto::NodeProto;

/// Bytes of a name, but for the number that tells it from others: two of them beside each other, as groups of layers have, and an
/// ending are still fewer than the 255 that a file may be called by.
const LONGEST: usize = 100;

/// Bytes of the name of a layer in lana's own files, where it may be put together of two.
const LONGEST_LAYER: usize = 240;

/// A name made of what is in this one: components of letters, digits, `_` and `-` (in ASCII), with a dot between them. Slashes
/// part components too, whatever else stands in the name is `_`. Nothing is left of a name without any of these.
pub(super) fn safe(name: &str) -> String {
    let mut safe = String::new();
    // Those at the very beginning are enough of a name that is far too long.
    for part in name.split(['.', '/']).filter(|part| !part.is_empty()) {
        if safe.len() >= LONGEST {
            break;
        }
        if !safe.is_empty() {
            safe.push('.');
        }
        let mut replaced = false;
        for (at, c) in part.chars().take(LONGEST).enumerate() {
            // What begins with `-` looks like an option.
            let stays = is_letter(c) && !(at == 0 && c == '-');
            match stays {
                true => safe.push(c),
                false if !replaced => safe.push('_'),
                false => {}
            }
            replaced = !stays;
        }
    }
    // All of it is ASCII.
    safe.truncate(LONGEST);
    safe.truncate(safe.trim_end_matches('.').len());
    safe
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// Whether a network's names are such as the importer gives them, or lana itself, which joins them.
pub(super) fn are_safe(graph: &Graph) -> bool {
    let is_path = |name: &str| {
        let is_safe = |part: &str| !part.is_empty() && part.chars().all(|c| is_letter(c) || c == '@');
        !name.starts_with('-') && name.split('.').all(is_safe)
    };
    let nodes = graph.nodes().iter().all(|node| is_path(&node.name));
    let layers = graph.layers().iter().flat_map(|layer| [&layer.name, &layer.stage]);
    // A network is called after its file, which may have spaces in its name.
    nodes
        && layers.into_iter().all(|name| is_path(name) && name.len() <= LONGEST_LAYER)
        && !graph.name().chars().any(char::is_control)
}

/// The names that are taken.
#[derive(Default)]
pub(super) struct Names {
    taken: HashSet<String>,
    /// How often a name was wanted again.
    repeated: HashMap<String, usize>,
}

impl Names {
    /// Those that are taken already, by a network whose names are safe.
    pub(super) fn of(taken: impl Iterator<Item = String>) -> Self {
        Names { taken: taken.collect(), repeated: HashMap::new() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.taken.contains(name)
    }

    /// The name `wanted`, made safe; with a number if another has it, and `otherwise` if nothing is left of it.
    pub(super) fn unique(&mut self, wanted: &str, otherwise: &str) -> String {
        let safe = safe(wanted);
        let wanted = if safe.is_empty() { otherwise } else { &safe };
        let mut name = wanted.to_string();
        while !self.taken.insert(name.clone()) {
            // Counted, because a file may have many nodes of one name.
            let count = self.repeated.entry(wanted.to_string()).or_default();
            *count += 1;
            name = if *count == 1 { format!("{wanted}_") } else { format!("{wanted}_{count}") };
        }
        name
    }
}

/// The path in the network that a node's name stands for. PyTorch's older exporter writes `/layer1/layer1.0/conv1/Conv` for the
/// convolution `layer1.0.conv1`: every module by its path in the one before or by its own name, then the `kind` of the node, which
/// says nothing of one that has weights. TensorFlow's names are paths with the same signs: `model/conv1/Conv2D`.
pub(super) fn path(name: &str, kind: Option<&str>) -> String {
    if !name.contains('/') {
        return name.to_string();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/').filter(|part| !part.is_empty()) {
        let continues = |last: &&str| part.strip_prefix(*last).is_some_and(|rest| rest.starts_with('.'));
        if parts.last().is_some_and(continues) {
            parts.pop();
        }
        parts.push(part);
    }
    let is_kind = |last: &&str| kind.is_some_and(|kind| last.split('_').next() == Some(kind));
    if parts.len() > 1 && parts.last().is_some_and(is_kind) {
        parts.pop();
    }
    parts.join(".")
}

/// Where PyTorch's newer exporter notes the modules that a node stands in.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// The path in the network that a node's scopes name: `['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d_1']` are modules, each by
/// its whole path, and the node's own name, which says nothing of one that has weights.
pub(super) fn scope(node: &NodeProto, has_weights: bool) -> Option<String> {
    let entry = node.metadata_props.iter().find(|entry| entry.key.as_deref() == Some(SCOPES))?;
    let list = entry.value.as_deref()?.strip_prefix('[')?.strip_suffix(']')?;
    let scopes: Vec<&str> = list.split(',').map(|scope| scope.trim().trim_matches(['\'', '"'])).collect();
    let [.., module, own] = scopes.as_slice() else { return None };
    match (module.is_empty(), own.is_empty()) {
        (_, true) => None,
        (true, false) => Some((*own).to_string()),
        (false, false) if has_weights => Some((*module).to_string()),
        (false, false) => Some(format!("{module}.{own}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, Names, SCOPES, safe};
    use crate::proto::{NodeProto, StringStringEntryProto};

    #[test]
    fn names_are_safe() {
        for (name, expected) in [
            ("layer1.0.conv1", "layer1.0.conv1"),
            ("node_conv2d-1", "node_conv2d-1"),
            ("../../../etc/passwd", "etc.passwd"),
            ("/abs/olute", "abs.olute"),
            ("..", ""),
            ("a..b/./c.", "a.b.c"),
            ("bad\nname\x1b[31mred", "bad_name_31mred"),
            ("a,b:c*", "a_b_c_"),
            ("C:\\x", "C_x"),
            ("слой0\u{202e}", "_0_"),
            ("--out", "_-out"),
            ("a.-b", "a._b"),
            ("", ""),
        ] {
            assert_eq!(safe(name), expected, "{name:?}");
        }
        assert_eq!(safe(&"x".repeat(5000)), "x".repeat(LONGEST));
        assert_eq!(safe(&"abc.".repeat(25)), format!("{}.abc", ["abc"; 24].join(".")));
        assert!(safe(&format!("{}.y", "x".repeat(LONGEST - 1))).ends_with('x'));
    }

    #[test]
    fn names_are_unique() {
        let mut names = Names::default();
        let made: Vec<String> = ["a", "a", "a", "a_", "a/", ".", "?"]
            .into_iter()
            .map(|name| names.unique(name, "conv"))
            .collect();
        assert_eq!(made, ["a", "a_", "a_2", "a__", "a_3", "conv", "_"]);
    }

    #[test]
    fn names_of_scripts_become_paths() {
        let path = |name: &str, kind| super::path(name, kind);
        assert_eq!(path("/layer1/layer1.0/conv1/Conv", Some("Conv")), "layer1.0.conv1");
        assert_eq!(path("/features/features.0/features.0.0/Conv_1", Some("Conv")), "features.0.0");
        assert_eq!(
            path("/trunk/block1/block1-0/proj/proj.0/Conv", Some("Conv")),
            "trunk.block1.block1-0.proj.0"
        );
        assert_eq!(path("/layer1/layer1.0/relu/Relu", None), "layer1.0.relu.Relu");
        assert_eq!(path("/Conv", Some("Conv")), "Conv");
        assert_eq!(path("model/block_1_expand/Conv2D", Some("Conv")), "model.block_1_expand.Conv2D");
        assert_eq!(path("node_conv2d_1", Some("Conv")), "node_conv2d_1");
    }

    #[test]
    fn scopes_are_paths() {
        let scope = |text: &str, has_weights| {
            let entry = StringStringEntryProto { key: Some(SCOPES.into()), value: Some(text.into()) };
            super::scope(&NodeProto { metadata_props: vec![entry], ..NodeProto::default() }, has_weights)
        };
        let nested = "['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d_1']";
        assert_eq!(scope(nested, true).as_deref(), Some("layer1.0.conv1"));
        assert_eq!(scope(nested, false).as_deref(), Some("layer1.0.conv1.conv2d_1"));
        assert_eq!(scope("['', 'add_3']", true).as_deref(), Some("add_3"));
        for none in ["", "[]", "['']", "['a', '']", "layer1"] {
            assert_eq!(scope(none, true), None, "{none}");
        }
        assert_eq!(super::scope(&NodeProto::default(), true), None);
    }
}
