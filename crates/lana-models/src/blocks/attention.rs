//! Layers in which every pixel looks at every other one.
//!
//! Inside, a feature map of `h·w` pixels is a matrix with a row for each pixel (*token*). Products of matrices, softmax and
//! changes of dimensions are nodes of their own, so that what is exported is what every runtime knows.

use lana_graph::{Activation, Conv2d, GraphBuilder, Op, Result, Shape, Value};

fn reshape(b: &mut GraphBuilder, name: &str, x: Value, shape: &[usize]) -> Result<Value> {
    b.node(name, Op::Reshape { shape: shape.to_vec() }, &[x])
}

fn transpose(b: &mut GraphBuilder, name: &str, x: Value, order: &[usize]) -> Result<Value> {
    b.node(name, Op::Transpose { order: order.to_vec() }, &[x])
}

fn select(b: &mut GraphBuilder, name: &str, x: Value, axis: usize, indices: Vec<usize>) -> Result<Value> {
    b.node(name, Op::Select { axis, indices }, &[x])
}

fn linear(b: &mut GraphBuilder, name: &str, x: Value, out_features: usize, bias: bool) -> Result<Value> {
    b.node(name, Op::Linear { out_features, bias }, &[x])
}

fn mat_mul(b: &mut GraphBuilder, name: &str, x: Value, y: Value) -> Result<Value> {
    b.node(name, Op::MatMul, &[x, y])
}

fn scaled(b: &mut GraphBuilder, x: Value, size: usize) -> Result<Value> {
    b.node("scale", Op::Scale { factor: (1.0 / (size as f64).sqrt()) as f32 }, &[x])
}

fn sides(b: &GraphBuilder, x: Value) -> (usize, usize, usize) {
    b.shape(x).as_image().unwrap_or((b.shape(x).elements(), 1, 1))
}

/// The encoder of the Vision Transformer (Dosovitskiy et al. 2021) between two convolutions.
///
/// A patch embedding (a convolution whose kernel is its stride, `patch_embed`; missing rows and columns are zeros) makes
/// tokens, a learned position embedding is added (`pos_embed`), `depth` pre-norm blocks of attention and a multilayer
/// perceptron of four times the width with GELU follow (`blocks.N.*`), and a last normalisation (`norm`). The tokens are
/// then a feature map of `dim` channels again. There is no class token: nothing reads one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transformer {
    /// Number of blocks.
    pub depth: usize,
    /// Length of a token.
    pub dim: usize,
    /// Heads of the attention, which must divide `dim`.
    pub heads: usize,
    /// Height and width of the patch that becomes a token.
    pub patch: usize,
}

impl Transformer {
    /// Adds it behind the feature map `x`.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let (channels, h, w) = sides(b, x);
        let missing = |size: usize| size.next_multiple_of(self.patch) - size;
        let embed = Conv2d {
            in_channels: channels,
            out_channels: self.dim,
            kernel: [self.patch; 2],
            stride: [self.patch; 2],
            dilation: [1; 2],
            padding: [0, 0, missing(h), missing(w)],
            groups: 1,
            bias: true,
        };
        let y = b.node("patch_embed", Op::Conv2d(embed), &[x])?;
        let (_, h, w) = sides(b, y);
        let y = reshape(b, "tokens", y, &[self.dim, h * w])?;
        let y = transpose(b, "rows", y, &[1, 0])?;
        let mut y = b.node("pos_embed", Op::AddParameter { shared: Vec::new() }, &[y])?;
        for number in 0..self.depth {
            y = b.scoped(&format!("blocks.{number}"), |b| self.block(b, y))?;
        }
        let y = b.node("norm", Op::LayerNorm { eps: 1e-6 }, &[y])?;
        let y = transpose(b, "columns", y, &[1, 0])?;
        reshape(b, "map", y, &[self.dim, h, w])
    }

    fn block(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let (tokens, size) = (b.shape(x).channels(), self.dim / self.heads);
        let y = b.node("norm1", Op::LayerNorm { eps: 1e-6 }, &[x])?;
        let y = b.scoped("attn", |b| {
            let part = |b: &mut GraphBuilder, name: &str, order: &[usize]| {
                let p = linear(b, name, y, self.dim, true)?;
                let p = reshape(b, &format!("{name}_heads"), p, &[tokens, self.heads, size])?;
                transpose(b, &format!("{name}_rows"), p, order)
            };
            let q = part(b, "q", &[1, 0, 2])?;
            let q = scaled(b, q, size)?;
            let k = part(b, "k", &[1, 2, 0])?;
            let a = mat_mul(b, "logits", q, k)?;
            let a = b.node("softmax", Op::Softmax { axis: 2 }, &[a])?;
            let v = part(b, "v", &[1, 0, 2])?;
            let y = mat_mul(b, "values", a, v)?;
            let y = transpose(b, "joined", y, &[1, 0, 2])?;
            let y = reshape(b, "flat", y, &[tokens, self.dim])?;
            linear(b, "proj", y, self.dim, true)
        })?;
        let x = b.add("add1", y, x)?;
        let y = b.node("norm2", Op::LayerNorm { eps: 1e-6 }, &[x])?;
        let y = b.scoped("mlp", |b| {
            let y = linear(b, "fc1", y, 4 * self.dim, true)?;
            let y = b.activation("act", y, Activation::Gelu)?;
            linear(b, "fc2", y, self.dim, true)
        })?;
        b.add("add2", y, x)
    }
}

/// The attention of Bottleneck Transformers (Srinivas et al. 2021): all pixels to all, with relative position embeddings.
///
/// Queries, keys and values are 1×1 convolutions (`q`, `k`, `v`) without bias. A query looks at a pixel by
/// `q·k + q·r`, where `r` is the sum of an embedding of the difference in rows and one of that in columns: the products
/// with all `2·size − 1` differences are a matrix (`rel_h`, `rel_w`), from which each pair of pixels takes its own. The
/// query is scaled by the root of its length in both terms, as in the authors' code. As many channels come out as go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativeAttention {
    /// Number of heads, which must divide the channels.
    pub heads: usize,
}

impl RelativeAttention {
    /// Adds it behind the feature map `x`.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let (channels, h, w) = sides(b, x);
        let (heads, tokens, size) = (self.heads, h * w, channels / self.heads);
        b.scoped("attn", |b| {
            let part = |b: &mut GraphBuilder, name: &str| {
                let p = b.conv(name, x, channels, 1, 1, 1)?;
                reshape(b, &format!("{name}_heads"), p, &[heads, size, tokens])
            };
            let q = part(b, "q")?;
            let q = transpose(b, "q_rows", q, &[0, 2, 1])?;
            let q = scaled(b, q, size)?;
            // Of the differences of columns, those between a pixel's own and each other: [heads, rows, columns, columns].
            let differences = |size: usize| {
                (0..size * size).map(move |at| {
                    let (own, other) = (at / size, at % size);
                    own * (2 * size - 1) + (other + size - 1 - own)
                })
            };
            let r = linear(b, "rel_w", q, 2 * w - 1, false)?;
            let r = reshape(b, "rel_w_rows", r, &[heads * h, w * (2 * w - 1)])?;
            let r = select(b, "rel_w_pairs", r, 1, differences(w).collect())?;
            let r = reshape(b, "rel_w_columns", r, &[heads * tokens, w])?;
            let r = select(b, "rel_w_all", r, 1, (0..tokens).map(|at| at % w).collect())?;
            let columns = reshape(b, "rel_w_map", r, &[heads, tokens, tokens])?;
            // Likewise of the rows, with the columns in front of them for a while.
            let r = linear(b, "rel_h", q, 2 * h - 1, false)?;
            let r = reshape(b, "rel_h_map", r, &[heads, h, w, 2 * h - 1])?;
            let r = transpose(b, "rel_h_turned", r, &[0, 2, 1, 3])?;
            let r = reshape(b, "rel_h_columns", r, &[heads * w, h * (2 * h - 1)])?;
            let r = select(b, "rel_h_pairs", r, 1, differences(h).collect())?;
            let r = reshape(b, "rel_h_split", r, &[heads, w, h, h])?;
            let r = transpose(b, "rel_h_back", r, &[0, 2, 1, 3])?;
            let r = reshape(b, "rel_h_rows", r, &[heads * tokens, h])?;
            let r = select(b, "rel_h_all", r, 1, (0..tokens).map(|at| at / w).collect())?;
            let rows = reshape(b, "rel_h_whole", r, &[heads, tokens, tokens])?;

            let k = part(b, "k")?;
            let a = mat_mul(b, "content", q, k)?;
            let a = b.add("add_w", a, columns)?;
            let a = b.add("add_h", a, rows)?;
            let a = b.node("softmax", Op::Softmax { axis: 2 }, &[a])?;
            let v = part(b, "v")?;
            let v = transpose(b, "v_rows", v, &[0, 2, 1])?;
            let y = mat_mul(b, "values", a, v)?;
            let y = transpose(b, "columns", y, &[0, 2, 1])?;
            reshape(b, "map", y, &[channels, h, w])
        })
    }
}

/// The lambda layer (Bello 2021): what surrounds a pixel becomes a linear function, which is applied to its query.
///
/// As in timm's `LambdaLayer`: queries of `heads · key` channels and values of `channels / heads` with BatchNorm, keys
/// of `key` channels with a softmax over the pixels. Content makes one function for all pixels, `softmax(K)·V`; position
/// makes one for each, a convolution of the values by `scope`×`scope` embeddings that all of them share (`conv_lambda`,
/// the lambda convolution of the paper's section 3.2). As many channels come out as go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LambdaLayer {
    /// Number of heads, which must divide the channels.
    pub heads: usize,
    /// Length of a query.
    pub key: usize,
    /// Height and width of the surroundings; odd.
    pub scope: usize,
}

impl LambdaLayer {
    /// Adds it behind the feature map `x`.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let (channels, h, w) = sides(b, x);
        let (heads, key, value, tokens) = (self.heads, self.key, channels / self.heads, h * w);
        b.scoped("attn", |b| {
            let q = b.conv("q", x, heads * key, 1, 1, 1)?;
            let q = b.batch_norm("norm_q", q)?;
            let q = reshape(b, "q_heads", q, &[heads, key, tokens])?;
            let q = transpose(b, "q_rows", q, &[2, 0, 1])?;

            let k = b.conv("k", x, key, 1, 1, 1)?;
            let k = reshape(b, "k_tokens", k, &[key, tokens])?;
            let k = b.node("softmax", Op::Softmax { axis: 1 }, &[k])?;

            let v = b.conv("v", x, value, 1, 1, 1)?;
            let v = b.batch_norm("norm_v", v)?;
            let v = reshape(b, "v_tokens", v, &[value, tokens])?;
            let v = transpose(b, "v_rows", v, &[1, 0])?;

            let content = mat_mul(b, "content", k, v)?;
            let flat = reshape(b, "q_flat", q, &[tokens * heads, key])?;
            let content = mat_mul(b, "content_out", flat, content)?;
            let content = reshape(b, "content_heads", content, &[tokens, heads, value])?;

            let position = reshape(b, "v_map", v, &[1, h, w, value])?;
            let conv = Op::Conv3d {
                out_channels: key,
                kernel: [self.scope, self.scope, 1],
                padding: [self.scope / 2, self.scope / 2, 0],
                bias: true,
            };
            let position = b.node("conv_lambda", conv, &[position])?;
            let position = reshape(b, "position", position, &[key, tokens, value])?;
            let position = transpose(b, "position_rows", position, &[1, 0, 2])?;
            let position = mat_mul(b, "position_out", q, position)?;

            let y = b.add("add", content, position)?;
            let y = transpose(b, "columns", y, &[1, 2, 0])?;
            reshape(b, "map", y, &[channels, h, w])
        })
    }
}

/// The attention weights that a layer holds at once for an image: one for each head and pair of tokens.
pub(crate) fn attention_weights(heads: usize, map: &Shape) -> usize {
    let tokens = map.as_image().map_or(1, |(_, h, w)| h * w);
    heads.saturating_mul(tokens).saturating_mul(tokens)
}
