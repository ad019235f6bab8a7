//! Names of methods on the command line and in request files.

use super::{Adv, Emphasis, Interpretation, Masking, Normalization};

/// Names without parameters.
const NAMES: [(&str, Emphasis); 10] = [
    ("comfyui", Emphasis::ComfyUi),
    ("a1111-original", Emphasis::A1111),
    ("a1111-no-norm", Emphasis::A1111NoNorm),
    ("ignore", Emphasis::Ignore),
    ("none", Emphasis::None),
    ("compel", Emphasis::Compel),
    ("compel-remove", Emphasis::CompelRemove),
    ("lpw", Emphasis::Lpw),
    ("lpw-sdxl", Emphasis::LpwSdxl),
    ("sd-cpp", Emphasis::SdCpp),
];

const NORMALIZATIONS: [(&str, Normalization); 4] = [
    ("none", Normalization::None),
    ("mean", Normalization::Mean),
    ("length", Normalization::Length),
    ("length+mean", Normalization::LengthMean),
];

const INTERPRETATIONS: [(&str, Interpretation); 5] = [
    ("comfy", Interpretation::Comfy),
    ("A1111", Interpretation::A1111),
    ("compel", Interpretation::Compel),
    ("comfy++", Interpretation::ComfyPlusPlus),
    ("down_weight", Interpretation::DownWeight),
];

impl Emphasis {
    /// The method of that name: `comfyui`, `a1111-original`, `a1111-no-norm`, `ignore`, `none`,
    /// `compel`, `compel-remove`, `lpw`, `lpw-sdxl`, `sd-cpp`, or
    /// `adv:<none|mean|length|length+mean>:<comfy|A1111|compel|comfy++|down_weight>`, which may be
    /// followed by `:numpy1` (see [`Masking`]).
    ///
    /// ```
    /// use sd_conditioner::conditioning::Emphasis;
    /// assert_eq!(Emphasis::named("sd-cpp"), Some(Emphasis::SdCpp));
    /// assert_eq!(Emphasis::named("adv:length+mean:comfy++").unwrap().name(), "adv:length+mean:comfy++");
    /// ```
    pub fn named(name: &str) -> Option<Emphasis> {
        if let Some(adv) = name.strip_prefix("adv:") {
            let (adv, masking) = match adv.strip_suffix(":numpy1") {
                Some(adv) => (adv, Masking::Numpy1),
                None => (adv, Masking::Numpy2),
            };
            let (normalization, interpretation) = adv.split_once(':')?;
            let normalization = value(&NORMALIZATIONS, normalization)?;
            let interpretation = value(&INTERPRETATIONS, interpretation)?;
            return Some(Emphasis::Adv(Adv {
                masking,
                ..Adv::new(normalization, interpretation)
            }));
        }
        value(&NAMES, name)
    }

    /// Its name; see [`named`](Self::named).
    pub fn name(self) -> String {
        if let Emphasis::Adv(adv) = self {
            let normalization = key(&NORMALIZATIONS, adv.normalization);
            let interpretation = key(&INTERPRETATIONS, adv.interpretation);
            let masking = match adv.masking {
                Masking::Numpy2 => "",
                Masking::Numpy1 => ":numpy1",
            };
            return format!("adv:{normalization}:{interpretation}{masking}");
        }
        key(&NAMES, self).to_owned()
    }
}

fn value<T: Copy>(table: &[(&'static str, T)], name: &str) -> Option<T> {
    let found = table.iter().find(|(other, _)| *other == name);
    found.map(|(_, value)| *value)
}

fn key<T: Copy + PartialEq>(table: &[(&'static str, T)], value: T) -> &'static str {
    let found = table.iter().find(|(_, other)| *other == value);
    found.map_or("", |(name, _)| name)
}
