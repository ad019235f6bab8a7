//! How each conditioning is to be made: steps that name earlier steps, equal ones once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::needs::{Clip, Need};
use super::{broken, needs};
use crate::conditioner::FORM_WINDOWS_AT_MOST;
use crate::conditioning::{Area, ConditioningList, Emphasis, MaskArea, Sizes};
use crate::error::Result;
use crate::profile::Profile;
use crate::prompt::Prompt;
use crate::tokens::{Chunks, FIRST_ADDED_ID, Known, Lexicon, Tokenizer};
use crate::weights::EncoderId;

/// The most windows of 77 rows that one conditioning may have in all its entries, so that a small
/// file cannot ask for more memory than there is: half of what one prompt's strengths may need.
pub(super) const MOST_WINDOWS: usize = FORM_WINDOWS_AT_MOST / 2;

/// The most bytes of a text.
const LONGEST_TEXT: usize = 1 << 20;

/// The most places of a mask.
const LARGEST_MASK: usize = 1 << 26;

/// A conditioning to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Recipe(pub(super) u32);

/// A mask to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaskRecipe(pub(super) u32);

/// A prompt to be encoded, in `ComfyUI`'s manner.
#[derive(Clone, Debug, PartialEq)]
pub struct Encode {
    /// With which encoders.
    pub clip: Clip,
    /// What.
    pub texts: Texts,
    /// What strengths do.
    pub emphasis: Emphasis,
}

/// One text for all encoders, or one for each of SDXL's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Texts {
    /// One.
    One(Arc<str>),
    /// Two.
    PerEncoder {
        /// ViT-L's.
        l: Arc<str>,
        /// ViT-bigG's.
        g: Arc<str>,
    },
}

impl Texts {
    /// The texts with the encoder that stands for where each goes.
    pub(super) fn by_encoder(&self) -> Vec<(EncoderId, &str)> {
        match self {
            Texts::One(text) => vec![(EncoderId::ClipL, text)],
            Texts::PerEncoder { l, g } => {
                vec![(EncoderId::ClipL, l), (EncoderId::OpenClipG, g)]
            }
        }
    }
}

/// What is done to every entry of a conditioning.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// [`ConditioningList::zeroed`].
    Zero,
    /// [`ConditioningList::with_area`].
    Area(Area, f64),
    /// [`ConditioningList::with_strength`].
    Strength(f64),
    /// [`ConditioningList::with_range`].
    Range(f64, f64),
    /// [`ConditioningList::with_sizes`].
    Sizes(Sizes),
}

/// One step; numbers name earlier steps.
#[derive(Debug)]
pub(super) enum Step {
    Encode(Encode),
    Change(u32, Change),
    Combine(u32, u32),
    Concat(u32, u32),
    Average(u32, u32, f64),
    Masked {
        of: u32,
        mask: u32,
        strength: f64,
        area: MaskArea,
    },
    Mask(MaskStep),
    Custom(Custom),
}

/// A step that makes a mask.
#[derive(Debug)]
pub(super) enum MaskStep {
    Solid {
        value: f64,
        width: u32,
        height: u32,
    },
    Inverted(u32),
    Composite {
        destination: u32,
        source: u32,
        x: u32,
        y: u32,
        operation: MaskOperation,
    },
}

/// What two masks become where both are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaskOperation {
    Multiply,
    Add,
    Subtract,
    And,
    Or,
    Xor,
}

type Function = dyn Fn(&[&ConditioningList]) -> Result<ConditioningList> + Send + Sync;

/// A step of a caller's own.
pub(super) struct Custom {
    pub(super) key: String,
    pub(super) inputs: Vec<u32>,
    pub(super) function: Arc<Function>,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Custom {{ {:?}, {:?} }}", self.key, self.inputs)
    }
}

impl Step {
    /// The steps it is made of.
    pub(super) fn inputs(&self) -> Vec<u32> {
        match self {
            Step::Encode(_) | Step::Mask(MaskStep::Solid { .. }) => Vec::new(),
            Step::Change(of, _) | Step::Mask(MaskStep::Inverted(of)) => vec![*of],
            Step::Combine(one, two) | Step::Concat(one, two) | Step::Average(one, two, _) => {
                vec![*one, *two]
            }
            Step::Masked { of, mask, .. } => vec![*of, *mask],
            Step::Mask(MaskStep::Composite {
                destination,
                source,
                ..
            }) => vec![*destination, *source],
            Step::Custom(custom) => custom.inputs.clone(),
        }
    }
}

/// How large what a step makes is at least.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    entries: usize,
    /// Of all entries.
    windows: usize,
    /// Of the first entry.
    first: usize,
    /// Width and height of a mask.
    mask: [usize; 2],
}

/// All steps, in an order in which they can be made.
#[derive(Debug, Default)]
pub(super) struct Recipes {
    steps: Vec<Step>,
    extents: Vec<Extent>,
    /// The node that first asked for each step.
    nodes: Vec<Arc<str>>,
    known: HashMap<String, u32>,
    /// The node that first named each file.
    needs: BTreeMap<Need, Arc<str>>,
    /// What had to be guessed, with the node.
    notes: Vec<(String, String)>,
    /// The node that is being evaluated.
    pub(super) node: Arc<str>,
}

impl Recipes {
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(super) fn node_of(&self, step: usize) -> &str {
        self.nodes.get(step).map_or("", |node| node)
    }

    /// The node that first named a file.
    pub(super) fn named_by(&self, need: &Need) -> Option<&str> {
        self.needs.get(need).map(|node| &**node)
    }

    pub(super) fn note_need(&mut self, need: needs::Need) {
        let node = self.node.clone();
        self.needs.entry(need).or_insert(node);
    }

    pub(super) fn note(&mut self, node: &str, message: String) {
        self.notes.push((node.to_owned(), message));
    }

    pub(super) fn notes(&self) -> &[(String, String)] {
        &self.notes
    }

    pub(super) fn list(&mut self, step: Step) -> Result<Recipe> {
        self.add(step).map(Recipe)
    }

    pub(super) fn mask(&mut self, step: MaskStep) -> Result<MaskRecipe> {
        self.add(Step::Mask(step)).map(MaskRecipe)
    }

    /// The number of a step; of the equal one that is there already, if there is one. Steps hold
    /// nothing but data, and their debug text quotes it: equal texts are equal steps.
    fn add(&mut self, step: Step) -> Result<u32> {
        let key = format!("{step:?}");
        if let Some(number) = self.known.get(&key) {
            return Ok(*number);
        }
        let extent = self.extent(&step)?;
        if extent.windows > MOST_WINDOWS {
            let message = format!(
                "a conditioning of {} entries and {} windows; {MOST_WINDOWS} windows are the most",
                extent.entries, extent.windows
            );
            return Err(broken(message).hint("combine or join fewer conditionings"));
        }
        let number = u32::try_from(self.steps.len()).map_err(|_| broken("too many nodes"))?;
        self.steps.push(step);
        self.extents.push(extent);
        self.nodes.push(self.node.clone());
        self.known.insert(key, number);
        Ok(number)
    }

    fn extent(&self, step: &Step) -> Result<Extent> {
        let of = |number: &u32| self.extents[*number as usize];
        Ok(match step {
            Step::Encode(encode) => encode.extent()?,
            Step::Change(number, _)
            | Step::Average(number, _, _)
            | Step::Masked { of: number, .. } => of(number),
            Step::Combine(one, two) => of(one).and(of(two)),
            Step::Concat(to, from) => of(to).each_with(of(from).first),
            Step::Custom(custom) => {
                let inputs = custom.inputs.iter().map(of);
                inputs.fold(Extent::default(), Extent::and)
            }
            Step::Mask(step) => Extent {
                mask: self.mask_size(step)?,
                ..Extent::default()
            },
        })
    }

    fn mask_size(&self, step: &MaskStep) -> Result<[usize; 2]> {
        match step {
            MaskStep::Inverted(of) => Ok(self.extents[*of as usize].mask),
            MaskStep::Composite { destination, .. } => Ok(self.extents[*destination as usize].mask),
            MaskStep::Solid { width, height, .. } => {
                let size = [*width as usize, *height as usize];
                if size[0] == 0 || size[1] == 0 || size[0] * size[1] > LARGEST_MASK {
                    let message = format!("a mask of {width}x{height}");
                    return Err(broken(message).hint("sides of 1 to 8192 pixels are possible"));
                }
                Ok(size)
            }
        }
    }
}

impl Extent {
    /// So many windows more in each entry.
    fn each_with(self, windows: usize) -> Extent {
        Extent {
            windows: self
                .windows
                .saturating_add(self.entries.saturating_mul(windows)),
            first: self.first.saturating_add(windows),
            ..self
        }
    }

    /// The entries of both.
    fn and(self, other: Extent) -> Extent {
        Extent {
            entries: self.entries.saturating_add(other.entries),
            windows: self.windows.saturating_add(other.windows),
            first: if self.entries == 0 {
                other.first
            } else {
                self.first
            },
            mask: self.mask,
        }
    }
}

/// Refuses a text that no prompt has.
pub(super) fn of_length(text: &str) -> Result<()> {
    of_bytes(text.len())
}

/// The same by its length.
pub(super) fn of_bytes(length: usize) -> Result<()> {
    if length <= LONGEST_TEXT {
        return Ok(());
    }
    let message = format!("a text of {length} bytes; {LONGEST_TEXT} are the most");
    Err(broken(message))
}

impl Encode {
    /// The windows of each of its texts, with one vector for each embedding it names.
    pub(super) fn windows(&self) -> Vec<(EncoderId, Chunks)> {
        let rules = Profile::ComfyUi.choices();
        let texts = self.texts.by_encoder().into_iter();
        let windows = texts.map(|(encoder, text)| {
            let prompt = Prompt::parse(text, rules.dialect);
            let (rule, tokenizer) = (rules.chunk_rule(encoder), Tokenizer::clip());
            let chunks = Chunks::of_pieces(prompt.pieces(), tokenizer, rule, &OneVectorEach);
            (encoder, chunks)
        });
        windows.collect()
    }

    fn extent(&self) -> Result<Extent> {
        for (_, text) in self.texts.by_encoder() {
            of_length(text)?;
        }
        let windows = self.windows();
        let longest = windows.iter().map(|(_, chunks)| chunks.len().get()).max();
        let windows = longest.unwrap_or(1);
        Ok(Extent {
            entries: 1,
            windows,
            first: windows,
            ..Extent::default()
        })
    }
}

/// Every name is an embedding of one vector; commas at its ends are not part of it.
#[derive(Debug)]
struct OneVectorEach;

impl Lexicon for OneVectorEach {
    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn find(&self, name: &str) -> Known {
        if name.trim_matches(',').len() != name.len() {
            return Known::No;
        }
        Known::Fit {
            vectors: 1,
            first_id: FIRST_ADDED_ID,
        }
    }
}
