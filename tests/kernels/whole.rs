//! The call that runs an encoder whole, without a card: kernels that answer it with plain operations, and
//! the same encoder operation by operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sd_conditioner::candle_core::{DType, Device, Result as Candle, Tensor};
use sd_conditioner::encoder::{ClipConfig, ClipText, Pooled, Readout, Window};
use sd_conditioner::error::Result;
use sd_conditioner::kernels::{
    Activation, Batch, Block, Kernels, Prepared, Product, ReadOut, Reference, WholeEncoder,
};
use sd_conditioner::tokens::{Chunk, Chunks, Tokenizer};
use sd_conditioner::weights::{EncoderId, Synthetic, SyntheticSize};
use sd_conditioner::{Profile, Prompt};

use crate::support::close::assert_close;

/// Plain operations behind the one call; counts how often an encoder is prepared.
#[derive(Debug)]
struct Whole {
    plain: Reference,
    prepared: AtomicUsize,
}

impl Whole {
    fn product(&self, x: &Tensor, product: Product<'_>) -> Result<Tensor> {
        let weight = product.weight.tensor().unwrap();
        self.plain.linear(x, weight, Some(product.bias))
    }

    fn block(
        &self,
        x: &Tensor,
        block: &Block<'_>,
        batch: &Batch<'_>,
        heads: usize,
    ) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let normed = self
            .plain
            .layer_norm(x, block.norm1.weight, block.norm1.bias)?;
        let stacked = self.product(&normed, block.query_key_value)?;
        let stacked = stacked.reshape((rows / 77, 77, 3 * width))?;
        let keys = batch.hidden_keys.as_ref();
        let keys = keys.map(|keys| Tensor::from_slice(keys, (rows / 77, 77), x.device()));
        let keys = keys.transpose()?;
        let mixed = self
            .plain
            .causal_attention(&stacked, heads, keys.as_ref())?;
        let x = (x + self.product(&mixed.reshape((rows, width))?, block.out)?)?;
        let normed = self
            .plain
            .layer_norm(&x, block.norm2.weight, block.norm2.bias)?;
        let inner = self.product(&normed, block.up)?;
        let inner = self.plain.activate(&inner, Activation::GeluErf)?;
        Ok((&x + self.product(&inner, block.down)?)?)
    }

    fn embedded(encoder: &WholeEncoder<'_>, batch: &Batch<'_>) -> Candle<Tensor> {
        let ids = Tensor::new(batch.ids.clone(), &Device::Cpu)?;
        let rows = encoder.token_embedding.index_select(&ids, 0)?;
        let mut rows: Vec<Tensor> = rows.chunk(batch.ids.len(), 0)?;
        for (row, vector) in &batch.vectors {
            rows[*row] = vector.unsqueeze(0)?;
        }
        let positions = vec![encoder.position_embedding.clone(); batch.ends.len()];
        Tensor::cat(&rows, 0)? + Tensor::cat(&positions, 0)?
    }

    fn answer(&self, encoder: &WholeEncoder<'_>, batch: &Batch<'_>) -> Result<ReadOut> {
        let mut states = vec![Whole::embedded(encoder, batch)?];
        for block in &encoder.tower.blocks {
            let x = states.last().unwrap();
            states.push(self.block(x, block, batch, encoder.tower.heads)?);
        }
        let norm = encoder.final_norm;
        let normed = |x: &Tensor| self.plain.layer_norm(x, norm.weight, norm.bias);
        let hidden = &states[batch.layer];
        let hidden = if batch.final_norm {
            normed(hidden)?
        } else {
            hidden.clone()
        };
        let ends = batch
            .ends
            .iter()
            .zip(0..)
            .map(|(end, window)| window * 77 + end);
        let ends = Tensor::from_iter(ends, &Device::Cpu)?;
        let pooled = batch
            .pooled
            .map(|pooled| normed(&states[pooled.layer].index_select(&ends, 0)?));
        let pooled = pooled.transpose()?;
        let projects = batch.pooled.is_some_and(|pooled| pooled.projected);
        let projected = projects.then(|| {
            let (rows, matrix) = (pooled.as_ref().unwrap(), encoder.projection.unwrap());
            self.plain.linear(rows, matrix, None)
        });
        let shape = (batch.ends.len(), 77, hidden.dim(1)?);
        Ok(ReadOut {
            hidden: hidden.reshape(shape)?,
            projected: projected.transpose()?,
            normed: pooled,
        })
    }
}

impl Kernels for Whole {
    fn name(&self) -> &'static str {
        "whole"
    }

    fn linear(&self, _: &Tensor, _: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
        unreachable!("the encoder is run whole")
    }

    fn layer_norm(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Tensor> {
        unreachable!("the encoder is run whole")
    }

    fn activate(&self, _: &Tensor, _: Activation) -> Result<Tensor> {
        unreachable!("the encoder is run whole")
    }

    fn causal_attention(&self, _: &Tensor, _: usize, _: Option<&Tensor>) -> Result<Tensor> {
        unreachable!("the encoder is run whole")
    }

    fn encode<'a>(
        &self,
        encoder: &dyn Fn() -> Option<WholeEncoder<'a>>,
        batch: &Batch<'_>,
        prepared: &Prepared,
    ) -> Result<Option<ReadOut>> {
        let prepare = || {
            self.prepared.fetch_add(1, Ordering::Relaxed);
            Ok(Arc::new(()) as Arc<_>)
        };
        prepared.get_or_make(prepare)?;
        self.answer(&encoder().unwrap(), batch).map(Some)
    }
}

fn plain_encoder() -> ClipText {
    let source = Synthetic::new(EncoderId::OpenClipG, SyntheticSize::Tiny, 73);
    let config = ClipConfig::detect(EncoderId::OpenClipG, &source).unwrap();
    let kernels = Arc::new(Reference::new(&Device::Cpu).unwrap());
    let kept = DType::F32.into();
    ClipText::load(
        &source,
        &config,
        kept,
        kernels,
        &Device::Cpu,
        &mut |_, _| (),
    )
    .unwrap()
}

fn whole() -> Arc<Whole> {
    let plain = Reference::new(&Device::Cpu).unwrap();
    Arc::new(Whole {
        plain,
        prepared: AtomicUsize::new(0),
    })
}

fn chunks() -> Vec<Chunk> {
    let rules = Profile::ComfyUi.choices();
    let texts = [
        "",
        "a cat",
        "a lighthouse at dusk, fog",
        "a red door in a white wall",
    ];
    let each = texts.iter().map(|text| {
        let prompt = Prompt::parse(text, rules.dialect);
        let chunks = Chunks::of(
            &prompt,
            Tokenizer::clip(),
            rules.chunk_rule(EncoderId::OpenClipG),
        );
        chunks.iter().next().unwrap().clone()
    });
    each.collect()
}

#[test]
fn an_encoder_run_whole_gives_what_its_operations_give() {
    let (plain, kernels) = (plain_encoder(), whole());
    let fast = plain.with_kernels(kernels);
    let chunks = chunks();
    let vector = Tensor::arange(0.0_f32, 256.0, &Device::Cpu).unwrap();
    let vector = (vector / 256.0).unwrap();
    let mut hidden = [false; 77];
    hidden[2..9].fill(true);
    let windows: Vec<Window<'_>> = vec![
        Window::from(&chunks[0]),
        Window::from(&chunks[1]).with_vector(2, vector),
        Window::from(&chunks[2]).hiding(hidden),
        Window::from(&chunks[3]),
    ];
    let full = Readout {
        layer: 3,
        final_norm: false,
        pooled: Pooled::Projected,
        pooled_layer: 4,
    };
    let shallow = Readout {
        layer: 2,
        final_norm: true,
        pooled: Pooled::Skip,
        ..full
    };
    let normed = Readout {
        pooled: Pooled::Normed,
        pooled_layer: 3,
        ..full
    };
    for readouts in [
        [full; 4],
        [shallow; 4],
        [full, shallow, shallow, full],
        [shallow, full, normed, full],
    ] {
        let ours = fast.encode(&windows, &readouts).unwrap();
        let theirs = plain.encode(&windows, &readouts).unwrap();
        assert_close("hidden", &ours.hidden, &theirs.hidden, 1e-5);
        for (place, readout) in readouts.iter().enumerate() {
            let row = |all: Option<&Tensor>| all.map(|all| all.narrow(0, place, 1).unwrap());
            let (ours, theirs) = (
                row(ours.pooled(readout.pooled)),
                row(theirs.pooled(readout.pooled)),
            );
            assert_eq!(ours.is_some(), readout.pooled != Pooled::Skip);
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                assert_close("pooled", &ours, &theirs, 1e-5);
            }
        }
    }
}

#[test]
fn what_was_prepared_belongs_to_its_tensors() {
    let (plain, kernels) = (plain_encoder(), whole());
    let fast = plain.with_kernels(kernels.clone());
    let chunks = chunks();
    let windows = [Window::from(&chunks[1])];
    let readout = [Readout {
        layer: 1,
        final_norm: false,
        pooled: Pooled::Skip,
        pooled_layer: 4,
    }];
    let count = || kernels.prepared.load(Ordering::Relaxed);
    let both = [fast.clone(), fast];
    for clip in &both {
        clip.encode(&windows, &readout).unwrap();
    }
    assert_eq!(count(), 1, "clones share it");
    let [_, fast] = both;
    let mut twice = |name: &str, tensor: &Tensor| match name {
        "token_embedding" => Ok(Some((tensor * 2.0)?)),
        _ => Ok(None),
    };
    let changed = fast.with_changes(&mut twice).unwrap();
    let (ours, before) = (
        changed.encode(&windows, &readout).unwrap(),
        fast.encode(&windows, &readout).unwrap(),
    );
    assert_eq!(count(), 2, "other tensors have one of their own");
    let moved = (ours.hidden - before.hidden)
        .unwrap()
        .abs()
        .unwrap()
        .max_all()
        .unwrap();
    assert!(moved.to_scalar::<f32>().unwrap() > 1e-3);
}
