//! The text.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use lana_graph::{Graph, Value};

use crate::Result;
use crate::names::{attribute, class, escaped, is_attribute, is_identifier, quoted};
use crate::op::{Expression, Form, Helper, dims, form, helper, shape};
use crate::tree::{Kind, ROOT, Tree};

/// Longest line that is filled with words.
const WIDTH: usize = 110;

/// What lines of notes begin with that are code, and stay as they are.
const CODE: &str = "    ";

/// Names that classes cannot have.
const GIVEN: &[&str] = &["Student", "Path", "False", "None", "True"];

/// Names of values that no module lends its own, and what must not be hidden by one that does.
const VALUES: &[&str] = &["x", "y", "z", "u", "v", "w"];
const GLOBALS: &[&str] = &["self", "super", "len", "torch", "nn", "functional", "load"];

/// The network as the text of a Python module, as [`crate::student`] says.
pub(crate) fn module(graph: &Graph, weights: &str, notes: &str) -> Result<String> {
    let tree = Tree::new(graph)?;
    let mut writer = Writer { graph, tree: &tree, classes: Vec::new(), of_branch: HashMap::new() };
    writer.classes_inside(ROOT);
    let student = writer.class_body(ROOT);

    let helpers: BTreeSet<Helper> = graph.nodes().iter().filter_map(|node| helper(&node.op)).collect();
    let mut text = header(graph, weights, notes);
    text += "from pathlib import Path\n\nimport torch\nfrom torch import nn\n";
    if student.contains("functional.")
        || helpers.contains(&Helper::PaddedConv2d)
        || writer.classes.iter().any(|class| class.body.contains("functional."))
    {
        text += "from torch.nn import functional\n";
    }
    for helper in &helpers {
        text += &format!("\n\n{}", helper.text());
    }
    for class in &writer.classes {
        let uses = class.uses.iter().map(|path| escaped(path)).collect::<Vec<_>>().join(", ");
        let doc = match &class.shapes {
            Some(shapes) => format!("{uses}: {shapes}."),
            None => format!("{uses}."),
        };
        text += &format!("\n\nclass {}(nn.Module):\n{}{}", class.name, docstring(&doc), class.body);
    }
    let doc = format!(
        "{}: images {} to {}.",
        escaped(graph.name()),
        dims(graph.input_shape()),
        dims(graph.output_shape())
    );
    text += &format!("\n\nclass Student(nn.Module):\n{}{student}", docstring(&doc));
    text += &footer(graph, weights);
    Ok(text)
}

fn header(graph: &Graph, weights: &str, notes: &str) -> String {
    let mut text = format!("\"\"\"{}, a student made by lana, in PyTorch.\n", escaped(graph.name()));
    let mut in_code = false;
    for line in notes.lines().filter(|line| !line.trim().is_empty()) {
        let is_code = line.starts_with(CODE);
        if !(in_code && is_code) {
            text.push('\n');
        }
        in_code = is_code;
        text += &match is_code {
            true => escaped(line.trim_end()),
            false => wrapped(&escaped(line.trim()), ""),
        };
        text.push('\n');
    }
    text + &format!(
        "
Modules are named as in {weights}, so that it loads as it is (with the package `safetensors`):

    from student import load

    model = load()  # as it was exported, in evaluation mode
    model.train()  # what a recipe of your own begins with

`python student.py` runs it once, with random weights.
\"\"\"

",
        weights = escaped(weights)
    )
}

fn footer(graph: &Graph, weights: &str) -> String {
    let sizes: Vec<String> = graph.input_shape().dims().iter().map(usize::to_string).collect();
    format!(
        r#"

def load(path=Path(__file__).with_name({weights})):
    """The student with the weights of a safetensors file, in evaluation mode."""
    from safetensors.torch import load_file

    model = Student()
    model.load_state_dict(load_file(path))
    return model.eval()


if __name__ == "__main__":
    model = Student().eval()
    images = torch.randn(1, {sizes})
    with torch.no_grad():
        output = model(images)
    print(f"{{sum(p.numel() for p in model.parameters())}} parameters, {{list(images.shape)}} to {{list(output.shape)}}")
"#,
        weights = quoted(weights),
        sizes = sizes.join(", ")
    )
}

/// A class, and where it stands.
struct Class {
    name: String,
    body: String,
    uses: Vec<String>,
    /// What it takes and gives, if that is the same everywhere.
    shapes: Option<String>,
}

/// A call or an expression of a `forward`.
struct Item {
    output: Value,
    inputs: Vec<Value>,
    /// What it may call its result.
    name: String,
    what: What,
}

enum What {
    /// A module, by its path from `self`.
    Module(String),
    Expression(Expression),
}

/// What makes a module: lines, and the modules that are added to it afterwards, by their path from it.
struct Maker {
    lines: Vec<String>,
    added: Vec<(String, Vec<String>)>,
}

impl Maker {
    fn of(line: String) -> Self {
        Maker { lines: vec![line], added: Vec::new() }
    }
}

struct Writer<'a> {
    graph: &'a Graph,
    tree: &'a Tree<'a>,
    classes: Vec<Class>,
    /// The class of each branch that has one.
    of_branch: HashMap<usize, usize>,
}

impl Writer<'_> {
    /// Writes the classes inside `at`, innermost first. Those with the same text are the same class.
    fn classes_inside(&mut self, at: usize) {
        for child in self.tree.in_order(at) {
            self.classes_inside(child);
            let branch = &self.tree.branches[child];
            if branch.kind != Kind::Class {
                continue;
            }
            let body = self.class_body(child);
            let takes: Vec<String> = branch.inputs.iter().map(|&value| shape(self.graph, value)).collect();
            let gives = branch.output.map(|value| shape(self.graph, value)).unwrap_or_default();
            let shapes = Some(format!("{} to {gives}", takes.join(" and ")));
            let known = self.classes.iter().position(|class| class.body == body);
            let class = known.unwrap_or_else(|| {
                let name = self.class_name(&branch.path);
                self.classes.push(Class { name, body, uses: Vec::new(), shapes: shapes.clone() });
                self.classes.len() - 1
            });
            let (index, class) = (class, &mut self.classes[class]);
            class.uses.push(branch.path.clone());
            if class.shapes != shapes {
                class.shapes = None;
            }
            self.of_branch.insert(child, index);
        }
    }

    fn class_name(&self, path: &str) -> String {
        let mut name = class(path);
        let is_taken = |name: &str| {
            GIVEN.contains(&name)
                || Helper::ALL.iter().any(|helper| helper.name() == name)
                || self.classes.iter().any(|class| class.name == name)
        };
        while is_taken(&name) {
            name.push('_');
        }
        name
    }

    /// `__init__` and `forward` of a class.
    fn class_body(&self, at: usize) -> String {
        let mut items = Vec::new();
        self.items(at, "self", &mut items);
        items.sort_by_key(|item| item.output);

        let mut init = Vec::new();
        for child in
            self.tree.in_order(at).into_iter().filter(|&child| self.tree.branches[child].is_written())
        {
            let maker = self.maker(child);
            let path = format!("self{}", self.step(at, child));
            assign(&mut init, &path, &maker.lines);
            for (step, lines) in &maker.added {
                assign(&mut init, &format!("{path}{step}"), lines);
            }
        }
        let mut buffers = HashSet::new();
        let mut indices = HashMap::new();
        for item in &items {
            if let What::Expression(Expression::Gather { indices: list, .. }) = &item.what {
                let mut name = format!("{}_indices", attribute(&item.name));
                while !buffers.insert(name.clone()) || self.attributes(at).contains(&name) {
                    name.push('_');
                }
                let numbers = list.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
                init.push(format!("self.register_buffer({}, torch.tensor([", quoted(&name)));
                init.extend(wrapped(&format!("{numbers},"), "    ").lines().map(String::from));
                init.push("]), persistent=False)".into());
                indices.insert(item.output, format!("self.{name}"));
            }
        }
        let mut body = String::new();
        if !init.is_empty() {
            body += "\n    def __init__(self):\n        super().__init__()\n";
            for line in init {
                body += &format!("        {line}\n");
            }
        }
        body + &self.forward(at, &items, &indices)
    }

    fn forward(&self, at: usize, items: &[Item], indices: &HashMap<Value, String>) -> String {
        let branch = &self.tree.branches[at];
        let (inputs, output) = match at {
            ROOT => (vec![Value::INPUT], Some(self.graph.output())),
            _ => (branch.inputs.clone(), branch.output),
        };
        let mut left: HashMap<Value, usize> = HashMap::new();
        for value in items.iter().flat_map(|item| &item.inputs).chain(&output) {
            *left.entry(*value).or_default() += 1;
        }
        let mut names: BTreeMap<Value, String> = BTreeMap::new();
        for &input in &inputs {
            let name = free_name("x", &names);
            names.insert(input, name);
        }
        let arguments: Vec<&str> = inputs.iter().map(|input| names[input].as_str()).collect();
        let mut text = format!("\n    def forward(self, {}):\n", arguments.join(", "));
        for item in items {
            let read: Vec<String> =
                item.inputs.iter().map(|value| names.get(value).cloned().unwrap_or_default()).collect();
            let mut reused = None;
            for value in &item.inputs {
                let uses = left.entry(*value).or_default();
                *uses = uses.saturating_sub(1);
                // A value that nobody reads again gives its name to what is made of it.
                if *uses == 0
                    && let Some(name) = names.remove(value)
                {
                    reused.get_or_insert(name);
                }
            }
            let name = reused.unwrap_or_else(|| match &item.what {
                What::Module(_) => free_name(&item.name, &names),
                What::Expression(_) => free_name("", &names),
            });
            let read: Vec<&str> = read.iter().map(String::as_str).collect();
            let made = match &item.what {
                What::Module(path) => format!("{path}({})", read.join(", ")),
                What::Expression(expression) => {
                    expression.text(&read, indices.get(&item.output).map_or("", String::as_str))
                }
            };
            let comment = match at {
                ROOT => format!("  # {}", shape(self.graph, item.output)),
                _ => String::new(),
            };
            text += &format!("        {name} = {made}{comment}\n");
            names.insert(item.output, name);
        }
        let result = output.and_then(|output| names.get(&output)).map_or("x", String::as_str);
        text + &format!("        return {result}\n")
    }

    /// What `at` calls and computes; `path` leads there.
    fn items(&self, at: usize, path: &str, items: &mut Vec<Item>) {
        for child in self.tree.in_order(at) {
            let branch = &self.tree.branches[child];
            let path = format!("{path}{}", self.step(at, child));
            match branch.kind {
                Kind::Sequential | Kind::Class => {
                    if let Some(output) = branch.output {
                        let (inputs, name) = (branch.inputs.clone(), branch.name.clone());
                        items.push(Item { output, inputs, name, what: What::Module(path) });
                    }
                }
                Kind::Leaf => {
                    self.items(child, &path, items);
                    if let Some(node) = branch.node.filter(|&node| self.tree.is_live(node)) {
                        let output = Value::of_node(node);
                        let inputs = self.graph.nodes()[node].inputs.clone();
                        let (name, what) = match form(self.graph, node) {
                            Form::Module(_) => (String::new(), What::Module(path)),
                            Form::Expression(expression) => {
                                (branch.name.clone(), What::Expression(expression))
                            }
                        };
                        items.push(Item { output, inputs, name, what });
                    }
                }
                Kind::LeftOut => {}
                Kind::List | Kind::Dict | Kind::Plain | Kind::Nothing => self.items(child, &path, items),
            }
        }
    }

    /// From a module to one inside it.
    fn step(&self, from: usize, to: usize) -> String {
        let branch = &self.tree.branches[to];
        match self.tree.branches[from].kind {
            Kind::List | Kind::Sequential => format!("[{}]", branch.name),
            Kind::Dict => format!("[{}]", quoted(&branch.name)),
            _ if branch.is_free() => format!(".{}", self.free_attribute(from, to)),
            _ if is_attribute(&branch.name) => format!(".{}", branch.name),
            // PyTorch keeps them under any name; Python's dots do not reach all of them.
            _ => format!("._modules[{}]", quoted(&branch.name)),
        }
    }

    /// The attribute of a module that may have another name.
    fn free_attribute(&self, from: usize, to: usize) -> String {
        let siblings = &self.tree.branches[from].children;
        let mut taken: HashSet<String> = siblings
            .iter()
            .map(|&child| &self.tree.branches[child])
            .filter(|child| is_attribute(&child.name))
            .map(|child| child.name.clone())
            .collect();
        let name = &self.tree.branches[to].name;
        if is_attribute(name) {
            return name.clone();
        }
        for &child in siblings {
            let mut name = attribute(&self.tree.branches[child].name);
            while taken.contains(&name) {
                name.push('_');
            }
            if child == to {
                return name;
            }
            if !is_attribute(&self.tree.branches[child].name) {
                taken.insert(name);
            }
        }
        attribute(name)
    }

    /// Attributes of a class.
    fn attributes(&self, at: usize) -> HashSet<String> {
        let children = &self.tree.branches[at].children;
        children
            .iter()
            .filter_map(|&child| Some(self.step(at, child).strip_prefix('.')?.to_string()))
            .collect()
    }

    /// What makes the module `at`.
    fn maker(&self, at: usize) -> Maker {
        let branch = &self.tree.branches[at];
        match branch.kind {
            Kind::Leaf => {
                let line = match branch.node.map(|node| form(self.graph, node)) {
                    Some(Form::Module(line)) => line,
                    _ => "nn.Module()".into(),
                };
                self.with_attributes(at, line)
            }
            Kind::LeftOut => Maker::of("nn.Identity()".into()),
            Kind::Class => {
                let class = self.of_branch.get(&at).map(|&class| &self.classes[class]);
                Maker::of(format!("{}()", class.map_or("nn.Module", |class| &class.name)))
            }
            Kind::Sequential => self.with_list(at, "nn.Sequential(", ")"),
            Kind::List => self.with_list(at, "nn.ModuleList([", "])"),
            Kind::Dict => self.with_list(at, "nn.ModuleDict({", "})"),
            Kind::Plain | Kind::Nothing => self.with_attributes(at, "nn.Module()".into()),
        }
    }

    /// A module whose own modules are added to it afterwards.
    fn with_attributes(&self, at: usize, line: String) -> Maker {
        let mut whole = Maker::of(line);
        for child in
            self.tree.in_order(at).into_iter().filter(|&child| self.tree.branches[child].is_written())
        {
            let step = self.step(at, child);
            let maker = self.maker(child);
            whole.added.push((step.clone(), maker.lines));
            whole.added.extend(maker.added.into_iter().map(|(path, lines)| (format!("{step}{path}"), lines)));
        }
        whole
    }

    /// A module that is given its own modules.
    fn with_list(&self, at: usize, before: &str, behind: &str) -> Maker {
        let mut whole = Maker::of(before.into());
        for child in
            self.tree.in_order(at).into_iter().filter(|&child| self.tree.branches[child].is_written())
        {
            let branch = &self.tree.branches[child];
            let step = self.step(at, child);
            let mut maker = self.maker(child);
            if before.ends_with('{') {
                maker.lines[0].insert_str(0, &format!("{}: ", quoted(&branch.name)));
            }
            if let Some(line) = maker.lines.last_mut() {
                line.push(',');
                if branch.kind == Kind::LeftOut {
                    line.push_str(&format!("  # {} is left out", escaped(&branch.path)));
                }
            }
            whole.lines.extend(maker.lines.into_iter().map(|line| format!("    {line}")));
            whole.added.extend(maker.added.into_iter().map(|(path, lines)| (format!("{step}{path}"), lines)));
        }
        whole.lines.push(behind.into());
        whole
    }
}

/// Adds `path = …`.
fn assign(to: &mut Vec<String>, path: &str, lines: &[String]) {
    for (at, line) in lines.iter().enumerate() {
        to.push(if at == 0 { format!("{path} = {line}") } else { line.clone() });
    }
}

/// `wanted`, if it can name one more value, or else a name that can.
fn free_name(wanted: &str, names: &BTreeMap<Value, String>) -> String {
    let is_free = |name: &str| !names.values().any(|taken| taken == name);
    if is_identifier(wanted) && !wanted.starts_with('_') && !GLOBALS.contains(&wanted) && is_free(wanted) {
        return wanted.into();
    }
    let more = (1..).map(|count| format!("x{count}"));
    let mut all = VALUES.iter().map(|name| name.to_string()).chain(more);
    all.find(|name| is_free(name)).unwrap_or_default()
}

/// A docstring of a class, by its escaped text.
fn docstring(text: &str) -> String {
    let lines = wrapped(text, "    ");
    let text = lines.trim_start();
    match text.contains('\n') {
        true => format!("    \"\"\"{text}\n    \"\"\"\n"),
        false => format!("    \"\"\"{text}\"\"\"\n"),
    }
}

/// `text` in lines of at most [`WIDTH`] letters where it has spaces, each behind `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines.join("\n")
}
