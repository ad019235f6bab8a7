//! Whose numbers, and what is done otherwise.

use sd_conditioner::encoder::Gelu;
use sd_conditioner::profile::{Choices, EqualLengths};
use sd_conditioner::tokens::Cleaner;
use sd_conditioner::{Dialect, Emphasis, Profile, Request};

use crate::groups::MannerFlags;
use crate::names::{self, SplitChoice};

/// A profile, and the choices that override its own; `None` where nothing was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    pub(crate) profile: Option<Profile>,
    pub(crate) cleaner: Option<Cleaner>,
    pub(crate) dialect: Option<Dialect>,
    pub(crate) emphasis: Option<Emphasis>,
    pub(crate) split: Option<SplitChoice>,
    pub(crate) equal_lengths: Option<EqualLengths>,
    pub(crate) gelu: Option<Gelu>,
    pub(crate) least_windows: Option<u8>,
}

impl From<&MannerFlags> for Manner {
    fn from(flags: &MannerFlags) -> Manner {
        Manner {
            profile: Some(flags.profile),
            cleaner: flags.cleaner,
            dialect: flags.dialect,
            emphasis: flags.emphasis,
            split: flags.split.clone(),
            equal_lengths: flags.equal_lengths,
            gelu: flags.gelu,
            least_windows: flags.least_windows,
        }
    }
}

impl Manner {
    /// The profile that was asked for, or the library's own choice.
    pub(crate) fn profile(&self) -> Profile {
        self.profile.unwrap_or_default()
    }

    /// The profile's choices with those that override them.
    pub(crate) fn choices(&self) -> Choices {
        let own = self.profile().choices();
        let (split, end_rows) = match &self.split {
            Some(choice) => (choice.split, choice.ends),
            None => (own.split, own.end_rows),
        };
        Choices {
            dialect: self.dialect.unwrap_or(own.dialect),
            emphasis: self.emphasis.unwrap_or(own.emphasis),
            cleaner_clip: self.cleaner.unwrap_or(own.cleaner_clip),
            cleaner_open_clip: self.cleaner.unwrap_or(own.cleaner_open_clip),
            split,
            end_rows,
            equal_lengths: self.equal_lengths.unwrap_or(own.equal_lengths),
            gelu: self.gelu.unwrap_or(own.gelu),
            ..own
        }
    }

    /// The request in this manner.
    pub(crate) fn of<'a>(&self, request: Request<'a>) -> Request<'a> {
        let request = request.profile(self.profile()).choices(self.choices());
        request.least_windows(self.least_windows.unwrap_or(0))
    }

    /// The profile and what overrides it, by the names that were typed.
    pub(crate) fn named(&self) -> Vec<(&'static str, String)> {
        let own = |name: &str| name.to_owned();
        let cleaner = self.cleaner.map(names::cleaner_name);
        let dialect = self.dialect.map(names::dialect_name);
        let equal_lengths = self.equal_lengths.map(names::equal_lengths_name);
        let gelu = self.gelu.map(names::gelu_name);
        let all = [
            ("profile", Some(own(self.profile().name()))),
            ("cleaner", cleaner.map(own)),
            ("dialect", dialect.map(own)),
            ("emphasis", self.emphasis.map(Emphasis::name)),
            ("split", self.split.as_ref().map(|choice| own(&choice.name))),
            ("equal_lengths", equal_lengths.map(own)),
            ("gelu", gelu.map(own)),
            (
                "least_windows",
                self.least_windows.map(|number| number.to_string()),
            ),
        ];
        let given = all.into_iter();
        given.filter_map(|(key, name)| Some((key, name?))).collect()
    }
}
