//! In what number format to train on a processor: bfloat16 only where it is faster. Without instructions of its own it is not.

use lana_graph::Precision;

use crate::{Progress, Result};

/// The format in which a step takes less time, and the seconds that `time` gave for 32 and 16 bits. `what` begins the sentence that
/// says so: `operations are trained`.
pub(crate) fn faster(
    say: &dyn Progress,
    what: &str,
    mut time: impl FnMut(Precision) -> Result<f64>,
) -> Result<(Precision, [f64; 2])> {
    let seconds = [time(Precision::Fp32)?, time(Precision::Bf16)?];
    let is_faster = seconds[1] < 0.95 * seconds[0];
    let precision = if is_faster { Precision::Bf16 } else { Precision::Fp32 };
    say.say(&format!(
        "bf16 takes {:.2}x the time of fp32 on this processor: {what} in {precision}",
        seconds[1] / seconds[0]
    ));
    Ok((precision, seconds))
}
