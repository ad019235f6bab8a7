//! Classes of nodes: those of this crate, and yours.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use super::call::Call;
use super::nodes;
use super::value::{Kind, Value};
use crate::error::Result;

/// What a class of nodes does. It works on values that stand for tensors, before anything is loaded.
///
/// ```
/// use sd_conditioner::Result;
/// use sd_conditioner::graph::{Call, Classes, Inlet, Kind, NodeClass, Value, Workflow};
///
/// /// Repeats a text.
/// #[derive(Debug)]
/// struct Twice;
///
/// impl NodeClass for Twice {
///     fn name(&self) -> &str {
///         "TextTwice"
///     }
///     fn inlets(&self) -> &[Inlet] {
///         const { &[Inlet::required("text", Kind::Text)] }
///     }
///     fn evaluate(&self, call: &mut Call<'_>) -> Result<Vec<Value>> {
///         let text = call.text("text")?;
///         Ok(vec![Value::text(format!("{text}, {text}"))])
///     }
/// }
///
/// let json = r#"{
///     "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
///     "2": {"class_type": "TextTwice", "inputs": {"text": "a cat"}},
///     "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ["2", 0]}},
///     "4": {"class_type": "KSampler", "inputs": {"positive": ["3", 0], "negative": ["3", 0]}}
/// }"#;
/// let workflow = Workflow::from_json(json)?;
/// assert!(workflow.plan(&workflow.conditionings()).is_err());
/// let workflow = workflow.with_classes(Classes::comfy_ui().with(Twice));
/// assert!(workflow.plan(&workflow.conditionings()).is_ok());
/// # Ok::<(), sd_conditioner::Error>(())
/// ```
pub trait NodeClass: Debug + Send + Sync {
    /// `class_type` in the API format, `type` in the editor's.
    fn name(&self) -> &str;

    /// The inputs that it reads. What is behind others is not looked at.
    fn inlets(&self) -> &[Inlet];

    /// The inputs that the editor keeps values of in `widgets_values`, in that order; `""` for a
    /// value that is no input, such as what is done to a seed afterwards.
    fn widgets(&self) -> &[&str] {
        &[]
    }

    /// Those of [`widgets`](Self::widgets) that the editor does not send as they are typed: without comments, and
    /// one of each `{one|other}` (`dynamicPrompts`).
    fn prompts(&self) -> &[&str] {
        &[]
    }

    /// The `CONDITIONING` inputs that nothing more is done to: a sampler's.
    fn sinks(&self) -> &[&str] {
        &[]
    }

    /// Its outputs, in order.
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Vec<Value>>;
}

/// An input that a class reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inlet {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it must be there.
    pub presence: Presence,
}

/// Whether an input must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Presence {
    /// It must.
    Required,
    /// It may be absent.
    Optional,
}

impl Inlet {
    /// An input that must be there.
    pub const fn required(name: &'static str, kind: Kind) -> Inlet {
        Inlet {
            name,
            kind,
            presence: Presence::Required,
        }
    }

    /// An input that may be absent.
    pub const fn optional(name: &'static str, kind: Kind) -> Inlet {
        Inlet {
            name,
            kind,
            presence: Presence::Optional,
        }
    }
}

/// The classes that are known, by name. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Classes {
    by_name: BTreeMap<String, Arc<dyn NodeClass>>,
}

impl Classes {
    /// `ComfyUI`'s own that have to do with text conditioning, and those of `ComfyUI_ADV_CLIP_emb`.
    pub fn comfy_ui() -> Classes {
        let none = Classes {
            by_name: BTreeMap::new(),
        };
        nodes::all().fold(none, Classes::with)
    }

    /// The same and one more; it replaces one of the same name.
    #[must_use]
    pub fn with(mut self, class: impl NodeClass + 'static) -> Classes {
        let name = class.name().to_owned();
        self.by_name.insert(name, Arc::new(class));
        self
    }

    /// Their names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    pub(super) fn get(&self, name: &str) -> Option<&dyn NodeClass> {
        self.by_name.get(name).map(|class| &**class)
    }
}
