//! COMFYUI WORKFLOW → PLAN → CALLS ON THE CONDITIONER. Any workflow file goes in; what it would hand
//! to each sampler as positive and negative conditioning comes out.
//!
//! ```
//! # fn main() -> sd_conditioner::Result<()> {
//! use sd_conditioner::graph::{Session, Folder, Workflow};
//! let json = r#"{
//!     "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
//!     "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a cat"}},
//!     "3": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "negative": ["2", 0]}}
//! }"#;
//! let workflow = Workflow::from_json(json)?;
//! let plan = workflow.plan(&workflow.conditionings())?; // reads nothing
//! assert_eq!(plan.checkpoints(), ["sd15.safetensors"]);
//! assert_eq!((plan.n_encodings(), plan.n_windows()), (1, 1));
//! let mut session = Session::new(Folder::new("ComfyUI/models"));
//! let missing = session.run(&plan).unwrap_err(); // there is no such folder here
//! assert_eq!(missing.node(), Some("1"));
//! # Ok(())
//! # }
//! ```
//!
//! [`Workflow::plan`] evaluates everything but tensors: texts, numbers, which file is loaded where,
//! and a recipe for each conditioning, in which equal parts of the graph are one. A [`Session`]
//! follows recipes; it keeps encoders and what they made, so that an edited workflow encodes only
//! what is new. Node classes of your own implement [`NodeClass`].
//!
//! Sources of what each class does: `nodes.py`, `comfy_extras/` and `execution.py` of `ComfyUI`
//! 0.3.64, its front end for the editor's format, and `ComfyUI_ADV_CLIP_emb`.

mod api;
mod attributes;
mod cache;
mod call;
mod class;
mod drawn;
mod editor;
mod follow;
mod library;
mod needs;
mod nodes;
mod plan;
mod png;
mod recipe;
mod run;
mod scope;
mod value;
mod walk;
mod workflow;

pub use attributes::entries_json;
pub use call::Call;
pub use class::{Classes, Inlet, NodeClass, Presence};
pub use library::{Folder, Library};
pub use needs::{Clip, ClipSource, LoraUse, Need, Subfolder};
pub use plan::Plan;
pub use recipe::{Change, Encode, MaskRecipe, Recipe, Texts};
pub use run::{Session, Summary};
pub use value::{Kind, Value};
pub use workflow::{Place, Socket, Workflow};

use crate::error::{Error, ErrorKind};

/// A workflow that cannot be followed.
fn broken(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Workflow, message)
}
