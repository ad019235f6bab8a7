//! Everything the hub has to be told, and how the usual variables say it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hub_error;
use crate::error::{Error, Result};

/// The hub that is asked when no other is named.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How long a server may stay silent before it is given up, when nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How to reach a model hub. The library itself reads no environment: pass what is meant, or use
/// [`HubOptions::from_variables`].
///
/// ```
/// use sd_conditioner::hub::{Hub, HubOptions};
/// let options = HubOptions { cache_dir: Some("/data/hub".into()), offline: true, ..HubOptions::default() };
/// println!("{:?}", Hub::new(options));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// The folder that holds `models--owner--name` folders, shared with Python's `huggingface_hub`.
    /// Without one nothing can be fetched.
    pub cache_dir: Option<PathBuf>,
    /// Another hub than [`DEFAULT_ENDPOINT`]; `http://` is possible.
    pub endpoint: Option<String>,
    /// Sent as a bearer token where the hub refuses without one. Never shown by `Debug`, never part of a message.
    pub token: Option<String>,
    /// Take only what is in the cache.
    pub offline: bool,
    /// Compare the checksum of cached files too. Downloads are always compared.
    pub verify: bool,
    /// How long a server may send nothing before it is given up; also how long to wait for another
    /// process that downloads from the same repository.
    pub timeout: Duration,
    /// How often a broken transfer is taken up again where it stopped.
    pub retries: u32,
}

impl Default for HubOptions {
    fn default() -> HubOptions {
        HubOptions {
            cache_dir: None,
            endpoint: None,
            token: None,
            offline: false,
            verify: false,
            timeout: DEFAULT_TIMEOUT,
            retries: 3,
        }
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("verify", &self.verify)
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .finish()
    }
}

impl HubOptions {
    /// Reads the variables that Python's `huggingface_hub` reads (its `constants.py`), through
    /// whatever the caller looks them up with. Empty variables count as not set.
    ///
    /// * cache: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `$HF_HOME/hub`,
    ///   `$XDG_CACHE_HOME/huggingface/hub`, `~/.cache/huggingface/hub`
    /// * offline: `HF_HUB_OFFLINE`, else `TRANSFORMERS_OFFLINE` (`1`, `ON`, `YES`, `TRUE`)
    /// * token: `HF_TOKEN`, the older `HUGGING_FACE_HUB_TOKEN`, the file `HF_TOKEN_PATH`, the file `$HF_HOME/token`; a missing file is
    ///   no token, an unreadable one is an error
    /// * endpoint: `HF_ENDPOINT`
    ///
    /// ```
    /// use sd_conditioner::hub::HubOptions;
    /// let options = HubOptions::from_variables(|name| match name {
    ///     "HF_HOME" => Some("/data/huggingface".to_owned()),
    ///     "HF_HUB_OFFLINE" => Some("1".to_owned()),
    ///     _ => None,
    /// })?;
    /// assert_eq!(options.cache_dir.as_deref(), Some("/data/huggingface/hub".as_ref()));
    /// assert!(options.offline);
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<HubOptions> {
        let variables = Variables(&variable);
        Ok(HubOptions {
            cache_dir: variables.cache(),
            endpoint: variables.get("HF_ENDPOINT"),
            token: variables.token()?,
            offline: variables.is_offline(),
            ..HubOptions::default()
        })
    }

    pub(super) fn checked_cache(&self) -> Result<PathBuf> {
        self.cache_dir.clone().ok_or_else(|| {
            hub_error("no cache directory was given, so there is no place to look or to fetch to")
                .hint("set cache_dir, or in the environment HF_HUB_CACHE, HF_HOME or HOME")
        })
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.trim().is_empty())
    }

    /// The first that is set counts, also where it says no.
    fn is_offline(&self) -> bool {
        let said = self.get("HF_HUB_OFFLINE");
        said.or_else(|| self.get("TRANSFORMERS_OFFLINE"))
            .is_some_and(|value| {
                ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_uppercase().as_str())
            })
    }

    /// A path; `~` at its start is the home folder.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.get(name)?;
        match (value.strip_prefix("~/"), self.user()) {
            (Some(rest), Some(user)) => Some(user.join(rest)),
            (Some(_), None) | (None, Some(_) | None) => Some(PathBuf::from(value)),
        }
    }

    fn user(&self) -> Option<PathBuf> {
        self.get("HOME")
            .or_else(|| self.get("USERPROFILE"))
            .map(PathBuf::from)
    }

    fn home(&self) -> Option<PathBuf> {
        let cache = || {
            self.path("XDG_CACHE_HOME")
                .or_else(|| Some(self.user()?.join(".cache")))
        };
        self.path("HF_HOME")
            .or_else(|| Some(cache()?.join("huggingface")))
    }

    fn cache(&self) -> Option<PathBuf> {
        self.path("HF_HUB_CACHE")
            .or_else(|| self.path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(self.home()?.join("hub")))
    }

    fn token(&self) -> Result<Option<String>> {
        let said = self.get("HF_TOKEN");
        if let Some(token) = said.or_else(|| self.get("HUGGING_FACE_HUB_TOKEN")) {
            return Ok(Some(token.trim().to_owned()));
        }
        let file = self
            .path("HF_TOKEN_PATH")
            .or_else(|| Some(self.home()?.join("token")));
        let Some(file) = file else { return Ok(None) };
        match token_in(&file) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(file, error).hint(
                "the hub's token is read from this file; set HF_TOKEN or HF_TOKEN_PATH instead",
            )),
        }
    }
}

/// The longest file with a token that is read.
const TOKEN_AT_MOST: u64 = 1 << 16;

/// What a file with a token says. A pipe, which would wait for its writer, is not opened.
fn token_in(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    File::open(path)?
        .take(TOKEN_AT_MOST)
        .read_to_string(&mut text)?;
    Ok(text)
}
