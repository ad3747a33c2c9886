//! The modules of a network, by the dotted names of its nodes.
//!
//! PyTorch names a parameter after the modules that hold it, from the outermost in, and weights are loaded by these names. So the
//! names of nodes that have parameters decide how modules are nested: `layer1.0.conv1` is the module `conv1` of the module `0` of
//! the module `layer1`. What computes lies across that: a module with a `forward` takes values and gives one. Most prefixes of
//! names are such a part of the network, because blocks are; those that are not still have to hold their modules, and the
//! `forward` of whatever holds them reaches in. [`Kind`] says which is which.

use std::collections::{HashMap, HashSet};

use lana_graph::{Graph, Layer, Node, Value};

use crate::names::{attribute, is_attribute, is_no_key, position};
use crate::op::{Form, form};
use crate::{Error, Result};

/// How a module is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One node.
    Leaf,
    /// The place of a layer that the student does without.
    LeftOut,
    /// `nn.Sequential`: modules named 0, 1, 2 …, each taking what the one before gives.
    Sequential,
    /// A class of its own.
    Class,
    /// `nn.ModuleList`, not called itself.
    List,
    /// `nn.ModuleDict`, not called itself.
    Dict,
    /// `nn.Module` with attributes, not called itself.
    Plain,
    /// Nothing: there is no module inside.
    Nothing,
}

/// A name between dots.
#[derive(Debug)]
pub(crate) struct Branch {
    /// The name.
    pub(crate) name: String,
    /// The names down to here.
    pub(crate) path: String,
    /// The node of that name.
    pub(crate) node: Option<usize>,
    /// What is inside, in the order of the network.
    pub(crate) children: Vec<usize>,
    /// How it is written.
    pub(crate) kind: Kind,
    /// The value it gives, if it is a part of the network with a single one.
    pub(crate) output: Option<Value>,
    /// The values it takes.
    pub(crate) inputs: Vec<Value>,
    /// Whether a module in it has parameters.
    is_bound: bool,
    /// Whether there is a module in it.
    has_modules: bool,
}

/// The branches; the first is the root.
pub(crate) struct Tree<'a> {
    graph: &'a Graph,
    pub(crate) branches: Vec<Branch>,
    /// Whether the output depends on a node.
    live: Vec<bool>,
}

pub(crate) const ROOT: usize = 0;
/// Modules within modules, at most: what walks through them calls itself, here and in PyTorch.
const DEEPEST: usize = 100;

impl<'a> Tree<'a> {
    pub(crate) fn new(graph: &'a Graph) -> Result<Self> {
        let mut tree = Tree { graph, branches: Vec::new(), live: live(graph) };
        tree.branches.push(Branch::new("", ""));
        if let Some(node) = graph.nodes().iter().find(|node| node.name.matches('.').count() > DEEPEST) {
            return Err(Error::Deep { node: node.name.chars().take(60).collect() });
        }
        for (node, path) in places(graph).iter().enumerate() {
            let at = tree.grow(path);
            tree.branches[at].node = Some(node);
            tree.branches[at].is_bound =
                !graph.nodes()[node].op.parameters(&graph.input_shapes(node)).is_empty();
        }
        for layer in graph.layers().iter().filter(|layer| layer.nodes.is_empty()) {
            tree.leave_out(&layer.name);
        }
        tree.check_parameters()?;
        tree.classify(ROOT);
        Ok(tree)
    }

    /// Whether the output depends on a node.
    pub(crate) fn is_live(&self, node: usize) -> bool {
        self.live[node]
    }

    /// The branch at `path`, new or not.
    fn grow(&mut self, path: &str) -> usize {
        let mut at = ROOT;
        let mut end = 0;
        for name in path.split('.') {
            end += name.len();
            at = match self.child(at, name) {
                Some(child) => child,
                None => {
                    self.branches.push(Branch::new(name, &path[..end]));
                    let child = self.branches.len() - 1;
                    self.branches[at].children.push(child);
                    child
                }
            };
            end += 1;
        }
        at
    }

    fn child(&self, at: usize, name: &str) -> Option<usize> {
        self.branches[at].children.iter().copied().find(|&child| self.branches[child].name == name)
    }

    /// Keeps the place of a layer that is left out where modules count.
    fn leave_out(&mut self, path: &str) {
        let Some((parent, name)) = path.rsplit_once('.').filter(|(_, name)| position(name).is_some()) else {
            return;
        };
        let parent = parent.split('.').try_fold(ROOT, |at, name| self.child(at, name));
        if let Some(parent) = parent
            && self.child(parent, name).is_none()
        {
            let mut branch = Branch::new(name, path);
            branch.kind = Kind::LeftOut;
            self.branches.push(branch);
            let child = self.branches.len() - 1;
            self.branches[parent].children.push(child);
        }
    }

    /// A module's parameters and submodules share one name space.
    fn check_parameters(&self) -> Result<()> {
        for branch in &self.branches {
            let Some(node) = branch.node else { continue };
            for (parameter, ..) in self.graph.nodes()[node].op.parameters(&self.graph.input_shapes(node)) {
                if let Some(child) = branch.children.iter().find(|&&c| self.branches[c].name == parameter) {
                    return Err(Error::Name {
                        node: self.branches[*child].path.clone(),
                        parameter: format!("{}.{parameter}", branch.path),
                    });
                }
            }
        }
        Ok(())
    }

    /// Decides how `at` and what is inside are written; gives the live nodes inside.
    fn classify(&mut self, at: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> = self.branches[at].node.into_iter().filter(|&n| self.live[n]).collect();
        for child in self.branches[at].children.clone() {
            nodes.extend(self.classify(child));
            self.branches[at].is_bound |= self.branches[child].is_bound;
            self.branches[at].has_modules |= self.branches[child].has_modules;
        }
        nodes.sort_unstable();
        self.branches[at].inputs = self.inputs(&nodes);
        self.branches[at].output = self.output(&nodes);
        self.branches[at].has_modules |= self.branches[at].kind == Kind::LeftOut
            || self.branches[at].node.is_some_and(|node| matches!(form(self.graph, node), Form::Module(_)));
        self.branches[at].kind = self.kind(at);
        self.branches[at].has_modules |= self.branches[at].kind == Kind::Class;
        nodes
    }

    fn kind(&self, at: usize) -> Kind {
        let branch = &self.branches[at];
        let inside = || branch.children.iter().map(|&child| &self.branches[child]);
        if at == ROOT {
            return Kind::Class;
        }
        if branch.kind == Kind::LeftOut {
            return Kind::LeftOut;
        }
        if branch.node.is_some() {
            return Kind::Leaf;
        }
        let is_part = branch.output.is_some() && !branch.inputs.is_empty();
        if !branch.has_modules {
            // Where modules count, the place wants one.
            let counts = position(&branch.name).is_some();
            return if is_part && counts { Kind::Class } else { Kind::Nothing };
        }
        let mut positions: Vec<Option<usize>> =
            inside().filter(|child| child.is_written()).map(|child| position(&child.name)).collect();
        positions.sort_unstable();
        let counts = positions.iter().enumerate().all(|(place, at)| *at == Some(place));
        let nameable = |child: &Branch| !child.is_written() || child.is_free() || is_attribute(&child.name);
        if counts && is_part && self.is_chain(at) {
            Kind::Sequential
        } else if is_part && inside().all(nameable) {
            Kind::Class
        } else if counts {
            Kind::List
        } else if !inside().all(nameable) && !inside().any(|c| c.is_written() && is_no_key(&c.name)) {
            Kind::Dict
        } else {
            Kind::Plain
        }
    }

    /// Whether each module of `at` takes what the one before gives, and nothing else.
    fn is_chain(&self, at: usize) -> bool {
        let mut value = None;
        for child in self.in_order(at) {
            let child = &self.branches[child];
            match (child.kind, child.inputs.as_slice(), child.output) {
                (Kind::LeftOut, ..) => {}
                (Kind::Leaf | Kind::Sequential | Kind::Class, &[input], Some(output))
                    if child.children.is_empty() || child.node.is_none() =>
                {
                    if !child.has_modules && child.kind == Kind::Leaf || value.is_some_and(|v| v != input) {
                        return false;
                    }
                    value = Some(output);
                }
                _ => return false,
            }
        }
        value == self.branches[at].output
    }

    /// What is inside `at`, by position where modules count.
    pub(crate) fn in_order(&self, at: usize) -> Vec<usize> {
        let mut children = self.branches[at].children.clone();
        children.sort_by_key(|&child| position(&self.branches[child].name));
        children
    }

    /// What `nodes` take from elsewhere, in the order of their first use.
    fn inputs(&self, nodes: &[usize]) -> Vec<Value> {
        let mut inputs = Vec::new();
        for &value in nodes.iter().flat_map(|&node| &self.graph.nodes()[node].inputs) {
            let inside = value.node().is_some_and(|node| nodes.binary_search(&node).is_ok());
            if !inside && !inputs.contains(&value) {
                inputs.push(value);
            }
        }
        inputs
    }

    /// The one value of `nodes` that is read elsewhere. If there is just one, nothing leads out of them and in again, because all
    /// of them lead to it.
    fn output(&self, nodes: &[usize]) -> Option<Value> {
        let mut read = HashSet::new();
        let mut take = |value: Value| {
            if value.node().is_some_and(|node| nodes.binary_search(&node).is_ok()) {
                read.insert(value);
            }
        };
        for (index, node) in self.graph.nodes().iter().enumerate() {
            if self.live[index] && nodes.binary_search(&index).is_err() {
                node.inputs.iter().copied().for_each(&mut take);
            }
        }
        take(self.graph.output());
        read.iter().next().copied().filter(|_| read.len() == 1)
    }
}

impl Branch {
    fn new(name: &str, path: &str) -> Self {
        Branch {
            name: name.into(),
            path: path.into(),
            node: None,
            children: Vec::new(),
            kind: Kind::Nothing,
            output: None,
            inputs: Vec::new(),
            is_bound: false,
            has_modules: false,
        }
    }

    /// Whether there is a module of that name in the text.
    pub(crate) fn is_written(&self) -> bool {
        match self.kind {
            Kind::Leaf => self.has_modules,
            kind => kind != Kind::Nothing,
        }
    }

    /// Whether it may have another name: nothing is loaded into it.
    pub(crate) fn is_free(&self) -> bool {
        self.kind == Kind::Leaf && !self.is_bound && self.children.is_empty()
    }
}

/// The nodes that the output depends on.
fn live(graph: &Graph) -> Vec<bool> {
    let mut live = vec![false; graph.nodes().len()];
    let mut open: Vec<usize> = graph.output().node().into_iter().collect();
    while let Some(node) = open.pop() {
        if !std::mem::replace(&mut live[node], true) {
            open.extend(graph.nodes()[node].inputs.iter().filter_map(|value| value.node()));
        }
    }
    live
}

/// The name by which each node stands in the tree. Those of nodes with parameters are given; others are free, and give way where
/// they are no names in Python, or would be inside something else than their layer. A module that is alone in what holds it, as
/// PyTorch's exporters name `relu.Relu` what the module `relu` does, takes the place of that.
fn places(graph: &Graph) -> Vec<String> {
    let nodes: HashSet<&str> = graph.nodes().iter().map(|node| node.name.as_str()).collect();
    let layers: HashSet<&str> = graph.layers().iter().map(|layer| layer.name.as_str()).collect();
    // Names that have others inside.
    let outer: HashSet<&str> =
        nodes.iter().chain(&layers).flat_map(|name| around(name)).chain(layers.iter().copied()).collect();
    let mut taken: HashSet<String> = nodes.union(&outer).map(|name| name.to_string()).collect();
    let is_bound = |index: usize| {
        let op = &graph.nodes()[index].op;
        !op.parameters(&graph.input_shapes(index)).is_empty()
    };
    let is_inside =
        |node: &Node, layer: &str| node.name.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.'));
    // A layer that is put together of several has none of their names.
    let has_own = |layer: &Layer| {
        layer.nodes.clone().any(|index| is_bound(index) && is_inside(&graph.nodes()[index], &layer.name))
    };
    let place = |(index, node): (usize, &Node)| {
        if is_bound(index) {
            return node.name.clone();
        }
        let layer = graph.layers().iter().find(|layer| layer.nodes.contains(&index));
        let is_odd = |name: &str| !is_attribute(name) && position(name).is_none();
        let mut place = match layer {
            Some(layer)
                if !is_inside(node, &layer.name)
                    && !nodes.contains(layer.name.as_str())
                    && has_own(layer) =>
            {
                let last = node.name.rsplit(['.', '/']).find(|word| !word.is_empty()).unwrap_or_default();
                format!("{}.{}", layer.name, attribute(last))
            }
            _ if node.name.split('.').any(is_odd) => attribute(&node.name),
            _ => node.name.clone(),
        };
        if place != node.name || outer.contains(place.as_str()) {
            while !taken.insert(place.clone()) {
                place.push('_');
            }
        }
        place
    };
    let places: Vec<String> = graph.nodes().iter().enumerate().map(place).collect();
    // How many nodes, and layers that are left out, each name has inside.
    let mut inside: HashMap<&str, usize> = HashMap::new();
    let left_out = graph.layers().iter().filter(|layer| layer.nodes.is_empty());
    for name in places.iter().map(String::as_str).chain(left_out.map(|layer| layer.name.as_str())) {
        std::iter::once(name).chain(around(name)).for_each(|name| *inside.entry(name).or_default() += 1);
    }
    let alone = |(index, place): (usize, &String)| {
        if is_bound(index) || !matches!(form(graph, index), Form::Module(_)) {
            return place.clone();
        }
        let mut found = place.as_str();
        for holder in around(place) {
            // What is a layer is called so.
            if inside[holder] > 1 || layers.contains(found) {
                break;
            }
            found = holder;
        }
        found.to_string()
    };
    places.iter().enumerate().map(alone).collect()
}

/// The names that a name is inside of, from the innermost out.
fn around(name: &str) -> impl Iterator<Item = &str> {
    name.rmatch_indices('.').map(|(at, _)| &name[..at])
}
