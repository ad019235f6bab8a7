//! The names that a pickle may use, and what calling one gives. Nothing is imported or called: the
//! few that `torch.save` needs are answered here, and all others give an opaque object.

use std::rc::Rc;

use safetensors::Dtype;

use super::value::{Global, Id, Role, Storage, Tensor, Value, Values};
use super::{broken, refused, unsupported};
use crate::error::{Error, Result};

/// Functions and classes with a meaning. A1111's `modules/safe.py` allows the same ones.
const KNOWN: [(&str, Role); 17] = [
    ("collections.OrderedDict", Role::Dict),
    ("collections.defaultdict", Role::Dict),
    ("builtins.dict", Role::Dict),
    ("__builtin__.dict", Role::Dict),
    ("builtins.set", Role::Set),
    ("__builtin__.set", Role::Set),
    ("builtins.frozenset", Role::Set),
    ("__builtin__.frozenset", Role::Set),
    ("torch._utils._rebuild_tensor", Role::Tensor),
    ("torch._utils._rebuild_tensor_v2", Role::Tensor),
    ("torch._utils._rebuild_tensor_v3", Role::TensorOfType),
    ("torch._utils._rebuild_parameter", Role::Parameter),
    (
        "torch._utils._rebuild_parameter_with_state",
        Role::Parameter,
    ),
    ("torch.nn.parameter.Parameter", Role::Parameter),
    ("torch._tensor._rebuild_from_type_v2", Role::FromType),
    ("torch.storage.UntypedStorage", Role::Untyped),
    ("torch.UntypedStorage", Role::Untyped),
];

/// Types by their name in `torch` and by that of their storage.
const TYPES: [(&str, &str, Dtype); 13] = [
    ("float64", "DoubleStorage", Dtype::F64),
    ("float32", "FloatStorage", Dtype::F32),
    ("float16", "HalfStorage", Dtype::F16),
    ("bfloat16", "BFloat16Storage", Dtype::BF16),
    ("float8_e4m3fn", "", Dtype::F8_E4M3),
    ("float8_e5m2", "", Dtype::F8_E5M2),
    ("int64", "LongStorage", Dtype::I64),
    ("int32", "IntStorage", Dtype::I32),
    ("int16", "ShortStorage", Dtype::I16),
    ("int8", "CharStorage", Dtype::I8),
    ("uint8", "ByteStorage", Dtype::U8),
    ("bool", "BoolStorage", Dtype::BOOL),
    ("complex64", "ComplexFloatStorage", Dtype::C64),
];

/// Modules that no weight file has a use for: a file that names one was made to do harm.
const HARMFUL: [&str; 20] = [
    "os",
    "posix",
    "nt",
    "subprocess",
    "commands",
    "sys",
    "shutil",
    "socket",
    "runpy",
    "importlib",
    "pty",
    "ctypes",
    "pickle",
    "_pickle",
    "marshal",
    "webbrowser",
    "requests",
    "urllib",
    "http",
    "asyncio",
];

/// The same among Python's own functions.
const HARMFUL_BUILTINS: [&str; 8] = [
    "eval",
    "exec",
    "execfile",
    "compile",
    "open",
    "__import__",
    "input",
    "breakpoint",
];

/// The most dimensions of a tensor; `torch` allows 64.
const MAX_RANK: usize = 64;

/// Arguments of a call that are looked at; `_rebuild_tensor_v3` has the most, 8.
const MOST_ARGUMENTS: usize = 8;

/// The longest name that is kept, its module included; those of `torch` have some dozen bytes.
const MAX_NAME: usize = 512;

/// Looks a name up. One that can only be meant to do harm is an error that names it.
pub(super) fn find(module: &str, name: &str) -> Result<Value> {
    if module.len().saturating_add(name.len()) > MAX_NAME {
        let n_bytes = module.len().saturating_add(name.len());
        let message = format!("the pickle asks for a name of {n_bytes} bytes");
        return Err(broken(message));
    }
    let first = module.split('.').next().unwrap_or(module);
    let builtin = matches!(module, "builtins" | "__builtin__");
    let full: Rc<str> = format!("{module}.{name}").into();
    if HARMFUL.contains(&first) || (builtin && HARMFUL_BUILTINS.contains(&name)) {
        let message = format!("this pickle asks for `{full}`, which no weight file needs");
        return Err(refused(message)
            .hint("nothing of it was run; delete the file and distrust where it came from"));
    }
    let role = role(module, name, &full);
    Ok(Value::Global(Global { role, name: full }))
}

fn role(module: &str, name: &str, full: &str) -> Role {
    if let Some((_, role)) = KNOWN.iter().find(|(known, _)| *known == full) {
        return *role;
    }
    let typed = TYPES.iter().find_map(|(dtype, storage, of)| match name {
        _ if !matches!(module, "torch" | "torch.cuda" | "torch.storage") => None,
        _ if name == *dtype => Some(Role::Dtype(*of)),
        _ if name == *storage => Some(Role::Storage(*of)),
        _ => None,
    });
    typed.unwrap_or(Role::Opaque)
}

/// How many values a call copies.
pub(super) fn cost(values: &Values, callee: Id, arguments: Id) -> usize {
    let Value::Global(Global { role, .. }) = values.get(callee) else {
        return 0;
    };
    let pairs = || values.members(*values.members(arguments)?.last()?);
    match role {
        Role::Dict => pairs().map_or(0, <[Id]>::len),
        Role::Tensor | Role::TensorOfType | Role::FromType => MAX_RANK,
        _ => 0,
    }
}

/// What a call or the making of an object gives. No arguments are looked at unless they say where a
/// tensor is.
pub(super) fn call(values: &mut Values, callee: Id, arguments: Id) -> Result<Id> {
    let Value::Global(global) = values.get(callee) else {
        let class = class_of(values, callee);
        return Ok(values.add_object(class));
    };
    let global = global.clone();
    let Some(members) = values.members(arguments) else {
        let message = format!("the pickle calls `{}` without a tuple", global.name);
        return Err(broken(message));
    };
    if global.role == Role::Dict {
        let pairs = pairs(values, members);
        return Ok(values.add(Value::Dict(pairs)));
    }
    let members: Vec<Id> = members.iter().take(MOST_ARGUMENTS).copied().collect();
    match global.role {
        Role::Tensor => tensor(values, &members, &global.name, None),
        Role::TensorOfType => typed(values, &members, &global.name),
        Role::Parameter => first(&members, &global.name),
        Role::FromType => from_type(values, &members, &global.name),
        Role::Set => Ok(values.add(Value::List(Vec::new()))),
        Role::Dict | Role::Storage(_) | Role::Untyped | Role::Dtype(_) | Role::Opaque => {
            Ok(values.add_object(global.name))
        }
    }
}

/// `(function, class, arguments, state)` of a tensor whose class or attributes are its own.
fn from_type(values: &mut Values, members: &[Id], name: &str) -> Result<Id> {
    let [function, _, arguments, ..] = members else {
        return Err(few(name, members.len()));
    };
    let inner = match values.get(*function) {
        Value::Global(inner) => inner.clone(),
        _ => return Err(few(name, members.len())),
    };
    match inner.role {
        Role::Tensor | Role::TensorOfType | Role::Parameter => call(values, *function, *arguments),
        _ => Ok(values.add_object(inner.name)),
    }
}

/// The class of what is no class itself, for a message.
fn class_of(values: &Values, id: Id) -> Rc<str> {
    match values.get(id) {
        Value::Object { class, .. } => Rc::clone(class),
        _ => "something without a name".into(),
    }
}

/// `OrderedDict([[key, value], …])`, as Python 2 pickled it.
fn pairs(values: &Values, arguments: &[Id]) -> Vec<(Id, Id)> {
    let all = arguments.last().and_then(|list| values.members(*list));
    let pair = |id: &Id| match values.members(*id)? {
        [key, value] => Some((*key, *value)),
        _ => None,
    };
    all.into_iter().flatten().filter_map(pair).collect()
}

fn first(members: &[Id], name: &str) -> Result<Id> {
    let first = members.first().copied();
    first.ok_or_else(|| few(name, members.len()))
}

fn few(name: &str, count: usize) -> Error {
    broken(format!(
        "the pickle calls `{name}` with {count} arguments, which are too few or of a wrong kind"
    ))
}

/// `_rebuild_tensor_v3`: the seventh argument is the type; one that has no name here gives an object.
fn typed(values: &mut Values, members: &[Id], name: &str) -> Result<Id> {
    let dtype = members.get(6).map(|id| values.get(*id));
    let Some(Value::Global(Global { role, name: class })) = dtype else {
        return Err(few(name, members.len()));
    };
    if let Role::Dtype(dtype) = *role {
        return tensor(values, members, name, Some(dtype));
    }
    let class = Rc::clone(class);
    Ok(values.add_object(class))
}

/// `(storage, offset, shape, strides, …)`, of the storage's type unless `dtype` is another. A storage
/// of a type that has no name here gives an object.
fn tensor(values: &mut Values, members: &[Id], name: &str, dtype: Option<Dtype>) -> Result<Id> {
    let wrong = || few(name, members.len());
    let [storage, offset, shape, strides, ..] = members else {
        return Err(wrong());
    };
    let storage = match values.get(*storage) {
        Value::Storage(storage) => Rc::clone(storage),
        Value::Object { .. } => return Ok(*storage),
        _ => return Err(wrong()),
    };
    let Some((offset, shape, strides)) = view(values, *offset, *shape, *strides) else {
        return Err(wrong().hint("sizes, strides and offsets are whole numbers from 0"));
    };
    let shape = sides(&shape, &strides).ok_or_else(wrong)?;
    let tensor = Tensor {
        dtype: dtype.unwrap_or(storage.dtype),
        storage,
        offset,
        shape,
        strides,
    };
    Ok(values.add(Value::Tensor(Rc::new(tensor))))
}

/// Offset, shape and strides as numbers, if they are some.
fn view(values: &Values, offset: Id, shape: Id, strides: Id) -> Option<(u64, Vec<u64>, Vec<u64>)> {
    let counts = |id: Id| -> Option<Vec<u64>> {
        let members = values
            .members(id)
            .filter(|members| members.len() <= MAX_RANK)?;
        members.iter().map(|id| values.count(*id)).collect()
    };
    Some((values.count(offset)?, counts(shape)?, counts(strides)?))
}

/// The sides of a shape, if there is a stride for each.
fn sides(shape: &[u64], strides: &[u64]) -> Option<Vec<usize>> {
    let sides = shape.iter().map(|side| usize::try_from(*side).ok());
    let sides: Option<Vec<usize>> = sides.collect();
    sides.filter(|sides| sides.len() == strides.len())
}

/// What a reference stands for: `("storage", type, key, location, count)`, with a view of it in
/// files of before 0.4; or `("module", class, file, source)`, which is the class.
pub(super) fn referred(values: &mut Values, id: Id) -> Result<Id> {
    let members = values.members(id).ok_or_else(no_storage)?;
    let members: Vec<Id> = members.iter().take(MOST_ARGUMENTS).copied().collect();
    match members.as_slice() {
        [tag, class, ..] if values.is_text(*tag, "module") => Ok(*class),
        [tag, kind, key, _, count, view @ ..] if values.is_text(*tag, "storage") => {
            let storage = storage(values, *kind, *key, *count)?;
            refuse_views(values, view)?;
            Ok(values.add(storage))
        }
        _ => Err(no_storage()),
    }
}

/// A storage; an object if its type has no name here.
fn storage(values: &Values, kind: Id, key: Id, count: Id) -> Result<Value> {
    let (kind, key, count) = (values.get(kind), values.text(key), values.count(count));
    let (Value::Global(kind), Some(key), Some(count)) = (kind, key, count) else {
        return Err(no_storage());
    };
    let dtype = match kind.role {
        Role::Storage(dtype) => dtype,
        Role::Untyped => Dtype::U8,
        _ => {
            let (class, state) = (Rc::clone(&kind.name), None);
            return Ok(Value::Object { class, state });
        }
    };
    let key = Rc::clone(key);
    Ok(Value::Storage(Rc::new(Storage { key, dtype, count })))
}

fn no_storage() -> Error {
    broken("the pickle refers to something that is no storage of a tensor")
}

/// An error if anything is said of a view.
fn refuse_views(values: &Values, view: &[Id]) -> Result<()> {
    let is_said = |id: &Id| !matches!(values.get(*id), Value::Nothing);
    if view.iter().any(is_said) {
        return Err(unsupported(
            "a storage that is a view of another, as torch 0.1 wrote",
        ));
    }
    Ok(())
}
