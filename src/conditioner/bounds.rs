//! PLAN → whether it needs more windows than there may be. A few KiB of text can ask for all memory there is.

use super::plan::Planned;
use crate::error::{Error, ErrorKind, Result};

/// The most windows that one request may need of one encoder beside the text's own.
///
/// compel encodes the whole text once more for each fragment below 1, and some methods of
/// `ComfyUI_ADV_CLIP_emb` for each strength: that grows with the square of a text, and a few KiB of it would
/// take all memory. So do the shorter texts of a blend, which are filled to the longest's length, and the texts
/// of a schedule, one for each step. A request that needs more is refused ([`ErrorKind::Request`]) before they
/// are made. The text's own windows are not counted; they grow with the text.
pub const FORM_WINDOWS_AT_MOST: usize = 4096;

impl Planned {
    /// Refuses one whose forms are too many; without them nothing of it can be encoded.
    pub(super) fn expect_all_forms(&self) -> Result<()> {
        if self.filled > FORM_WINDOWS_AT_MOST {
            let message = format!(
                "the shorter texts of a blend would be filled with {} empty windows to the length of the longest; \
                 {FORM_WINDOWS_AT_MOST} are the most",
                self.filled
            );
            let hint = "blend texts of one length, or fewer of them";
            return Err(Error::new(ErrorKind::Request, message).hint(hint));
        }
        if self.forms <= FORM_WINDOWS_AT_MOST {
            return Ok(());
        }
        let message = format!(
            "the strengths of this prompt need {} windows beside its own {}: the whole text once more for each \
             fragment that is weakened or strengthened; {FORM_WINDOWS_AT_MOST} are the most",
            self.forms,
            self.own_windows()
        );
        let hint = "give strengths to fewer and longer fragments, or take an emphasis that needs no other forms \
                    of the text, as `comfyui` and `a1111-original`";
        Err(Error::new(ErrorKind::Request, message).hint(hint))
    }

    /// Its forms' windows, as far as they are counted.
    pub(super) fn n_forms(&self) -> usize {
        self.forms
    }
}

/// Refuses so many windows beside those that each part of a prompt has anyway.
pub(super) fn expect_windows(more: usize) -> Result<()> {
    if more <= FORM_WINDOWS_AT_MOST {
        return Ok(());
    }
    let message = format!(
        "the steps of this prompt need {more} windows or more beside its own; {FORM_WINDOWS_AT_MOST} are the most"
    );
    let error = Error::new(ErrorKind::Request, message);
    Err(error.hint("take a shorter prompt, fewer steps or fewer brackets that change it"))
}
