//! What a pickle can build here: inert values, each at a number, so that shared and circular ones
//! cost nothing and nothing is ever copied.

use std::rc::Rc;

use safetensors::Dtype;

/// The number of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(u32);

/// One value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `None`, and everything whose value no one asks for: floats, bytes, long integers.
    Nothing,
    Bool(bool),
    Int(i64),
    Text(Rc<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Rc<Tensor>),
    /// Something that was not built: its class, and the state it was given.
    Object {
        class: Rc<str>,
        state: Option<Id>,
    },
}

/// A name that the pickle refers to.
#[derive(Clone, Debug)]
pub(super) struct Global {
    pub(super) role: Role,
    /// `module.name`
    pub(super) name: Rc<str>,
}

/// What a name means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Makes a dictionary.
    Dict,
    /// Makes a list, as sets are kept here.
    Set,
    /// The type of a storage.
    Storage(Dtype),
    /// `torch.storage.UntypedStorage`, counted in bytes.
    Untyped,
    /// `torch.float32` and its like.
    Dtype(Dtype),
    /// `torch._utils._rebuild_tensor_v2` and the one before it.
    Tensor,
    /// The same for types that have no storage of their own.
    TensorOfType,
    /// `torch._utils._rebuild_parameter`: the tensor itself.
    Parameter,
    /// `torch._tensor._rebuild_from_type_v2`: the function and the arguments for a tensor of a
    /// class of its own.
    FromType,
    /// Everything else.
    Opaque,
}

/// Where the values of tensors lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: Rc<str>,
    /// `U8` if untyped.
    pub(super) dtype: Dtype,
    /// How many values it says to have.
    pub(super) count: u64,
}

impl Storage {
    /// Its size; `None` if there is no such number.
    pub(super) fn n_bytes(&self) -> Option<u64> {
        self.count.checked_mul(self.dtype.bitsize() as u64 / 8)
    }
}

/// A view into a storage, as the file declares it: nothing of it is checked.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) storage: Rc<Storage>,
    pub(super) dtype: Dtype,
    /// Values before the first.
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    /// Values from one to the next, in each dimension.
    pub(super) strides: Vec<u64>,
}

/// All values of a pickle.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<Value>);

impl Values {
    /// Takes one in. The machine's bound on steps keeps the count far below what a number holds.
    pub(super) fn add(&mut self, value: Value) -> Id {
        let id = Id(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        self.0.push(value);
        id
    }

    /// Takes in something that is not built.
    pub(super) fn add_object(&mut self, class: Rc<str>) -> Id {
        self.add(Value::Object { class, state: None })
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        self.0.get(id.0 as usize).unwrap_or(&Value::Nothing)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Value> {
        self.0.get_mut(id.0 as usize)
    }

    /// A text.
    pub(super) fn text(&self, id: Id) -> Option<&Rc<str>> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// True for this text.
    pub(super) fn is_text(&self, id: Id, expected: &str) -> bool {
        self.text(id).is_some_and(|text| &**text == expected)
    }

    /// An integer that is not negative.
    pub(super) fn count(&self, id: Id) -> Option<u64> {
        match self.get(id) {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The members of a tuple or list.
    pub(super) fn members(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(members) | Value::List(members) => Some(members),
            _ => None,
        }
    }

    /// True for what is a tensor or may hold one.
    pub(super) fn leads_on(&self, id: Id) -> bool {
        use Value::{Dict, List, Object, Tensor, Tuple};
        let value = self.get(id);
        matches!(
            value,
            Tensor(_) | Dict(_) | List(_) | Tuple(_) | Object { .. }
        )
    }

    /// The value under a text key; the last if there are several, as in Python.
    pub(super) fn field(&self, dict: Id, key: &str) -> Option<Id> {
        let Value::Dict(items) = self.get(dict) else {
            return None;
        };
        let found = items.iter().rev().find(|(id, _)| self.is_text(*id, key));
        found.map(|(_, value)| *value)
    }
}
