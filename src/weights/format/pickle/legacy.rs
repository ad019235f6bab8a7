//! Files of `torch.save` before version 1.6: five pickles in a row (magic number, protocol, facts of
//! the machine, the object, the keys of its storages), then the storages, each after its count of
//! values (`_legacy_save` in `torch/serialization.py`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use super::machine::{self, Built};
use super::source::Source;
use super::value::{Storage, Value};
use super::{Contents, broken, io, place, tree, unsupported};
use crate::error::{Error, Result};

/// `PROTOCOL_VERSION` of `torch/serialization.py`.
const PROTOCOL: i64 = 1001;

/// Places of storages: start and length, by key.
type Places = BTreeMap<Rc<str>, (u64, u64)>;

pub(super) fn read(file: &mut File, length: u64) -> Result<Contents> {
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut source = Source::new(BufReader::new(&mut *file), length);
    machine::run(&mut source)?;
    protocol(&machine::run(&mut source)?)?;
    byte_order(&machine::run(&mut source)?)?;
    let built = machine::run(&mut source)?;
    let keys = keys(&machine::run(&mut source)?)?;
    let data = source.position();
    drop(source);
    let found = tree::find(&built)?;
    let places = places(file, length, data, &keys, &built)?;
    let locate = |storage: &Storage| {
        let place = places.get(&storage.key).copied();
        place.ok_or_else(|| {
            let key = &storage.key;
            broken(format!("its storage `{key}` is missing from the file"))
        })
    };
    let announced = place::all(&found, length, locate)?;
    Ok((announced, found.notes))
}

fn protocol(built: &Built) -> Result<()> {
    match built.values.get(built.root) {
        Value::Int(PROTOCOL) => Ok(()),
        _ => Err(broken(format!(
            "an old PyTorch file of another version than {PROTOCOL}"
        ))),
    }
}

fn byte_order(built: &Built) -> Result<()> {
    let little = built.values.field(built.root, "little_endian");
    match little.map(|little| built.values.get(little)) {
        Some(Value::Bool(false)) => Err(big_endian()),
        _ => Ok(()),
    }
}

/// The file was written on a machine of the other byte order.
pub(super) fn big_endian() -> Error {
    unsupported("the file's numbers are big-endian, which is not supported")
}

/// The keys of the storages in the order in which they follow.
fn keys(built: &Built) -> Result<Vec<Rc<str>>> {
    let members = built.values.members(built.root);
    let text = |id| built.values.text(id).cloned();
    let keys = members.map(|members| members.iter().map(|id| text(*id)).collect());
    let keys: Option<Option<Vec<_>>> = keys;
    keys.flatten()
        .ok_or_else(|| broken("the list of storages is not a list of texts"))
}

/// Steps over the storages from count to count.
fn places(
    file: &mut File,
    length: u64,
    data: u64,
    keys: &[Rc<str>],
    built: &Built,
) -> Result<Places> {
    let (mut places, mut at) = (Places::new(), data);
    for key in keys {
        let n_bytes = match built.strange.get(key) {
            Some(class) => strange(file, at, key, class)?,
            None => known(file, at, declared(built, key)?)?,
        };
        let start = at + 8;
        let end = n_bytes.and_then(|n_bytes| start.checked_add(n_bytes));
        let end = end.filter(|end| *end <= length).ok_or_else(|| cut(key))?;
        let twice = places.insert(Rc::clone(key), (start, end - start));
        if twice.is_some() {
            return Err(broken(format!("the storage `{key}` is there twice")));
        }
        at = end;
    }
    Ok(places)
}

/// What the pickle says of a storage.
fn declared<'a>(built: &'a Built, key: &str) -> Result<&'a Storage> {
    match built.storages.get(key) {
        Some(storage) => Ok(storage),
        None => Err(broken(format!("nothing refers to the storage `{key}`"))),
    }
}

/// Bytes of a storage; an error unless the count before its values is the one that was declared.
fn known(file: &mut File, at: u64, storage: &Storage) -> Result<Option<u64>> {
    let (key, declared) = (&storage.key, storage.count);
    let count = count(file, at, key)?;
    if count == Some(declared) {
        return Ok(storage.n_bytes());
    }
    let told = count.unwrap_or_default();
    let message = format!("the storage `{key}` has {told} values, declared are {declared}");
    Err(broken(message))
}

/// Bytes of each value in storages of types that nothing here reads; they are stepped over.
const SKIPPED: [(&str, u64); 5] = [
    ("ComplexDoubleStorage", 16),
    ("QInt32Storage", 4),
    ("QInt8Storage", 1),
    ("QUInt8Storage", 1),
    ("QUInt4x2Storage", 1),
];

/// Bytes of a storage of a type that has no name here.
fn strange(file: &mut File, at: u64, key: &str, class: &str) -> Result<Option<u64>> {
    let name = class.strip_prefix("torch.").unwrap_or(class);
    let Some((_, size)) = SKIPPED.iter().find(|(known, _)| *known == name) else {
        let message = format!("the storage `{key}` is of a type that is not known: `{class}`");
        return Err(unsupported(message));
    };
    let count = count(file, at, key)?;
    Ok(count.and_then(|count| count.checked_mul(*size)))
}

/// The count before a storage's values, if it is one.
fn count(file: &mut File, at: u64, key: &str) -> Result<Option<u64>> {
    let mut count = [0; 8];
    file.seek(SeekFrom::Start(at)).map_err(io)?;
    let read = file.read_exact(&mut count);
    read.map_err(|_| cut(key))?;
    Ok(u64::try_from(i64::from_le_bytes(count)).ok())
}

fn cut(key: &str) -> Error {
    broken(format!("the file ends within the storage `{key}`")).hint("incomplete download?")
}
