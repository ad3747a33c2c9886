//! Squeeze-and-excitation (Hu et al. 2018): channels gated by what the whole feature map holds.

use lana_graph::{Activation, GraphBuilder, Result, Value};

/// `x` times a gate in 0…1 per channel, computed from the channels' means through `squeezed` channels.
///
/// Two 1×1 convolutions with bias, `se.conv_reduce` and `se.conv_expand` as in timm, with `activation` between them and a
/// sigmoid behind.
pub fn squeeze_excite(
    b: &mut GraphBuilder,
    x: Value,
    squeezed: usize,
    activation: Activation,
) -> Result<Value> {
    let channels = b.shape(x).channels();
    b.scoped("se", |b| {
        let y = b.node("pool", lana_graph::Op::GlobalAveragePool, &[x])?;
        let y = b.conv_full("conv_reduce", y, squeezed, 1, 1, 1, true)?;
        let y = b.activation("act1", y, activation)?;
        let y = b.conv_full("conv_expand", y, channels, 1, 1, 1, true)?;
        let gate = b.activation("gate", y, Activation::Sigmoid)?;
        b.node("mul", lana_graph::Op::Mul, &[x, gate])
    })
}
