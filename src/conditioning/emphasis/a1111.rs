//! `z · w` and the mean restored (`modules/sd_emphasis.py`; diffusers' `lpw_stable_diffusion.py`).

use candle_core::Tensor;

use super::{Encoding, rows};
use crate::error::Result;

/// The mean is that of the n-th window of all texts of the call, equal ones as often as they are in
/// it: texts of one schedule influence each other.
pub(super) fn original(call: &[Encoding<'_>]) -> Result<Vec<Tensor>> {
    if !call.iter().any(|one| one.chunks.has_emphasis()) {
        return Ok(call.iter().map(|one| one.hidden.clone()).collect());
    }
    let most = call.iter().map(|one| one.chunks.len().get()).max();
    let mut windows: Vec<Vec<Tensor>> = vec![Vec::new(); call.len()];
    for index in 0..most.unwrap_or_default() {
        let has_it = |one: &Encoding<'_>| index < one.chunks.len().get();
        let members: Vec<usize> = (0..call.len()).filter(|one| has_it(&call[*one])).collect();
        let window = |one: &usize| Ok(call[*one].hidden.narrow(0, index, 1)?);
        let batch: Vec<Tensor> = members.iter().map(window).collect::<Result<_>>()?;
        let strengths = members
            .iter()
            .filter_map(|one| call[*one].chunks.iter().nth(index));
        let strengths = rows::strengths_of(strengths);
        let before = Tensor::cat(&batch, 0)?;
        let times: Vec<usize> = members.iter().map(|one| call[*one].times).collect();
        let after = rows::means_restored(&before, &rows::scaled(&before, &strengths)?, &times)?;
        for (place, one) in members.into_iter().enumerate() {
            windows[one].push(after.narrow(0, place, 1)?);
        }
    }
    let join = |windows: Vec<Tensor>| Ok(Tensor::cat(&windows, 0)?);
    windows.into_iter().map(join).collect()
}

/// The mean is that of the whole prompt, all its windows.
pub(super) fn per_prompt(one: &Encoding<'_>) -> Result<Tensor> {
    if !one.chunks.has_emphasis() {
        return Ok(one.hidden.clone());
    }
    let after = rows::scaled(&one.hidden, &rows::strengths(one.chunks))?;
    rows::mean_restored(&one.hidden, &after)
}
