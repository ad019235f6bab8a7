//! WINDOWS → HIDDEN STATES THAT ARE KNOWN ALREADY. By content, bounded, in memory and, where a folder
//! was named, on disk.

mod disk;
mod identity;
mod key;
mod memory;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::weights::WeightedLora;

use self::disk::Disk;
use self::identity::Names;
use self::memory::Memory;

pub use self::disk::DiskCache;
pub(super) use self::identity::Identity;
pub(super) use self::key::{Digest, Of, digest};

/// What is kept in memory unless [`Builder::cache`](super::Builder::cache) says otherwise: about a
/// hundred windows of SDXL, about 280 of SD 1.x.
const DEFAULT_MEMORY: usize = 64 << 20;

/// What windows gave is kept, so that the encoders do not run again for equal ones.
///
/// ```
/// use sd_conditioner::conditioner::{CacheOptions, DiskCache};
/// use sd_conditioner::{Conditioner, Family, weights::SyntheticSize};
/// let folder = std::env::temp_dir().join("sd-conditioner-doc");
/// let options = CacheOptions {
///     memory_bytes: 256 << 20,
///     disk: Some(DiskCache { folder: folder.clone(), max_bytes: 2 << 30 }),
/// };
/// let builder = Conditioner::builder().cache(options);
/// let text = builder.random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
/// text.encode_pair("a lighthouse", "blurry")?;
/// text.encode_pair("a windmill", "blurry")?;
/// assert!(text.cache_stats().hits + text.cache_stats().disk_hits >= 1);
/// # std::fs::remove_dir_all(folder).ok();
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// The most bytes of hidden states to keep, on the device where they were made; 64 MiB unless
    /// set, about a hundred windows of SDXL. 0 keeps nothing in memory.
    pub memory_bytes: usize,
    /// A folder that keeps them from one run to the next; none unless set.
    pub disk: Option<DiskCache>,
}

impl Default for CacheOptions {
    fn default() -> CacheOptions {
        CacheOptions {
            memory_bytes: DEFAULT_MEMORY,
            disk: None,
        }
    }
}

impl CacheOptions {
    /// Nothing is kept: every call runs the encoders.
    pub const OFF: CacheOptions = CacheOptions {
        memory_bytes: 0,
        disk: None,
    };
}

/// What a cache did since its encoders were loaded, over all handles of one load. Windows are
/// counted for each encoder; equal windows of one call count once.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Windows found in memory.
    pub hits: u64,
    /// Windows found on disk.
    pub disk_hits: u64,
    /// Windows that were encoded.
    pub misses: u64,
    /// Files that could not be written or read, or were damaged and removed. None of it is an error:
    /// the window is encoded.
    pub disk_failures: u64,
    /// Windows in memory now.
    pub entries: usize,
    /// What they take.
    pub bytes: usize,
}

/// What one window gave, in f32.
#[derive(Clone, Debug)]
pub(super) struct States {
    /// `[1, 77, width]`
    pub(super) hidden: Tensor,
    /// `[1, _]`, of the kind that the readout names.
    pub(super) pooled: Option<Tensor>,
}

impl States {
    fn n_bytes(&self) -> usize {
        let pooled = self.pooled.as_ref().map_or(0, Tensor::elem_count);
        (self.hidden.elem_count() + pooled) * size_of::<f32>()
    }

    /// In storage of their own: a row of a batch would keep the whole batch alive.
    fn alone(&self) -> Result<States> {
        let pooled = self.pooled.as_ref().map(Tensor::force_contiguous);
        Ok(States {
            hidden: self.hidden.force_contiguous()?,
            pooled: pooled.transpose()?,
        })
    }
}

/// A window that one encoder is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) digest: Digest,
    /// The empty prompt, which nearly every call wants.
    pub(super) is_empty: bool,
}

/// The cache that all handles of one load share. No lock is held while an encoder runs: two threads
/// that want the same new window both encode it.
#[derive(Debug)]
pub(super) struct Cache {
    memory: Mutex<Memory>,
    disk: Option<Disk>,
    names: Mutex<Names>,
    hits: AtomicU64,
    disk_hits: AtomicU64,
    misses: AtomicU64,
}

impl Cache {
    /// An error if the folder cannot be made.
    pub(super) fn new(options: &CacheOptions) -> Result<Cache> {
        Ok(Cache {
            memory: Mutex::new(Memory::new(options.memory_bytes)),
            disk: options.disk.as_ref().map(Disk::open).transpose()?,
            names: Mutex::default(),
            hits: AtomicU64::new(0),
            disk_hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// A name for each of `n` encoders with these `LoRA`s; the same for equal lists of the same
    /// opened files.
    pub(super) fn identities(&self, worn: &[WeightedLora], n: usize) -> Vec<Identity> {
        locked(&self.names).of(worn, n)
    }

    /// For each window its states, where they are known.
    pub(super) fn find(&self, of: &Of<'_>, asked: &[Asked]) -> Vec<Option<States>> {
        let identity = of.identity;
        let mut found: Vec<Option<States>> = {
            let mut memory = locked(&self.memory);
            let get = |one: &Asked| memory.get(&(identity.token(), one.digest));
            asked.iter().map(get).collect()
        };
        count(&self.hits, found.iter().flatten().count());
        if let Some(disk) = &self.disk {
            let unknown = found.iter_mut().zip(asked);
            for (place, one) in unknown.filter(|(place, _)| place.is_none()) {
                *place = self.remembered(disk, of, one);
            }
        }
        count(
            &self.misses,
            found.iter().filter(|one| one.is_none()).count(),
        );
        found
    }

    fn remembered(&self, disk: &Disk, of: &Of<'_>, asked: &Asked) -> Option<States> {
        let content = of.identity.content(of.clip)?;
        let found = disk.get(&key::on_disk(&content, &asked.digest), of)?;
        count(&self.disk_hits, 1);
        let new = [(*asked, found.clone())];
        locked(&self.memory).put_all(of.identity.token(), &new);
        Some(found)
    }

    /// Keeps what was encoded. Of a call that brings more than half of what fits, only the empty
    /// prompt stays in memory: a long list of prompts does not push out what is asked for often.
    pub(super) fn keep(&self, of: &Of<'_>, new: &[(Asked, States)]) -> Result<()> {
        if let Some(disk) = &self.disk
            && let Some(content) = of.identity.content(of.clip)
        {
            for (asked, states) in new {
                disk.put(&key::on_disk(&content, &asked.digest), states);
            }
        }
        let wanted = locked(&self.memory).wanted(new);
        let wanted = wanted
            .into_iter()
            .map(|(asked, states)| Ok((asked, states.alone()?)));
        let wanted = wanted.collect::<Result<Vec<_>>>()?;
        locked(&self.memory).put_all(of.identity.token(), &wanted);
        Ok(())
    }

    /// Forgets what is in memory. Files stay.
    pub(super) fn clear(&self) {
        locked(&self.memory).clear();
    }

    pub(super) fn stats(&self) -> CacheStats {
        let (entries, bytes) = locked(&self.memory).size();
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            disk_hits: self.disk_hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            disk_failures: self.disk.as_ref().map_or(0, Disk::failures),
            entries,
            bytes,
        }
    }
}

/// What a device is called in a key.
fn place(device: &Device) -> String {
    format!("{:?}", device.location())
}

fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

/// What is behind these locks is never left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
