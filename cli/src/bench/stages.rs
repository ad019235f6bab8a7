//! The stages, each done again from its start in every run. What a conditioner may keep from one
//! call to the next cannot shorten any of them: `encode` asks the encoders themselves, and the stages
//! that ask the conditioner have other texts in every run.

use std::hint::black_box;

use anyhow::{Context as _, Result};
use sd_conditioner::candle_core::{Device, Tensor};
use sd_conditioner::encoder::{ClipSkip, ClipText, Encoded, Readout, Window};
use sd_conditioner::tokens::{Chunk, Chunks};
use sd_conditioner::weights::EncoderId;
use sd_conditioner::{Conditioner, Guidance, Request};

use super::PAIR;

/// Loaded encoders and what they are given.
pub(super) struct Bench<'a> {
    text: &'a Conditioner,
    towers: Vec<Tower>,
    /// What `assemble` starts from.
    guidance: Guidance,
    windows: usize,
    batch: usize,
}

/// One encoder, what the family reads from it, and its windows.
struct Tower {
    clip: ClipText,
    chunks: Vec<Chunk>,
    readouts: Vec<Readout>,
}

/// A stage by its name in the table.
pub(super) struct Stage<'a> {
    pub(super) name: &'static str,
    /// Windows that are worked on in each run.
    pub(super) windows: usize,
    pub(super) work: Box<dyn Fn(usize) -> Result<()> + 'a>,
}

/// A prompt of one window that no other stage, run or place has.
fn prompt(stage: &str, run: usize, place: usize) -> String {
    format!("a lighthouse on a cliff at dusk, drifting fog, {stage} {run}, view {place}")
}

impl<'a> Bench<'a> {
    /// Prepares what the stages start from; nothing large is encoded.
    pub(super) fn new(text: &'a Conditioner, windows: usize, batch: usize) -> Result<Bench<'a>> {
        let texts: Vec<String> = (0..windows)
            .map(|place| prompt("encode", 0, place))
            .collect();
        let chunks = tokens(text, &texts)?;
        let towers = text.encoders().enumerate().map(|(place, clip)| {
            let chunks = chunks.iter().flat_map(|of_text| of_text[place].1.iter());
            let chunks: Vec<Chunk> = chunks.cloned().collect();
            let readout = readout(text, &clip)?;
            Ok(Tower {
                clip,
                readouts: vec![readout; chunks.len()],
                chunks,
            })
        });
        let towers = towers.collect::<Result<_>>()?;
        let one = |place| prompt("assemble", 0, place);
        Ok(Bench {
            text,
            towers,
            guidance: text.encode_pair(one(0).as_str(), one(1).as_str())?,
            windows,
            batch,
        })
    }

    /// What is run many times, in the order of the table.
    pub(super) fn stages(&self) -> [Stage<'_>; 5] {
        let stage = |name, windows, work| Stage {
            name,
            windows,
            work,
        };
        [
            stage("tokens", self.windows, Box::new(|run| self.tokens(run))),
            stage("encode", self.windows, Box::new(|_| self.encode())),
            stage("assemble", PAIR, Box::new(|_| self.assemble())),
            stage("pair", PAIR, Box::new(|run| pair(self.text, run + 1))),
            stage("batch", self.batch, Box::new(|run| self.batch(run))),
        ]
    }

    /// Texts → windows of ids, for each encoder.
    fn tokens(&self, run: usize) -> Result<()> {
        let texts: Vec<String> = (0..self.windows)
            .map(|place| prompt("tokens", run, place))
            .collect();
        black_box(tokens(self.text, &texts)?);
        Ok(())
    }

    /// Ids on the host → hidden states with all encoders' channels, and the pooled vectors that the
    /// family's U-Net takes, on the device.
    fn encode(&self) -> Result<()> {
        // As in a conditioner: SDXL's second encoder takes longer, so it begins, where they run side by side.
        let encoded = self.towers.iter().rev().map(Tower::encode);
        let mut encoded = encoded.collect::<Result<Vec<Encoded>>>()?;
        encoded.reverse();
        let hidden: Vec<&Tensor> = encoded.iter().map(|one| &one.hidden).collect();
        let context = match hidden[..] {
            [one] => one.clone(),
            _ => Tensor::cat(&hidden, 2)?,
        };
        wait(context.device())?;
        black_box((context, encoded));
        Ok(())
    }

    /// A pair's conditionings → the batch of two that a U-Net takes, size vector and all.
    fn assemble(&self) -> Result<()> {
        let batch = self.guidance.stacked()?;
        let vector = batch.vector()?;
        wait(batch.context().device())?;
        black_box((batch, vector));
        Ok(())
    }

    /// Many prompts in one call, from texts to conditionings.
    fn batch(&self, run: usize) -> Result<()> {
        let texts: Vec<String> = (0..self.batch)
            .map(|place| prompt("batch", run, place))
            .collect();
        let requests: Vec<Request<'_>> = texts.iter().map(|text| Request::new(text)).collect();
        let made = self.text.encode_batch(&requests)?;
        let last = made.last().context("nothing was encoded")?;
        wait(last.context().device())?;
        black_box(made);
        Ok(())
    }
}

impl Tower {
    fn encode(&self) -> Result<Encoded> {
        let windows: Vec<Window<'_>> = self.chunks.iter().map(Window::from).collect();
        Ok(self.clip.encode(&windows, &self.readouts)?)
    }
}

/// A prompt and its negative, from texts to the batch that a U-Net takes.
pub(super) fn pair(text: &Conditioner, run: usize) -> Result<()> {
    let [positive, negative] = [0, 1].map(|place| prompt("pair", run, place));
    let guidance = text.encode_pair(positive.as_str(), negative.as_str())?;
    let batch = guidance.stacked()?;
    let vector = batch.vector()?;
    wait(batch.context().device())?;
    black_box((batch, vector));
    Ok(())
}

type Windows = Vec<(EncoderId, Chunks)>;

/// The windows of each text, for each encoder.
fn tokens(text: &Conditioner, texts: &[String]) -> Result<Vec<Windows>> {
    let each = texts.iter().map(|one| Ok(text.chunks(one.as_str())?));
    each.collect()
}

/// What the family's U-Net takes from one encoder.
fn readout(text: &Conditioner, clip: &ClipText) -> Result<Readout> {
    let (family, config) = (text.family(), clip.config());
    let pooled = Readout::pooled_of(family, config.encoder);
    let readout = Readout::of(family, config, ClipSkip::Default, pooled)?;
    Ok(readout)
}

/// A device works on while the host is done already.
fn wait(device: &Device) -> Result<()> {
    Ok(device.synchronize()?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use sd_conditioner::Family;
    use sd_conditioner::weights::SyntheticSize;

    use super::*;

    /// Also one after the other in one conditioner, which keeps what it encoded.
    #[test]
    fn no_stage_is_answered_by_what_another_one_left() {
        let builder = Conditioner::builder();
        let text = builder.random_weights(Family::Sd1, SyntheticSize::Tiny, 73);
        let text = text.unwrap();
        pair(&text, 0).unwrap();
        let bench = Bench::new(&text, 2, 2).unwrap();
        for run in 0..3 {
            for stage in bench.stages() {
                (stage.work)(run).unwrap();
            }
        }
        assert_eq!(text.cache_stats().hits, 0);
    }

    #[test]
    fn windows_are_as_many_as_asked_for_and_all_differ() {
        let builder = Conditioner::builder();
        let text = builder.random_weights(Family::Sdxl, SyntheticSize::Tiny, 73);
        let text = text.unwrap();
        let bench = Bench::new(&text, 300, 1).unwrap();
        assert_eq!(bench.towers.len(), 2);
        for tower in &bench.towers {
            let ids: HashSet<_> = tower.chunks.iter().map(Chunk::ids).collect();
            assert_eq!((ids.len(), tower.readouts.len()), (300, 300));
        }
        assert_eq!(
            bench.towers[0].encode().unwrap().projected.map(|_| ()),
            None
        );
        let projected = bench.towers[1].encode().unwrap().projected.unwrap();
        assert_eq!(projected.dims(), [300, 256]);
    }
}
