//! PROMPT → PLAN: which windows each encoder is given for a request, and how their states are put
//! together again.

use crate::conditioning::emphasis::{self, Emphasis, Stage};
use crate::encoder::Readout;
use crate::profile::{Choices, EncoderLengths, PooledFrom, SecondText};
use crate::prompt::compel::Part;
use crate::prompt::{Dialect, Note, NoteKind, Piece, Prompt};
use crate::tokens::{Chunk, ChunkRule, Chunks, Lexicon, Split, Tokenizer};
use crate::weights::EncoderId;

use super::bounds::FORM_WINDOWS_AT_MOST;
use super::embeddings::EncoderLexicon;
use super::prepare::Prepared;
use super::{Request, prompted, schedule};

/// What one encoder is to do for one request.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) readout: Option<Readout>,
    /// What is encoded as one text each.
    pub(super) texts: Vec<Text>,
    /// How the texts are put together.
    pub(super) parts: Vec<PlannedPart>,
    /// A window that only the pooled vector is read from.
    pub(super) raw: Option<Chunk>,
    /// How many windows the result has: fewer than there are are cut, more are filled.
    pub(super) windows: usize,
    /// How many windows the other forms of its texts have. Beyond [`FORM_WINDOWS_AT_MOST`] none are made.
    pub(super) forms: usize,
    /// How many empty windows the shorter texts of its blends are filled with.
    pub(super) filled: usize,
    pub(super) notes: Vec<Note>,
}

/// One text and the other forms of it that its emphasis needs.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) pieces: Vec<Piece>,
    pub(super) chunks: Chunks,
    pub(super) stages: Vec<Stage>,
}

/// One part of a conjunction: some texts, mixed. Everything but compel's syntax is one part of one
/// text.
#[derive(Clone, Debug)]
pub(super) struct PlannedPart {
    /// How many of the texts.
    pub(super) n_texts: usize,
    /// Their weights.
    pub(super) weights: Vec<f64>,
    pub(super) normalize: bool,
    /// The weight of the whole part.
    pub(super) weight: f64,
}

/// An encoder as planning sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tower {
    pub(super) id: EncoderId,
    /// Channels, which decide whether an embedding fits.
    pub(super) width: usize,
}

impl Planned {
    /// The windows of the texts, in order; how the command shows them.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &Chunks> {
        self.texts.iter().map(|text| &text.chunks)
    }

    /// Everything that the encoder is given for it, but for a filler.
    pub(super) fn windows(&self) -> impl Iterator<Item = &Chunk> {
        let texts = self.texts.iter();
        let of_texts = texts.flat_map(|text| {
            let stages = text.stages.iter().flat_map(|stage| &stage.windows);
            text.chunks.iter().chain(stages)
        });
        of_texts.chain(&self.raw)
    }

    /// The window that fills a result.
    pub(super) fn filler(&self) -> Chunk {
        Chunk::empty(self.texts[0].chunks.padding())
    }

    /// A note about parts of a conjunction that have weights, which compel cannot do with two
    /// encoders.
    #[expect(clippy::float_cmp, reason = "neutral is exact")]
    fn weighted_parts(&self) -> Option<Note> {
        let is_weighted = self.parts.iter().any(|part| part.weight != 1.0);
        let message = "compel fails at a conjunction with weights where there are two encoders; here \
                       each encoder's parts are weighted";
        is_weighted.then(|| refused(message))
    }

    /// How many windows its own texts give.
    pub(super) fn own_windows(&self) -> usize {
        let mut texts = self.texts.iter();
        let longest = |part: &PlannedPart| {
            let lengths = texts.by_ref().take(part.n_texts);
            lengths
                .map(|text| text.chunks.len().get())
                .max()
                .unwrap_or(0)
        };
        self.parts.iter().map(longest).sum()
    }
}

/// Parses and chunks a request for all encoders. `fill` has for each the least number of ids, where both sides
/// are filled to one length ([`Split::LpwSdxl`]).
pub(super) fn plan(towers: &[Tower], request: &Request<'_>, fill: &[usize]) -> Vec<Planned> {
    let fill = |place: usize| fill.get(place).copied().unwrap_or(0);
    let each = (0..towers.len()).map(|place| plan_one(place, towers, request, fill(place)));
    let mut plans: Vec<Planned> = each.collect();
    let lengths = request.rules().encoder_lengths;
    // `InvokeAI` has a compel of its own for each encoder.
    let joint = request.rules().dialect == Dialect::Compel && lengths != EncoderLengths::Zeros;
    if let ([first, _], true) = (plans.as_mut_slice(), joint) {
        first.notes.extend(first.weighted_parts());
    }
    match request.rules().split {
        Split::LpwSdxl => follow_first(&mut plans),
        _ => match_encoders(&mut plans, lengths, request.has_two_texts()),
    }
    fill_windows(&mut plans, request);
    let is_unread = request.rules().second_text() != SecondText::Appended;
    if let ([only], true) = (plans.as_mut_slice(), request.has_two_texts() && is_unread) {
        only.notes.push(second_unread(towers[0].id));
    }
    plans
}

/// Gives each encoder's plan the windows that are the least.
fn fill_windows(plans: &mut [Planned], request: &Request<'_>) {
    let joined = request.rules().split == Split::LpwSdxl;
    for planned in plans {
        match request.fewest_windows() {
            least if least > planned.windows && joined => planned.notes.push(Note {
                kind: NoteKind::Unused,
                span: 0..0,
                message: "lpw-sdxl joins windows without their ends and has no empty ones: the least number of \
                          windows is not used"
                    .to_owned(),
            }),
            least => planned.windows = planned.windows.max(least),
        }
    }
}

/// Something that the tool raises an error for.
fn refused(message: &str) -> Note {
    Note {
        kind: NoteKind::ReferenceError,
        span: 0..0,
        message: message.to_owned(),
    }
}

/// Two texts are SDXL's.
fn second_unread(encoder: EncoderId) -> Note {
    Note {
        kind: NoteKind::Unused,
        span: 0..0,
        message: format!(
            "two texts were given, and there is one encoder: {encoder} reads the first, the second is not used"
        ),
    }
}

/// The plan for the encoder at this place of the family's order.
fn plan_one(place: usize, towers: &[Tower], request: &Request<'_>, fill: usize) -> Planned {
    let rules = request.rules();
    let prepared = Prepared::of(&request.text_for(place), rules, request.is_negative());
    let prompt = Prompt::parse(&prepared.text, dialect(rules));
    let unread = schedule::unread(&prepared.text, rules.dialect, request.is_negative());
    let notes = unread.into_iter().chain(prompt.notes().iter().cloned());
    let lexicon = EncoderLexicon {
        embeddings: request.embeddings_given(),
        tower: towers[place],
        towers,
        files: rules.embedding_files,
    };
    let planner = Planner {
        rules,
        rule: rules.chunk_rule(towers[place].id),
        lexicon: &lexicon,
        fill,
    };
    let mut planned = planner.plan(&prompt, notes.collect());
    to_source(&mut planned, &prepared);
    planned.notes.splice(0..0, prompted::notes(request));
    planned
}

/// Spans of the prepared text become spans of the text that was given.
fn to_source(planned: &mut Planned, prepared: &Prepared) {
    for note in &mut planned.notes {
        note.span = prepared.to_source(note.span.clone());
    }
    for text in &mut planned.texts {
        prepared.pieces_to_source(&mut text.pieces);
    }
    planned.notes.splice(0..0, prepared.notes.iter().cloned());
}

/// Emphasis "None" reads no brackets.
fn dialect(rules: &Choices) -> Dialect {
    match rules.emphasis {
        Emphasis::None => Dialect::Plain,
        _ => rules.dialect,
    }
}

struct Planner<'a> {
    rules: &'a Choices,
    rule: ChunkRule,
    lexicon: &'a dyn Lexicon,
    fill: usize,
}

impl Planner<'_> {
    fn plan(&self, prompt: &Prompt, notes: Vec<Note>) -> Planned {
        let mut planned = Planned {
            readout: None,
            texts: Vec::new(),
            parts: Vec::new(),
            raw: self.raw_window(prompt),
            windows: 0,
            forms: 0,
            filled: 0,
            notes,
        };
        self.add_parts(&mut planned, prompt);
        planned.windows = planned.own_windows();
        let cut: Vec<Note> = planned.chunks().flat_map(Chunks::notes).cloned().collect();
        planned.notes.extend(cut);
        planned
    }

    /// The parts of the prompt's composition, or the whole prompt as one.
    fn add_parts(&self, planned: &mut Planned, prompt: &Prompt) {
        match prompt.composition() {
            Some(composition) => {
                for (part, weight) in &composition.parts {
                    self.add(planned, part, *weight);
                }
            }
            None => self.add(planned, &Part::Flat(prompt.pieces().to_vec()), 1.0),
        }
        if planned.parts.is_empty() {
            // `()`: compel fails at this, the empty prompt stands in.
            self.add(planned, &Part::Flat(Vec::new()), 1.0);
        }
    }

    fn add(&self, planned: &mut Planned, part: &Part, weight: f64) {
        let (texts, weights, normalize) = match part {
            Part::Flat(pieces) => (vec![pieces.clone()], vec![1.0], false),
            Part::Blend {
                prompts,
                weights,
                normalize,
            } => (prompts.clone(), weights.clone(), *normalize),
        };
        planned.parts.push(PlannedPart {
            n_texts: texts.len(),
            weights,
            normalize,
            weight,
        });
        let (mut windows, mut longest) = (0_usize, 0_usize);
        for pieces in &texts {
            let text = self.text(pieces, &mut planned.forms);
            windows += text.chunks.len().get();
            longest = longest.max(text.chunks.len().get());
            planned.texts.push(text);
        }
        planned.filled += longest.saturating_mul(texts.len()) - windows;
    }

    /// A text with its other forms. `forms` counts their windows; beyond the most none are made.
    fn text(&self, pieces: &[Piece], forms: &mut usize) -> Text {
        let mut chunks = self.chunks(pieces);
        let more = emphasis::n_windows_of_forms(self.rules.emphasis, &chunks);
        *forms = forms.saturating_add(more);
        if *forms > FORM_WINDOWS_AT_MOST {
            return Text {
                pieces: pieces.to_vec(),
                chunks,
                stages: Vec::new(),
            };
        }
        let mut fewer = false;
        let mut without = |piece: u32| {
            let mut rest = pieces.to_vec();
            rest.remove(piece as usize);
            let rest = self.chunks(&rest);
            fewer |= rest.len() < chunks.len();
            rest
        };
        let stages = emphasis::stages(self.rules.emphasis, &chunks, &mut without);
        if fewer {
            let message = "without the words of a strength below 1 there are fewer windows, at which \
                           compel fails; here they are filled with empty ones";
            let notes = chunks.notes().iter().cloned().chain([refused(message)]);
            chunks = chunks.clone().with_notes(notes.collect());
        }
        Text {
            pieces: pieces.to_vec(),
            chunks,
            stages,
        }
    }

    fn chunks(&self, pieces: &[Piece]) -> Chunks {
        let with = (self.lexicon, self.fill);
        Chunks::of_pieces_filled(pieces, Tokenizer::clip(), self.rule, with)
    }

    /// The whole text as typed in one window, where the tool pools that.
    fn raw_window(&self, prompt: &Prompt) -> Option<Chunk> {
        if self.rules.pooled_from() != PooledFrom::RawText {
            return None;
        }
        let raw = Prompt::parse(prompt.source(), Dialect::Plain);
        let rule = ChunkRule {
            split: Split::Truncate,
            ..self.rule
        };
        let chunks = Chunks::of_pieces(raw.pieces(), Tokenizer::clip(), rule, self.lexicon);
        chunks.iter().next().cloned()
    }
}

/// `lpw_stable_diffusion_xl.py` goes through the windows of the first encoder, and leaves out what the second has more.
fn follow_first(plans: &mut [Planned]) {
    let windows = plans.first().map_or(1, |first| first.windows);
    for plan in plans {
        if plan.windows > windows {
            plan.notes.push(Note {
                kind: NoteKind::Cut,
                span: 0..0,
                message: format!(
                    "the second encoder's {} windows are cut to the first one's {windows}",
                    plan.windows
                ),
            });
        }
        plan.windows = windows;
    }
}

/// The encoders of one request get the same number of windows.
fn match_encoders(plans: &mut [Planned], rule: EncoderLengths, two_texts: bool) {
    let lengths = plans.iter().map(|plan| plan.windows);
    let (Some(shortest), Some(longest)) = (lengths.clone().min(), lengths.max()) else {
        return;
    };
    let cut = rule == EncoderLengths::Cut && !two_texts && shortest < longest;
    for plan in plans {
        if cut && plan.windows > shortest {
            plan.notes.push(Note {
                kind: NoteKind::Cut,
                span: 0..0,
                message: format!(
                    "ComfyUI cuts the longer encoder's {longest} windows to the other's {shortest}"
                ),
            });
        }
        plan.windows = if cut { shortest } else { longest };
    }
}
