//! STATES ON DISK. A file for each window, written beside its place and moved there, and checked
//! whole when it is read. Several processes may use one folder: a file is there or it is not.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use candle_core::{Device, Tensor};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::tokens::CONTEXT;

use super::key::{Digest, Of};
use super::{States, locked};

/// First bytes of a file.
const MAGIC: &[u8; 8] = b"sdcstat1";

/// Magic, key, and the number of pooled values.
const HEAD: usize = MAGIC.len() + 32 + 8;

/// The check at the end.
const TAIL: usize = 32;

const SUFFIX: &str = "states";

/// A file that is being filled, or whose writer died.
const UNFINISHED: &str = "states-part";

/// After this long a file that is not finished is nobody's.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Files are counted anew when this part of the room was written: other processes write too.
const RECOUNT: u64 = 16;

/// More pooled values than any encoder has.
const MOST_POOLED: usize = 1 << 16;

/// A folder that keeps hidden states between runs.
///
/// Files are named by a hash of the encoder's tensors and dimensions, of everything that was asked
/// of it, of the kernels and of this crate's version, so that no file is taken for another's; to
/// make it, every tensor is read once (about a second for SDXL), when the first window is looked up.
/// A file that is damaged is removed and counts as missing. Other machines of the same kind may
/// share the folder; kinds of GPU are not told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskCache {
    /// Made if it is not there.
    pub folder: PathBuf,
    /// The most bytes that its files may take; the ones that were not used for longest are removed.
    /// Each further process may go beyond it by a sixteenth, since it counts the others' files only
    /// now and then. Files of other names are left alone.
    /// A window takes 0.24 MB (SD 1.x), 0.32 MB (SD 2.x) or 0.64 MB (SDXL, both encoders).
    pub max_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    most: u64,
    /// What the folder's files took when it was last counted, and what was written since.
    size: Mutex<Option<[u64; 2]>>,
    /// Names of unfinished files.
    next: AtomicU64,
    failures: AtomicU64,
}

impl Disk {
    pub(super) fn open(options: &DiskCache) -> Result<Disk> {
        let folder = options.folder.clone();
        fs::create_dir_all(&folder).map_err(|error| {
            Error::io(&folder, error).hint("choose another folder for the cache, or none")
        })?;
        Ok(Disk {
            folder,
            most: options.max_bytes,
            size: Mutex::new(None),
            next: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn path(&self, key: &Digest) -> PathBuf {
        let name = key.iter().map(|byte| format!("{byte:02x}"));
        self.folder
            .join(format!("{}.{SUFFIX}", name.collect::<String>()))
    }

    /// States on the device asked for; `None` if there are none, or none that can be used.
    pub(super) fn get(&self, key: &Digest, of: &Of<'_>) -> Option<States> {
        let path = self.path(key);
        let file = match open(&path) {
            Ok(file) => file,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.failed();
                }
                return None;
            }
        };
        let width = of.clip.config().width;
        let found = read(&file, key, width).and_then(|values| states(&values, width, of.device));
        if found.is_some() {
            // Best effort: it only says which files go first.
            let _ = file.set_modified(SystemTime::now());
        } else {
            self.failed();
            let _ = fs::remove_file(&path);
        }
        found
    }

    /// Writes a file; what goes wrong is counted.
    pub(super) fn put(&self, key: &Digest, states: &States) {
        let written = bytes(key, states)
            .map_err(io::Error::other)
            .and_then(|bytes| {
                if bytes.len() as u64 > self.most {
                    return Ok(());
                }
                self.write(&self.path(key), &bytes)?;
                self.bound(bytes.len() as u64)
            });
        if written.is_err() {
            self.failed();
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Another handle of this process may write to the same folder.
        let unique = std::ptr::from_ref(self).addr();
        let name = format!("{}-{unique:x}-{number}.{UNFINISHED}", std::process::id());
        let temporary = self.folder.join(name);
        let mut file = File::create_new(&temporary)?;
        let moved = file
            .write_all(bytes)
            .and_then(|()| fs::rename(&temporary, path));
        if moved.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        moved
    }

    /// Removes what was not used for longest when the folder has grown too large.
    fn bound(&self, written: u64) -> io::Result<()> {
        let mut size = locked(&self.size);
        let now = size.map(|[counted, since]| [counted, since + written]);
        let fits = |[counted, since]: [u64; 2]| {
            counted + since <= self.most && since <= self.most / RECOUNT
        };
        *size = match now.filter(|now| fits(*now)) {
            Some(now) => Some(now),
            None => Some([self.sweep()?, 0]),
        };
        Ok(())
    }

    /// Counts, and removes until nine tenths of the room are left; the bytes that remain.
    fn sweep(&self) -> io::Result<u64> {
        let mut files = self.files()?;
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        if total <= self.most {
            return Ok(total);
        }
        files.sort();
        for (_, length, path) in files {
            if total <= self.most / 10 * 9 {
                break;
            }
            fs::remove_file(&path).or_else(ignore_missing)?;
            total -= length;
        }
        Ok(total)
    }

    /// Every file of ours: when it was used, its bytes, its place. Removes those that were abandoned.
    fn files(&self) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let Some(ending) = path.extension().and_then(|ending| ending.to_str()) else {
                continue;
            };
            // It may be gone by now: other processes sweep too.
            let Ok(about) = fs::metadata(&path) else {
                continue;
            };
            if ending == SUFFIX && is_ours(&path) {
                files.push((used(&about), about.len(), path));
            } else if ending == UNFINISHED && age(&about) > ABANDONED {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(files)
    }
}

/// A file of the folder. What is no file is refused: a pipe would be waited for.
fn open(path: &Path) -> io::Result<File> {
    let no_file = || io::Error::new(io::ErrorKind::InvalidData, "it is no file");
    if !fs::metadata(path)?.is_file() {
        return Err(no_file());
    }
    let mut options = OpenOptions::new();
    options.read(true);
    // It may have become a pipe since.
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path)?;
    let is_file = file.metadata()?.is_file();
    is_file.then_some(file).ok_or_else(no_file)
}

/// Named by a hash.
fn is_ours(path: &Path) -> bool {
    let name = path.file_stem().and_then(|name| name.to_str());
    name.is_some_and(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        return Ok(());
    }
    Err(error)
}

fn used(about: &Metadata) -> SystemTime {
    about.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn age(about: &Metadata) -> Duration {
    used(about).elapsed().unwrap_or_default()
}

/// A file's content: magic, key, number of pooled values, values, SHA-256 of all before it.
fn bytes(key: &Digest, states: &States) -> Result<Vec<u8>> {
    let values = |tensor: &Tensor| -> Result<Vec<f32>> { Ok(tensor.flatten_all()?.to_vec1()?) };
    let hidden = values(&states.hidden)?;
    let pooled = states.pooled.as_ref().map(values).transpose()?;
    let pooled = pooled.unwrap_or_default();
    let room = HEAD + (hidden.len() + pooled.len()) * size_of::<f32>() + TAIL;
    let mut bytes = Vec::with_capacity(room);
    bytes.extend(MAGIC);
    bytes.extend(key);
    bytes.extend((pooled.len() as u64).to_le_bytes());
    for value in hidden.iter().chain(&pooled) {
        bytes.extend(value.to_le_bytes());
    }
    let check: Digest = Sha256::digest(&bytes).into();
    bytes.extend(check);
    Ok(bytes)
}

/// All values of a file that is what it should be.
fn read(file: &File, key: &Digest, width: usize) -> Option<Vec<f32>> {
    let most = HEAD + (CONTEXT * width + MOST_POOLED) * size_of::<f32>() + TAIL;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).ok()?;
    let (rest, check) = bytes.split_last_chunk::<TAIL>()?;
    if rest.len() < HEAD || Sha256::digest(rest)[..] != check[..] {
        return None;
    }
    let (head, values) = rest.split_at(HEAD);
    let pooled = usize::try_from(u64::from_le_bytes(*head.last_chunk()?)).ok()?;
    let whole = CONTEXT.checked_mul(width)?.checked_add(pooled)?;
    let fits = head.starts_with(MAGIC)
        && head[MAGIC.len()..].starts_with(key)
        && values.len() == whole.checked_mul(size_of::<f32>())?;
    let values = values.as_chunks().0.iter();
    fits.then(|| values.map(|value| f32::from_le_bytes(*value)).collect())
}

fn states(values: &[f32], width: usize, device: &Device) -> Option<States> {
    let (hidden, pooled) = values.split_at(CONTEXT * width);
    let hidden = Tensor::from_slice(hidden, (1, CONTEXT, width), device).ok()?;
    let pooled = match pooled.len() {
        0 => None,
        length => Some(Tensor::from_slice(pooled, (1, length), device).ok()?),
    };
    Some(States { hidden, pooled })
}
