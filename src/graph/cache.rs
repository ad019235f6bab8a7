//! What was encoded before, by its content.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::recipe::{Encode, Texts};
use crate::conditioner::{Conditioner, Embeddings, Request};
use crate::conditioning::Conditioning;
use crate::error::Result;
use crate::profile::Profile;
use crate::tokens::{Chunk, Chunks};
use crate::weights::EncoderId;

/// What an encoding depends on: ids, strengths and vectors of every window, encoders, LoRAs, clip
/// skip, data type and method.
pub(super) type Key = [u8; 32];

/// Encodings that are kept. Those that were not used for longest go first.
#[derive(Debug)]
pub(super) struct Cache {
    kept: HashMap<Key, Kept>,
    most: usize,
    clock: u64,
}

#[derive(Debug)]
struct Kept {
    conditioning: Conditioning,
    used: u64,
}

impl Cache {
    pub(super) fn new(most: usize) -> Cache {
        Cache {
            kept: HashMap::new(),
            most,
            clock: 0,
        }
    }

    pub(super) fn get(&mut self, key: &Key) -> Option<Conditioning> {
        self.clock += 1;
        let kept = self.kept.get_mut(key)?;
        kept.used = self.clock;
        Some(kept.conditioning.clone())
    }

    pub(super) fn put(&mut self, key: Key, conditioning: Conditioning) {
        if self.most == 0 {
            return;
        }
        self.clock += 1;
        let used = self.clock;
        self.kept.insert(key, Kept { conditioning, used });
        if self.kept.len() > self.most {
            self.forget();
        }
    }

    /// Keeps the newer three quarters.
    fn forget(&mut self) {
        let mut times: Vec<u64> = self.kept.values().map(|kept| kept.used).collect();
        times.sort_unstable();
        let oldest = times.get(times.len() / 4).copied().unwrap_or_default();
        self.kept.retain(|_, kept| kept.used > oldest);
    }
}

impl Encode {
    /// What the conditioner is asked for.
    pub(super) fn request<'a>(&'a self, embeddings: Option<&'a Embeddings>) -> Request<'a> {
        let request = match &self.texts {
            Texts::One(text) => Request::new(text),
            Texts::PerEncoder { l, g } => Request::per_encoder(l, g),
        };
        let mut request = request.profile(Profile::ComfyUi).emphasis(self.emphasis);
        if let Some(layer) = self.clip.layer {
            request = request.clip_skip(layer);
        }
        match embeddings {
            Some(embeddings) => request.embeddings(embeddings),
            None => request,
        }
    }

    /// The key of what `text` makes of it, and its windows.
    pub(super) fn key(
        &self,
        text: &Conditioner,
        request: &Request<'_>,
        embeddings: Option<&Embeddings>,
    ) -> Result<(Key, usize)> {
        let mut hash = Sha256::new();
        let settings = (&self.clip.loras, self.clip.layer, self.emphasis);
        hash.update(text.fingerprint());
        hash.update(format!("{:?} {settings:?} {}", text.dtype(), text.family()));
        let windows = text.chunks(request.clone())?;
        for ((encoder, chunks), clip) in windows.iter().zip(text.encoders()) {
            hash.update(format!("{encoder} {}", chunks.len()));
            add(&mut hash, chunks);
            if let Some(embeddings) = embeddings {
                let tower = (*encoder, clip.config().width);
                add_vectors(&mut hash, chunks, embeddings, tower)?;
            }
        }
        let longest = windows.iter().map(|(_, chunks)| chunks.len().get()).max();
        Ok((hash.finalize().into(), longest.unwrap_or(1)))
    }
}

/// What stands in for ids, as numbers: embeddings of one name may differ.
fn add_vectors(
    hash: &mut Sha256,
    chunks: &Chunks,
    embeddings: &Embeddings,
    tower: (EncoderId, usize),
) -> Result<()> {
    for splice in chunks.iter().flat_map(Chunk::splices) {
        let vector = embeddings.vector(&splice.name, splice.vector, tower)?;
        for value in vector.to_vec1::<f32>()? {
            hash.update(value.to_le_bytes());
        }
    }
    Ok(())
}

/// Everything of the windows that what is made of them depends on.
fn add(hash: &mut Sha256, chunks: &Chunks) {
    for chunk in chunks {
        for id in chunk.ids() {
            hash.update(id.to_le_bytes());
        }
        for strength in chunk.strengths() {
            hash.update(strength.to_bits().to_le_bytes());
        }
        for segment in chunk.segments() {
            hash.update(segment.to_le_bytes());
        }
        for splice in chunk.splices() {
            hash.update(splice.row.to_le_bytes());
        }
        hash.update(chunk.end().to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::weights::Family;

    #[test]
    fn the_oldest_are_forgotten() {
        let context = Tensor::zeros((1, 1, 1), DType::F32, &Device::Cpu).unwrap();
        let one = Conditioning::new(Family::Sd1, context, None, None).unwrap();
        let mut cache = Cache::new(4);
        for number in 0..4 {
            cache.put([number; 32], one.clone());
        }
        assert!(cache.get(&[0; 32]).is_some());
        cache.put([4; 32], one.clone());
        let there = [0, 1, 2, 3, 4].map(|number| cache.get(&[number; 32]).is_some());
        assert_eq!(there, [true, false, false, true, true]);
        let mut none = Cache::new(0);
        none.put([0; 32], one);
        assert!(none.get(&[0; 32]).is_none());
    }
}
