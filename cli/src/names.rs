//! Names of choices, as they are typed and as request files spell them.

use sd_conditioner::conditioning::EndRows;
use sd_conditioner::encoder::Gelu;
use sd_conditioner::profile::{DIALECTS, EQUAL_LENGTHS, EqualLengths, GELUS, split_named};
use sd_conditioner::tokens::{Cleaner, Split};
use sd_conditioner::{Dialect, Emphasis, Family, Profile};

/// More steps than any sampler takes, second-order ones counted twice.
const STEPS_AT_MOST: u32 = 2000;

const EMPHASES: &str = "comfyui, a1111-original, a1111-no-norm, ignore, none, compel, \
    compel-remove, lpw, lpw-sdxl, sd-cpp, \
    adv:<none|mean|length|length+mean>:<comfy|A1111|compel|comfy++|down_weight>";

const SPLITS: &str = "truncate, groups, comma, comma:N, sd-cpp, lpw, lpw-sdxl, sentences, phrases, \
    words, brutal (these four also with +copy-first or +merge)";

/// The name of a profile.
pub(crate) fn profile(name: &str) -> Result<Profile, String> {
    let names = Profile::ALL.map(Profile::name);
    Profile::named(name).ok_or_else(|| unknown(name, &names.join(", ")))
}

/// A family, or `auto` to read it from the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FamilyChoice(pub(crate) Option<Family>);

impl FamilyChoice {
    /// What can be typed.
    pub(crate) fn names() -> Vec<&'static str> {
        let families = Family::ALL.into_iter().map(Family::name);
        std::iter::once("auto").chain(families).collect()
    }

    /// The choice of this name.
    pub(crate) fn named(name: &str) -> FamilyChoice {
        FamilyChoice(name.parse().ok())
    }
}

const CLEANERS: [(&str, Cleaner); 7] = [
    ("openai", Cleaner::OpenAi),
    ("open-clip", Cleaner::OpenClip),
    ("hf-slow-ftfy", Cleaner::HfSlowFtfy),
    ("hf-slow", Cleaner::HfSlow),
    ("hf-fast", Cleaner::HfFast),
    ("hf-fast-4", Cleaner::HfFast4),
    ("sd-cpp", Cleaner::SdCpp),
];

/// The names of the text clean-ups.
pub(crate) fn cleaner_names() -> [&'static str; CLEANERS.len()] {
    CLEANERS.map(|(name, _)| name)
}

/// The text clean-up of this name.
pub(crate) fn cleaner(name: &str) -> Result<Cleaner, String> {
    pick(&CLEANERS, name)
}

/// The name of a text clean-up.
pub(crate) fn cleaner_name(cleaner: Cleaner) -> &'static str {
    name_in(&CLEANERS, cleaner)
}

/// The names of the grammars.
pub(crate) fn dialect_names() -> [&'static str; DIALECTS.len()] {
    DIALECTS.map(|(name, _)| name)
}

/// The grammar of this name.
pub(crate) fn dialect(name: &str) -> Result<Dialect, String> {
    pick(&DIALECTS, name)
}

/// The name of a grammar.
pub(crate) fn dialect_name(dialect: Dialect) -> &'static str {
    name_in(&DIALECTS, dialect)
}

/// The names of the ways to one length.
pub(crate) fn equal_lengths_names() -> [&'static str; EQUAL_LENGTHS.len()] {
    EQUAL_LENGTHS.map(|(name, _)| name)
}

/// The way to one length of this name.
pub(crate) fn equal_lengths(name: &str) -> Result<EqualLengths, String> {
    pick(&EQUAL_LENGTHS, name)
}

/// The name of a way to one length.
pub(crate) fn equal_lengths_name(rule: EqualLengths) -> &'static str {
    name_in(&EQUAL_LENGTHS, rule)
}

/// The names of the GELUs.
pub(crate) fn gelu_names() -> [&'static str; GELUS.len()] {
    GELUS.map(|(name, _)| name)
}

/// The GELU of this name.
pub(crate) fn gelu(name: &str) -> Result<Gelu, String> {
    pick(&GELUS, name)
}

/// The name of a GELU.
pub(crate) fn gelu_name(gelu: Gelu) -> &'static str {
    name_in(&GELUS, gelu)
}

/// The emphasis of this name.
pub(crate) fn emphasis(name: &str) -> Result<Emphasis, String> {
    Emphasis::named(name).ok_or_else(|| unknown(name, EMPHASES))
}

/// A way to cut long prompts, as it was named.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SplitChoice {
    pub(crate) name: String,
    pub(crate) split: Split,
    pub(crate) ends: EndRows,
}

/// The way to cut long prompts of this name.
pub(crate) fn split(name: &str) -> Result<SplitChoice, String> {
    let (split, ends) = split_named(name).ok_or_else(|| unknown(name, SPLITS))?;
    Ok(SplitChoice {
        name: name.to_owned(),
        split,
        ends,
    })
}

/// A seed, as it is typed.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    let seed = text.parse();
    seed.map_err(|_| {
        "a seed is a whole number from 0 on; a prompt belongs to --positive".to_owned()
    })
}

/// A number of steps, as it is typed.
pub(crate) fn steps(text: &str) -> Result<u32, String> {
    let number = text.parse();
    n_steps(number.map_err(|_| format!("`{text}` is not a number of steps"))?)
}

/// A number of steps: at least 1, and none that only a slip can mean.
pub(crate) fn n_steps(steps: u32) -> Result<u32, String> {
    if (1..=STEPS_AT_MOST).contains(&steps) {
        Ok(steps)
    } else {
        Err(format!("{steps} steps, expected 1 to {STEPS_AT_MOST}"))
    }
}

fn pick<T: Copy>(table: &[(&'static str, T)], name: &str) -> Result<T, String> {
    let found = table.iter().find(|(known, _)| *known == name);
    let names: Vec<&str> = table.iter().map(|(known, _)| *known).collect();
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| unknown(name, &names.join(", ")))
}

fn name_in<T: Copy + PartialEq>(table: &[(&'static str, T)], value: T) -> &'static str {
    let found = table.iter().find(|(_, known)| *known == value);
    found.map_or("other", |(name, _)| name)
}

fn unknown(name: &str, choices: &str) -> String {
    format!("`{name}` is none of them; expected one of {choices}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_that_is_listed_is_one() {
        assert_eq!(FamilyChoice::named("auto"), FamilyChoice(None));
        assert_eq!(FamilyChoice::named("sd2"), FamilyChoice(Some(Family::Sd2)));
        assert_eq!(profile("comfyui"), Ok(Profile::ComfyUi));
        assert_eq!(cleaner("open-clip"), Ok(Cleaner::OpenClip));
        for name in EMPHASES.split(", ").filter(|name| !name.contains('<')) {
            assert_eq!(emphasis(name).unwrap().name(), name);
        }
        for normalization in ["none", "mean", "length", "length+mean"] {
            for method in ["comfy", "A1111", "compel", "comfy++", "down_weight"] {
                let name = format!("adv:{normalization}:{method}");
                assert_eq!(emphasis(&name).unwrap().name(), name);
            }
        }
        let (plain, _) = SPLITS.split_once(" (").unwrap();
        for name in plain.split(", ").map(|name| name.replace('N', "7")) {
            assert_eq!(split(&name).unwrap().name, name);
        }
        for name in dialect_names() {
            assert_eq!(dialect_name(dialect(name).unwrap()), name);
        }
        for name in equal_lengths_names() {
            assert_eq!(equal_lengths_name(equal_lengths(name).unwrap()), name);
        }
        for name in gelu_names() {
            assert_eq!(gelu_name(gelu(name).unwrap()), name);
        }
    }

    #[test]
    fn unknown_names_are_answered_with_the_choices() {
        let cases = [
            (profile("ComfyUI").unwrap_err(), "a1111"),
            (cleaner("ftfy").unwrap_err(), "hf-slow-ftfy"),
            (dialect("x").unwrap_err(), "lpw-sdxl"),
            (emphasis("adv:mean:x").unwrap_err(), "comfy++"),
            (split("comma+merge").unwrap_err(), "sentences"),
            (equal_lengths("x").unwrap_err(), "last-row"),
            (gelu("exact").unwrap_err(), "own, tanh"),
            (steps("0").unwrap_err(), "1 to 2000"),
            (steps("-1").unwrap_err(), "not a number of steps"),
        ];
        for (error, want) in cases {
            assert!(error.contains(want), "{error}");
        }
        assert_eq!(steps("20"), Ok(20));
    }
}
