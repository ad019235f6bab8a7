//! Which of a prompt and its negative.

/// The one side that is made and written. What is written is no wish about numbers, and jobs without it
/// keep the hashes that they had before there was a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Only {
    /// The positive prompt
    Positive,
}

/// Which of a job's prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Positive,
    Negative,
}

impl Side {
    /// Both, in the order in which they are shown.
    pub(crate) const BOTH: [Side; 2] = [Side::Positive, Side::Negative];

    /// For people and keys.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Side::Positive => "positive",
            Side::Negative => "negative",
        }
    }

    /// What stands before the names of its tensors.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Side::Positive => "",
            Side::Negative => "negative_",
        }
    }
}

impl Only {
    /// For people and keys.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Only::Positive => Side::Positive.name(),
        }
    }

    /// The one that is called so.
    pub(crate) fn named(name: &str) -> Result<Only, String> {
        if name == Only::Positive.name() {
            return Ok(Only::Positive);
        }
        Err(format!("`{name}`, and `positive` is the only choice"))
    }
}
