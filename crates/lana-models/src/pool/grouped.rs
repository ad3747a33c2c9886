//! The teacher's own block with its convolutions in more groups: ResNeXt's cardinality (Xie et al. 2017) as an operation.
//!
//! Every k×k convolution is divided into g times as many groups as it has and keeps, of the teacher's kernels, those
//! within a group: 1/g of its work and weights. Where 1×1 convolutions stand around it, as in bottlenecks, these carry
//! the channels from group to group; where two convolutions in groups follow one another, as in basic blocks, a
//! channel shuffle does (Zhang et al. 2018, ShuffleNet).
//!
//! Which group an inner channel belongs to is free, since nothing outside the layer sees it: each goes where the most of
//! what it is made of and of what is made of it remains. That is found by dealing the channels out, those first for whom
//! it matters most, in turns for each set of channels.

use lana_graph::channels::{ChannelGroups, narrow_weights};
use lana_graph::{Conv2d, Graph, Node, Op, Tensor, Value, Weights};

use super::edit::{push, rewrite};
use super::moments::{input_strengths, keep_shares};
use super::name::{Arguments, Parameter, Range};
use super::preset::listed;
use super::{Family, NotApplicable, Preset, Start, any};

pub(super) static FAMILY: Family = Family {
    name: "grouped",
    summary: "the teacher's own layer, its k×k convolutions in g times as many groups, shuffled where two follow one \
              another",
    parameters: &[Parameter::new("g", Range::Whole(64.0))],
    check: any,
    members: |preset| match preset {
        Preset::Extended => listed(&["grouped-g2", "grouped-g4", "grouped-g8"]),
        _ => Vec::new(),
    },
    initialisation: "the teacher's weights within the groups, inner channels dealt out so that the most of them remains",
    build,
    initialise,
};

/// The convolutions that get more groups.
fn convs(layer: &Graph) -> Vec<(usize, &Conv2d)> {
    let nodes = layer.nodes().iter().enumerate();
    nodes
        .filter_map(|(index, node)| match &node.op {
            Op::Conv2d(c) if c.kernel != [1, 1] && !c.is_depthwise() => Some((index, c)),
            _ => None,
        })
        .collect()
}

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let times = arguments.whole("g");
    let convs = convs(layer);
    if convs.is_empty() {
        return Err(NotApplicable::new("the layer has no convolution larger than 1×1 but depthwise ones"));
    }
    for (index, conv) in &convs {
        let groups = conv.groups * times;
        if conv.in_channels % groups != 0 || conv.out_channels % groups != 0 {
            let (name, [a, b]) = (&layer.nodes()[*index].name, [conv.in_channels, conv.out_channels]);
            return Err(NotApplicable::new(format!(
                "{groups} groups do not divide {a} and {b} channels of `{name}`"
            )));
        }
    }
    let shuffled = shuffled(layer);
    for &index in &shuffled {
        let channels = layer.input_shapes(index)[0].channels();
        if !channels.is_multiple_of(times * times) {
            return Err(NotApplicable::new(format!(
                "{channels} channels cannot be dealt out between {times} groups and {times} others"
            )));
        }
    }
    Ok(rewrite(layer, |index, mut node, nodes| {
        if shuffled.contains(&index) && times > 1 {
            let channels = layer.input_shapes(index)[0].channels();
            let op = Op::ShuffleChannels { outer: times, inner: channels / times };
            let name = format!("{}_shuffle", node.name);
            node.inputs = vec![push(nodes, Node { name, op, inputs: node.inputs.clone() })];
        }
        if let (Op::Conv2d(conv), true) = (&mut node.op, convs.iter().any(|c| c.0 == index)) {
            conv.groups *= times;
        }
        push(nodes, node)
    })?)
}

/// The convolutions before which the channels are shuffled: dense ones that read what another one makes, channel by
/// channel.
fn shuffled(layer: &Graph) -> Vec<usize> {
    let sets = ChannelGroups::of(layer);
    let convs: Vec<usize> = convs(layer).into_iter().filter(|(_, c)| c.groups == 1).map(|c| c.0).collect();
    let made = |&reader: &usize| {
        let set = sets.group(layer.nodes()[reader].inputs[0]);
        sets.inner().contains(&set)
            && is_free(layer, &sets, set)
            && convs.iter().any(|&c| sets.group(Value::of_node(c)) == set)
    };
    convs.iter().copied().filter(made).collect()
}

/// Whether each channel of a set may go anywhere: not if convolutions that are in groups already, or parts, tie several
/// of them together.
fn is_free(layer: &Graph, sets: &ChannelGroups, set: usize) -> bool {
    sets.places(set) == layer.shape(Value::of_node(set - 1)).channels()
}

fn initialise(start: &Start<'_>) -> lana_graph::Result<Weights> {
    let (layer, times) = (start.layer, start.arguments.whole("g"));
    let dealt = deal_out(layer, start.layer_weights, times);
    let mut weights = dealt.clone();
    let shuffled = shuffled(layer);
    for (index, conv) in convs(layer) {
        let name = format!("{}.weight", layer.nodes()[index].name);
        let Some(mut kernel) = weights.remove(&name) else { continue };
        let mut strengths = input_strengths(layer, &dealt, index, conv);
        if shuffled.contains(&index) {
            let run = conv.in_channels / times;
            let order: Vec<usize> = (0..conv.in_channels).map(|c| c % times * run + c / times).collect();
            kernel = kernel.select(1, &order);
            strengths = order.iter().map(|&c| strengths[c]).collect();
        }
        let (inner, outer) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
        let area = conv.kernel[0] * conv.kernel[1];
        let kept = inner / times;
        let first = |out: usize| out % outer / (outer / times) * kept;
        let shares: Vec<f64> = (0..conv.out_channels)
            .map(|out| {
                let power = |i: usize| {
                    let own = &kernel.data[(out * inner + i) * area..][..area];
                    let strength = strengths[out / outer * inner + i];
                    own.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() * strength * strength
                };
                let all: f64 = (0..inner).map(power).sum();
                (first(out)..first(out) + kept).map(power).sum::<f64>() / all.max(f64::MIN_POSITIVE)
            })
            .collect();
        let rows = kernel.data.chunks_exact(inner * area).enumerate();
        let data = rows.flat_map(|(out, row)| &row[first(out) * area..][..kept * area]);
        let data = data.copied().collect();
        let shape = [&[conv.out_channels, kept], &kernel.shape[2..]].concat();
        weights.insert(name, Tensor { shape, data });
        keep_shares(layer, &mut weights, index, &shares);
    }
    Ok(weights)
}

/// The layer's weights with its inner channels in the order in which groups hold the most of them.
fn deal_out(layer: &Graph, weights: &Weights, times: usize) -> Weights {
    let sets = ChannelGroups::of(layer);
    let energies: Vec<(usize, Energy)> = convs(layer)
        .into_iter()
        .filter(|(_, c)| c.groups == 1)
        .filter_map(|(n, c)| {
            let kernel = weights.get(&format!("{}.weight", layer.nodes()[n].name))?;
            Some((n, Energy::of(c, kernel, &input_strengths(layer, weights, n, c))))
        })
        .collect();
    // Of each set of channels, and each convolution that makes or reads it, the group of every channel.
    let contiguous =
        |channels: usize| -> Vec<usize> { (0..channels).map(|c| c * times / channels).collect() };
    let mut into: Vec<Vec<usize>> = energies.iter().map(|(_, e)| contiguous(e.inputs)).collect();
    let mut out: Vec<Vec<usize>> = energies.iter().map(|(_, e)| contiguous(e.outputs())).collect();
    let mut orders: Vec<(usize, Vec<usize>)> = Vec::new();
    // Sets depend on one another where a convolution stands between them; a few turns settle them.
    const TURNS: usize = 4;
    for _ in 0..TURNS {
        orders.clear();
        for &set in sets.inner().iter().filter(|&&set| is_free(layer, &sets, set)) {
            let maker = energies.iter().position(|(n, _)| sets.group(Value::of_node(*n)) == set);
            let reader = energies.iter().position(|(n, _)| sets.group(layer.nodes()[*n].inputs[0]) == set);
            let made = maker.map(|m| energies[m].1.of_outputs(&into[m], times));
            let read = reader.map(|r| energies[r].1.of_inputs(&out[r], times));
            let gain: Vec<Vec<f64>> = match (made, read) {
                (Some(made), Some(read)) => made.iter().zip(&read).map(|(m, r)| both(m, r)).collect(),
                (Some(made), None) => made.iter().map(|m| shares(m)).collect(),
                (None, Some(read)) => read,
                (None, None) => continue,
            };
            let cells = assign(&gain);
            let count = gain[0].len();
            if let Some(m) = maker {
                out[m] = cells.iter().map(|cell| cell / (count / times)).collect();
            }
            if let Some(r) = reader {
                into[r] = cells.iter().map(|cell| cell % times).collect();
            }
            let mut order: Vec<usize> = (0..cells.len()).collect();
            order.sort_by_key(|&c| cells[c]);
            orders.push((set, order));
        }
    }
    orders.iter().fold(weights.clone(), |w, (set, order)| narrow_weights(layer, &w, *set, order))
}

/// What each output channel of a convolution has of the power of each input channel, a row for each output.
struct Energy {
    inputs: usize,
    rows: Vec<Vec<f64>>,
}

impl Energy {
    fn of(conv: &Conv2d, kernel: &Tensor, strengths: &[f64]) -> Self {
        let area = conv.kernel[0] * conv.kernel[1];
        let square = |k: &[f32]| k.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
        let row = |row: &[f32]| -> Vec<f64> {
            row.chunks_exact(area).zip(strengths).map(|(k, s)| square(k) * s * s).collect()
        };
        let rows = kernel.data.chunks_exact(conv.in_channels * area).map(row).collect();
        Energy { inputs: conv.in_channels, rows }
    }

    fn outputs(&self) -> usize {
        self.rows.len()
    }

    /// For each output channel what it has of each group of inputs.
    fn of_outputs(&self, group_of_input: &[usize], groups: usize) -> Vec<Vec<f64>> {
        let mut sums = vec![vec![0.0; groups]; self.outputs()];
        for (row, sums) in self.rows.iter().zip(&mut sums) {
            row.iter().zip(group_of_input).for_each(|(e, &g)| sums[g] += e);
        }
        sums
    }

    /// For each input channel what each group of outputs has of it.
    fn of_inputs(&self, group_of_output: &[usize], groups: usize) -> Vec<Vec<f64>> {
        let mut sums = vec![vec![0.0; groups]; self.inputs];
        for (row, &g) in self.rows.iter().zip(group_of_output) {
            row.iter().zip(&mut sums).for_each(|(e, sums)| sums[g] += e);
        }
        sums
    }
}

/// As shares of their sum.
fn shares(numbers: &[f64]) -> Vec<f64> {
    let total: f64 = numbers.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    numbers.iter().map(|x| x / total).collect()
}

/// What remains of a channel in each pair of a group that makes it and one that reads it, the latter running faster: the
/// share made counts as much as the channel is read.
fn both(made: &[f64], read: &[f64]) -> Vec<f64> {
    let weight: f64 = read.iter().sum();
    let made = shares(made);
    made.iter().flat_map(|m| read.iter().map(move |r| m * weight + r)).collect()
}

/// A cell for each channel, as many channels in each: those who would lose most choose first.
fn assign(gain: &[Vec<f64>]) -> Vec<usize> {
    let cells = gain.first().map_or(1, Vec::len);
    let mut room = vec![gain.len() / cells; cells];
    let loss = |g: &Vec<f64>| g.iter().copied().fold(0.0, f64::max) - g.iter().sum::<f64>() / cells as f64;
    let mut order: Vec<usize> = (0..gain.len()).collect();
    order.sort_by(|&a, &b| loss(&gain[b]).total_cmp(&loss(&gain[a])));
    let mut cell_of = vec![0; gain.len()];
    for channel in order {
        let open = (0..cells).filter(|&c| room[c] > 0);
        if let Some(best) = open.max_by(|&a, &b| gain[channel][a].total_cmp(&gain[channel][b])) {
            room[best] -= 1;
            cell_of[channel] = best;
        }
    }
    cell_of
}
