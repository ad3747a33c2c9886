//! What the text looks like. (That it computes the same is `cargo xtask parity --students`.)
#![allow(clippy::unwrap_used)]

use lana_graph::{Activation, Conv2d, Graph, GraphBuilder, Node, Op, Result, Shape, Value, Window};
use lana_models::pool::Operation;
use lana_models::zoo::{self, ZooOptions};
use lana_pytorch::{Error, student};

fn text(graph: &Graph) -> String {
    student(graph, "weights.safetensors", "").unwrap()
}

fn graph(input: &[usize], build: impl FnOnce(&mut GraphBuilder, Value) -> Result<Value>) -> Graph {
    let mut b = GraphBuilder::new("net", Shape::of(input));
    let x = b.input();
    let y = build(&mut b, x).unwrap();
    b.finish(y).unwrap()
}

/// The lines of `forward` of the student, without shapes.
fn forward(graph: &Graph) -> Vec<String> {
    let text = text(graph);
    let student = text.split("class Student(").nth(1).unwrap();
    let body = student.split("def forward(self, x):\n").nth(1).unwrap();
    let lines = body.lines().take_while(|line| !line.is_empty());
    lines.map(|line| line.split("  #").next().unwrap().trim().to_string()).collect()
}

#[test]
fn a_network_reads_as_one_would_write_it() {
    let network = graph(&[3, 9, 9], |b, x| {
        let x = b.conv("stem.0", x, 8, 3, 2, 1)?;
        let x = b.batch_norm("stem.1", x)?;
        let mut x = b.activation("stem.2", x, Activation::Relu)?;
        for block in ["layer.0", "layer.2"] {
            x = b.layer(block, "layer", x, |b, x| {
                let y = b.conv("conv", x, 8, 3, 1, 8)?;
                let y = b.activation("act", y, Activation::Silu)?;
                b.add("add", y, x)
            })?;
        }
        let x = b.node("pool", Op::GlobalAveragePool, &[x])?;
        b.node("flatten", Op::Flatten, &[x])
    });
    let written = text(&network);
    let expected = r#"

class Layer_0(nn.Module):
    """layer.0, layer.2: [n, 8, 5, 5] to [n, 8, 5, 5]."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.act = nn.SiLU()

    def forward(self, x):
        y = self.conv(x)
        y = self.act(y)
        y = y + x
        return y


class Student(nn.Module):
    """net: images [n, 3, 9, 9] to [n, 8]."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.layer = nn.ModuleDict({
            "0": Layer_0(),
            "2": Layer_0(),
        })
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()

    def forward(self, x):
        x = self.stem(x)  # [n, 8, 5, 5]
        x = self.layer["0"](x)  # [n, 8, 5, 5]
        x = self.layer["2"](x)  # [n, 8, 5, 5]
        x = self.pool(x)  # [n, 8, 1, 1]
        x = self.flatten(x)  # [n, 8]
        return x
"#;
    assert!(written.contains(expected), "{written}");
    assert_eq!(written, text(&network), "the text depends on more than the graph");
}

#[test]
fn a_layer_that_is_left_out_keeps_its_place() {
    let teacher = zoo::build("resnet20_cifar", &ZooOptions::default()).unwrap();
    let layer = teacher.layer_graph("layer2.1").unwrap();
    let identity: Operation = Operation::IDENTITY.parse().unwrap();
    let student = teacher.replace("layer2.1", &identity.build(&layer).unwrap()).unwrap();
    let text = text(&student);
    let expected = "            nn.Identity(),  # layer2.1 is left out\n";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("        x = self.layer2(x)  # [n, 32, 16, 16]\n"), "{text}");
}

#[test]
fn blocks_of_the_same_structure_share_a_class() {
    let text = text(&zoo::build("resnet56_cifar", &ZooOptions::default()).unwrap());
    // Three stages, of which two begin with a stride.
    assert_eq!(text.matches("\nclass Layer").count(), 5, "{text}");
    assert!(text.contains(
        "layer1.0, layer1.1, layer1.2, layer1.3, layer1.4, layer1.5, layer1.6, layer1.7, layer1.8: "
    ));
}

#[test]
fn every_operation_has_a_text() {
    let image = [8, 6, 6];
    let window = Window { kernel: [3, 2], stride: [2, 2], padding: [1, 0], ceil_mode: true };
    let conv = |padding| Conv2d {
        in_channels: 8,
        out_channels: 4,
        kernel: [3, 5],
        stride: [1, 2],
        dilation: [1, 1],
        padding,
        groups: 2,
        bias: true,
    };
    let kinds = [
        (Activation::Relu, "nn.ReLU()"),
        (Activation::Relu6, "nn.ReLU6()"),
        (Activation::Silu, "nn.SiLU()"),
        (Activation::Sigmoid, "nn.Sigmoid()"),
        (Activation::HardSwish, "nn.Hardswish()"),
        (Activation::HardSigmoid, "nn.Hardsigmoid()"),
        (Activation::Gelu, "nn.GELU()"),
        (Activation::Tanh, "nn.Tanh()"),
    ];
    for (kind, module) in kinds {
        expect(&image, Op::Activation { kind }, module);
    }
    let modules: Vec<(&[usize], Op, &str)> = vec![
        (
            &image,
            Op::Conv2d(conv([1, 2, 1, 2])),
            "nn.Conv2d(8, 4, (3, 5), stride=(1, 2), padding=(1, 2), groups=2)",
        ),
        (
            &image,
            Op::Conv2d(conv([0, 1, 1, 2])),
            "PaddedConv2d(8, 4, (3, 5), stride=(1, 2), zeros=(1, 2, 0, 1), groups=2)",
        ),
        (&image, Op::BatchNorm { eps: 1e-3, momentum: 0.01 }, "nn.BatchNorm2d(8, eps=0.001, momentum=0.01)"),
        (
            &image,
            Op::MaxPool { window: window.clone() },
            "nn.MaxPool2d((3, 2), stride=2, padding=(1, 0), ceil_mode=True)",
        ),
        (
            &image,
            Op::AveragePool { window: Window::square(2, 2, 0), count_include_pad: false },
            "nn.AvgPool2d(2, count_include_pad=False)",
        ),
        (&image, Op::GlobalAveragePool, "nn.AdaptiveAvgPool2d(1)"),
        (&image, Op::Flatten, "nn.Flatten()"),
        (&[5, 7], Op::Linear { out_features: 3, bias: false }, "nn.Linear(7, 3, bias=False)"),
        (&[5, 7], Op::LayerNorm { eps: 1e-6 }, "nn.LayerNorm(7, eps=1e-6)"),
        (&[5, 7], Op::AddParameter { shared: Vec::new() }, "AddParameter(5, 7)"),
        (&image, Op::AddParameter { shared: vec![0] }, "AddParameter(1, 6, 6)"),
        (&image, Op::MulParameter { shared: vec![1, 2] }, "MulParameter(8, 1, 1)"),
        (
            &image,
            Op::Resize { size: [4, 9], align_corners: true },
            "nn.Upsample((4, 9), mode=\"bilinear\", align_corners=True)",
        ),
        (
            &[2, 5, 6, 7],
            Op::Conv3d { out_channels: 4, kernel: [1, 3, 3], padding: [0, 1, 1], bias: true },
            "nn.Conv3d(2, 4, (1, 3, 3), padding=(0, 1, 1))",
        ),
        (&image, Op::Dropout { rate: 0.2 }, "nn.Dropout(0.2)"),
        (&image, Op::DropPath { rate: 0.1 }, "DropPath(0.1)"),
    ];
    for (input, op, module) in modules {
        expect(input, op, module);
    }
    let expressions: Vec<(&[usize], Op, &str)> = vec![
        (&image, Op::Add, "x + x"),
        (&image, Op::Mul, "x * x"),
        (&[3, 4, 4], Op::MatMul, "x @ x"),
        (&image, Op::SumParts { parts: 2 }, "x.unflatten(1, (2, -1)).sum(dim=1)"),
        (&image, Op::SoftmaxParts { parts: 2 }, "x.unflatten(1, (2, -1)).softmax(dim=1).flatten(1, 2)"),
        (
            &image,
            Op::ShuffleChannels { outer: 2, inner: 2 },
            "x.unflatten(1, (2, 2, -1)).transpose(1, 2).flatten(1, 3)",
        ),
        (&image, Op::Reshape { shape: vec![36, 8] }, "x.reshape(-1, 36, 8)"),
        (&image, Op::Transpose { order: vec![1, 2, 0] }, "x.permute(0, 2, 3, 1)"),
        (&image, Op::Select { axis: 1, indices: vec![0, 2, 4] }, "x[:, :, ::2]"),
        (&image, Op::Select { axis: 0, indices: vec![2, 0] }, "x.index_select(1, self.op_indices)"),
        (&image, Op::Softmax { axis: 2 }, "x.softmax(dim=3)"),
        (&image, Op::LogSoftmax { axis: 0 }, "x.log_softmax(dim=1)"),
        (&image, Op::Activation { kind: Activation::Erf }, "x.erf()"),
        (&image, Op::Concat { axis: 0 }, "torch.cat([x, x, x], dim=1)"),
        (&image, Op::Mean { axes: vec![0, 2] }, "x.mean(dim=[1, 3], keepdim=True)"),
        (&image, Op::Shift { term: -0.5 }, "x - 0.5"),
        (&image, Op::Power { exponent: -0.5 }, "x ** -0.5"),
        (
            &image,
            Op::Pad { pads: vec![[0, 1], [2, 3], [4, 5]], value: -1.0 },
            "functional.pad(x, (4, 5, 2, 3, 0, 1), value=-1.0)",
        ),
        (&image, Op::Scale { factor: 0.25 }, "x * 0.25"),
        (&image, Op::Subsample { stride: 2 }, "x[:, :, ::2, ::2]"),
        (&image, Op::PadChannels { before: 1, after: 2 }, "functional.pad(x, (0, 0, 0, 0, 1, 2))"),
    ];
    for (input, op, expression) in expressions {
        let network = one(input, op);
        assert_eq!(forward(&network), [&format!("x = {expression}"), "return x"]);
    }
    let gathered = text(&one(&image, Op::Select { axis: 0, indices: vec![2, 0] }));
    let buffer = "self.register_buffer(\"op_indices\", torch.tensor([\n            2, 0,\n        ]), persistent=False)\n";
    assert!(gathered.contains(buffer), "{gathered}");
}

/// A network of one operation, which takes its input as often as it takes something.
fn one(input: &[usize], op: Op) -> Graph {
    graph(input, |b, x| {
        let inputs = vec![x; op.arity().unwrap_or(3)];
        b.node("op", op, &inputs)
    })
}

fn expect(input: &[usize], op: Op, module: &str) {
    let network = one(input, op);
    let text = text(&network);
    assert!(text.contains(&format!("        self.op = {module}\n")), "{module} is not in\n{text}");
    assert_eq!(forward(&network), ["x = self.op(x)", "return x"]);
    let class = module.split('(').next().unwrap();
    let defined = text.contains(&format!("class {class}("));
    assert_eq!(defined, !class.starts_with("nn."), "{text}");
}

#[test]
fn a_prefix_that_is_no_part_of_the_network_holds_its_modules() {
    // The two halves of `side` are called at different places, and what is between needs the first.
    let network = graph(&[4, 5, 5], |b, x| {
        let y = b.conv("side.a", x, 4, 1, 1, 1)?;
        let z = b.conv("main", y, 4, 1, 1, 1)?;
        let z = b.conv("side.b", z, 4, 1, 1, 1)?;
        b.add("sum", y, z)
    });
    let text = text(&network);
    assert!(
        text.contains("        self.side = nn.Module()\n        self.side.a = nn.Conv2d(4, 4, 1"),
        "{text}"
    );
    let lines = ["x = self.side.a(x)", "y = self.main(x)", "y = self.side.b(y)", "y = x + y"];
    // The sum is the last to read both.
    assert_eq!(forward(&network)[..3], lines[..3]);
    assert_eq!(forward(&network)[3..], ["x = x + y", "return x"]);
}

#[test]
fn names_that_python_cannot_spell_are_quoted() {
    let network = graph(&[4, 5, 5], |b, x| {
        let x = b.conv("train", x, 4, 1, 1, 1)?;
        let x = b.conv("a-b", x, 4, 1, 1, 1)?;
        let x = b.conv("x\"] = 0\nimport os", x, 4, 1, 1, 1)?;
        b.activation("/act/Relu\n", x, Activation::Relu)
    })
    .renamed("\"\"\"\nimport os\n\\");
    let text = text(&network);
    assert!(text.contains("        self._modules[\"train\"] = nn.Conv2d(4, 4, 1, bias=False)\n"), "{text}");
    assert_eq!(
        forward(&network),
        [
            "x = self._modules[\"train\"](x)",
            "x = self._modules[\"a-b\"](x)",
            "x = self._modules[\"x\\\"] = 0\\U0000000aimport os\"](x)",
            "x = self.act_Relu(x)",
            "return x"
        ]
    );
    assert!(!text.lines().any(|line| line.trim_start().starts_with("import os")), "{text}");
}

#[test]
fn modules_that_torch_cannot_nest_are_refused() {
    let network = graph(&[4, 5, 5], |b, x| {
        let x = b.conv("conv", x, 4, 1, 1, 1)?;
        b.conv("conv.weight", x, 4, 1, 1, 1)
    });
    let error = student(&network, "w", "").unwrap_err();
    assert!(matches!(&error, Error::Name { node, .. } if node == "conv.weight"), "{error}");

    let deep = format!("{}conv", "a.".repeat(100_000));
    let network = graph(&[4, 5, 5], |b, x| b.conv(&deep, x, 4, 1, 1, 1));
    assert!(matches!(student(&network, "w", ""), Err(Error::Deep { .. })));
}

#[test]
fn a_module_may_hold_others_beside_its_own_parameters() {
    let network = graph(&[4, 5, 5], |b, x| {
        let x = b.conv("conv", x, 4, 1, 1, 1)?;
        b.batch_norm("conv.bn", x)
    });
    let text = text(&network);
    let expected =
        "        self.conv = nn.Conv2d(4, 4, 1, bias=False)\n        self.conv.bn = nn.BatchNorm2d(4)\n";
    assert!(text.contains(expected), "{text}");
    assert_eq!(forward(&network), ["x = self.conv(x)", "x = self.conv.bn(x)", "return x"]);
}

/// PyTorch's older exporter names what the module `act` does `act.Relu`.
#[test]
fn a_module_that_is_alone_in_another_takes_its_place() {
    let window = Window::square(2, 2, 0);
    let network = graph(&[4, 8, 8], |b, x| {
        let x = b.conv("features.0", x, 4, 3, 1, 1)?;
        let x = b.activation("features.1.Relu", x, Activation::Relu)?;
        let x = b.node("features.2.MaxPool", Op::MaxPool { window }, &[x])?;
        let mut x = b.activation("outer.inner.act.HardSwish", x, Activation::HardSwish)?;
        for block in ["layer.0", "layer.1"] {
            let y = b.conv(&format!("{block}.conv"), x, 4, 3, 1, 1)?;
            let y = b.activation(&format!("{block}.relu.Relu"), y, Activation::Relu)?;
            let y = b.add(&format!("{block}.Add"), y, x)?;
            x = b.activation(&format!("{block}.relu_1.Relu"), y, Activation::Relu)?;
        }
        let x = b.node("avgpool.GlobalAveragePool", Op::GlobalAveragePool, &[x])?;
        b.node("Flatten", Op::Flatten, &[x])
    });
    let text = text(&network);
    let expected = r#"

class Layer_0(nn.Module):
    """layer.0, layer.1: [n, 4, 4, 4] to [n, 4, 4, 4]."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.relu_1 = nn.ReLU()

    def forward(self, x):
        y = self.conv(x)
        y = self.relu(y)
        y = y + x
        y = self.relu_1(y)
        return y


class Student(nn.Module):
    """net: images [n, 4, 8, 8] to [n, 4]."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.outer = nn.Hardswish()
        self.layer = nn.Sequential(
            Layer_0(),
            Layer_0(),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.Flatten = nn.Flatten()
"#;
    assert!(text.contains(expected), "{text}");
}

/// What holds a parameter, another module, or the place of a layer that is left out, holds it still.
#[test]
fn modules_that_are_not_alone_stay_where_they_are() {
    let network = graph(&[4, 8, 8], |b, x| {
        let x = b.batch_norm("norm.bn", x)?;
        let x = b.activation("both.a", x, Activation::Relu)?;
        let x = b.activation("both.b", x, Activation::Silu)?;
        let x = b.layer("kept.0", "kept", x, |_, x| Ok(x))?;
        b.activation("kept.1.Relu", x, Activation::Relu)
    });
    let text = text(&network);
    for line in ["self.bn = nn.BatchNorm2d(4)", "self.a = nn.ReLU()", "self.b = nn.SiLU()"] {
        assert!(text.contains(&format!("        {line}\n")), "{text}");
    }
    let sequence = "            nn.Identity(),  # kept.0 is left out\n            nn.ReLU(),\n";
    assert!(text.contains(sequence), "{text}");
}

#[test]
fn what_the_output_does_not_need_is_loaded_but_not_called() {
    let conv = |name: &str| Node {
        name: name.into(),
        op: Op::Conv2d(Conv2d {
            in_channels: 2,
            out_channels: 2,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [0; 4],
            groups: 1,
            bias: false,
        }),
        inputs: vec![Value::INPUT],
    };
    let nodes = vec![conv("head.0"), conv("head.1")];
    let network = Graph::new("net", Shape::image(2, 3, 3), nodes, Value::of_node(1), Vec::new()).unwrap();
    assert_eq!(text(&network).matches("nn.Conv2d(").count(), 2);
    assert_eq!(forward(&network), ["x = self.head[1](x)", "return x"]);

    let network = Graph::new("net", Shape::image(2, 3, 3), Vec::new(), Value::INPUT, Vec::new()).unwrap();
    assert_eq!(forward(&network), ["return x"]);
}

#[test]
fn notes_stand_at_the_top() {
    let network = graph(&[4, 5, 5], |b, x| b.conv("conv", x, 4, 1, 1, 1));
    let text = student(&network, "w.safetensors", "Pixels are \"scaled\".\nTwice.").unwrap();
    let head = "\"\"\"net, a student made by lana, in PyTorch.\n\nPixels are \\\"scaled\\\".\n\nTwice.\n\nModules are named as in w.safetensors,";
    assert!(text.starts_with(head), "{text}");
    assert!(text.contains("def load(path=Path(__file__).with_name(\"w.safetensors\")):"), "{text}");
}
