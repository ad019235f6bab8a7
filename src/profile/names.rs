//! Names of profiles and choices on the command line and in request files.

use std::fmt;
use std::str::FromStr;

use super::{EqualLengths, Profile};
use crate::conditioning::EndRows;
use crate::encoder::Gelu;
use crate::error::{Error, Result, unknown_name};
use crate::prompt::Dialect;
use crate::tokens::{LongText, Split};

impl Profile {
    /// `diffusers`, `comfyui`, `a1111`, `forge`, `compel`, `invokeai`, `sd-cpp`, `plain`.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Diffusers => "diffusers",
            Profile::ComfyUi => "comfyui",
            Profile::A1111 => "a1111",
            Profile::Forge => "forge",
            Profile::Compel => "compel",
            Profile::InvokeAi => "invokeai",
            Profile::SdCpp => "sd-cpp",
            Profile::Plain => "plain",
        }
    }

    /// The profile of that name.
    pub fn named(name: &str) -> Option<Profile> {
        let mut all = Profile::ALL.into_iter();
        all.find(|profile| profile.name() == name)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = Error;

    /// The profile of this [`name`](Profile::name).
    fn from_str(name: &str) -> Result<Profile> {
        let found = Profile::named(name);
        found.ok_or_else(|| unknown_name("profile", name, &Profile::ALL.map(Profile::name)))
    }
}

/// Names of [`Dialect`]s, for a list of choices.
pub const DIALECTS: [(&str, Dialect); 8] = [
    ("plain", Dialect::Plain),
    ("comfyui", Dialect::ComfyUi),
    ("a1111", Dialect::A1111),
    ("compel", Dialect::Compel),
    ("sd-cpp", Dialect::SdCpp),
    ("lpw", Dialect::LpwSd),
    ("lpw-sdxl", Dialect::LpwSdxl),
    ("kohya", Dialect::Kohya),
];

/// Names of ways to bring positive and negative to one length.
pub const EQUAL_LENGTHS: [(&str, EqualLengths); 4] = [
    ("empty-windows", EqualLengths::EmptyWindows),
    ("repeat", EqualLengths::Repeat),
    ("zeros", EqualLengths::Zeros),
    ("last-row", EqualLengths::LastRow),
];

/// Names of GELUs.
pub const GELUS: [(&str, Gelu); 2] = [("own", Gelu::Own), ("tanh", Gelu::Tanh)];

const SPLITS: [(&str, Split); 10] = [
    ("truncate", Split::Truncate),
    ("groups", Split::Groups),
    ("comma", Split::Comma { backtrack: 20 }),
    ("sentences", Split::LongText(LongText::Sentences)),
    ("phrases", Split::LongText(LongText::Phrases)),
    ("words", Split::LongText(LongText::Words)),
    ("brutal", Split::LongText(LongText::Brutal)),
    ("sd-cpp", Split::SdCpp),
    ("lpw", Split::Lpw),
    ("lpw-sdxl", Split::LpwSdxl),
];

/// A way to cut long prompts by name: `truncate`, `groups`, `comma` or `comma:N`, compel's
/// `sentences`, `phrases`, `words`, `brutal`, then `sd-cpp`, `lpw`, `lpw-sdxl`. compel's modes may
/// be followed by `+copy-first` or `+merge` for their end tokens.
///
/// ```
/// use sd_conditioner::{conditioning::EndRows, profile, tokens::{LongText, Split}};
/// let split = profile::split_named("brutal+copy-first");
/// assert_eq!(split, Some((Split::LongText(LongText::Brutal), EndRows::CopyFirst)));
/// assert_eq!(profile::split_named("comma:0"), Some((Split::Comma { backtrack: 0 }, EndRows::Keep)));
/// ```
pub fn split_named(name: &str) -> Option<(Split, EndRows)> {
    if let Some(backtrack) = name.strip_prefix("comma:") {
        let backtrack = backtrack.parse().ok()?;
        return Some((Split::Comma { backtrack }, EndRows::Keep));
    }
    let (mode, ends) = match name.split_once('+') {
        None => (name, EndRows::Keep),
        Some((mode, "copy-first")) => (mode, EndRows::CopyFirst),
        Some((mode, "merge")) => (mode, EndRows::Merge),
        Some(_) => return None,
    };
    let (_, split) = SPLITS.iter().find(|(other, _)| *other == mode)?;
    let is_compel = matches!(split, Split::LongText(_));
    (is_compel || ends == EndRows::Keep).then_some((*split, ends))
}
