//! Pickles as `torch.save` writes them, by hand, so that every byte of them can be wrong on purpose.
//! `golden/weights` has some that `torch.save` itself wrote.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use super::entries::{Entry, Stored};

/// What a pickle can say.
#[derive(Clone)]
pub(crate) enum Object {
    None,
    Int(i32),
    Text(String),
    List(Vec<Object>),
    Dict(Vec<(Object, Object)>),
    /// `module`, `name`.
    Global(&'static str, &'static str),
    /// Callee and arguments.
    Call(Box<Object>, Vec<Object>),
    /// An object and its state.
    Build(Box<Object>, Box<Object>),
    Tensor(View),
    /// Bytes that are put in as they are.
    Raw(Vec<u8>),
}

/// A tensor and its storage.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) key: String,
    pub(crate) stored: Stored,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) offset: usize,
    /// Values that the pickle says the storage has.
    pub(crate) count: usize,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn text(text: &str) -> Object {
    Object::Text(text.to_owned())
}

/// A dictionary with text keys.
pub(crate) fn dict<const N: usize>(items: [(&str, Object); N]) -> Object {
    let items = items.map(|(key, value)| (text(key), value));
    Object::Dict(items.into())
}

/// A tensor with a storage of its own, row by row.
pub(crate) fn view(key: usize, entry: &Entry) -> View {
    dense(
        key,
        entry.stored,
        &entry.shape,
        entry.stored.bytes(&(entry.make)()),
    )
}

fn dense(key: usize, stored: Stored, shape: &[usize], bytes: Vec<u8>) -> View {
    let mut strides = vec![1; shape.len()];
    for at in (1..strides.len()).rev() {
        strides[at - 1] = strides[at] * shape[at];
    }
    View {
        key: key.to_string(),
        stored,
        shape: shape.to_vec(),
        strides,
        offset: 0,
        count: shape.iter().product(),
        bytes,
    }
}

const TYPES: [Stored; 9] = [
    Stored::F64,
    Stored::F32,
    Stored::F16,
    Stored::Bf16,
    Stored::F8E4m3,
    Stored::F8E5m2,
    Stored::I64,
    Stored::I32,
    Stored::U8,
];

/// A state dictionary.
pub(crate) fn state(entries: &[Entry]) -> Object {
    let items = entries.iter().enumerate();
    let items = items.map(|(key, entry)| (text(&entry.name), Object::Tensor(view(key, entry))));
    Object::Dict(items.collect())
}

fn storage_type(stored: Stored) -> &'static str {
    match stored {
        Stored::F64 => "DoubleStorage",
        Stored::F32 => "FloatStorage",
        Stored::F16 => "HalfStorage",
        Stored::Bf16 => "BFloat16Storage",
        Stored::I64 => "LongStorage",
        Stored::I32 => "IntStorage",
        Stored::U8 => "ByteStorage",
        Stored::F8E4m3 | Stored::F8E5m2 => "UntypedStorage",
    }
}

/// The bytes of one pickle, protocol 2, and its storages in order.
#[derive(Default)]
pub(crate) struct Pickle {
    pub(crate) bytes: Vec<u8>,
    pub(crate) storages: Vec<(String, usize, Vec<u8>)>,
    /// Legacy files name the view of a storage too.
    legacy: bool,
}

impl Pickle {
    pub(crate) fn of(object: &Object, legacy: bool) -> Pickle {
        let mut pickle = Pickle {
            bytes: vec![0x80, 2],
            legacy,
            ..Pickle::default()
        };
        pickle.put(object);
        pickle.bytes.push(b'.');
        pickle
    }

    fn number(&mut self, number: usize) {
        self.put(&Object::Int(i32::try_from(number).expect("small")));
    }

    fn numbers(&mut self, numbers: &[usize]) {
        self.bytes.push(b'(');
        for number in numbers {
            self.number(*number);
        }
        self.bytes.push(b't');
    }

    fn put(&mut self, object: &Object) {
        match object {
            Object::None => self.bytes.push(b'N'),
            Object::Int(number) => {
                self.bytes.push(b'J');
                self.bytes.extend(number.to_le_bytes());
            }
            Object::Text(text) => {
                self.bytes.push(b'X');
                let length = u32::try_from(text.len()).expect("short");
                self.bytes.extend(length.to_le_bytes());
                self.bytes.extend(text.as_bytes());
            }
            Object::List(members) => self.marked(b"](", members, b'e'),
            Object::Dict(items) => {
                let members = items
                    .iter()
                    .flat_map(|(key, value)| [key.clone(), value.clone()]);
                self.marked(b"}(", &members.collect::<Vec<_>>(), b'u');
            }
            Object::Global(module, name) => {
                self.bytes.extend(format!("c{module}\n{name}\n").as_bytes());
            }
            Object::Call(callee, arguments) => {
                self.put(callee);
                self.marked(b"(", arguments, b't');
                self.bytes.push(b'R');
            }
            Object::Build(object, state) => {
                self.put(object);
                self.put(state);
                self.bytes.push(b'b');
            }
            Object::Tensor(view) => self.tensor(view),
            Object::Raw(bytes) => self.bytes.extend(bytes),
        }
    }

    fn marked(&mut self, start: &[u8], members: &[Object], end: u8) {
        self.bytes.extend(start);
        for member in members {
            self.put(member);
        }
        self.bytes.push(end);
    }

    /// `_rebuild_tensor_v2`, or `_v3` for types without a storage of their own.
    fn tensor(&mut self, view: &View) {
        let dtype = match view.stored {
            Stored::F8E4m3 => Some("float8_e4m3fn"),
            Stored::F8E5m2 => Some("float8_e5m2"),
            _ => None,
        };
        let rebuild = if dtype.is_some() {
            "_rebuild_tensor_v3"
        } else {
            "_rebuild_tensor_v2"
        };
        self.put(&Object::Global("torch._utils", rebuild));
        self.bytes.extend(b"((");
        self.put(&text("storage"));
        self.put(&Object::Global("torch", storage_type(view.stored)));
        self.put(&text(&view.key));
        self.put(&text("cpu"));
        self.number(view.count);
        if self.legacy {
            self.put(&Object::None);
        }
        self.bytes.extend(b"tQ");
        self.number(view.offset);
        self.numbers(&view.shape);
        self.numbers(&view.strides);
        self.bytes.push(0x89);
        self.put(&Object::Call(
            Object::Global("collections", "OrderedDict").into(),
            Vec::new(),
        ));
        if let Some(dtype) = dtype {
            self.put(&Object::Global("torch", dtype));
        }
        self.bytes.extend(b"tR");
        if self.storages.iter().all(|(key, ..)| *key != view.key) {
            self.storages
                .push((view.key.clone(), view.count, view.bytes.clone()));
        }
    }
}

/// Writes the zip form.
pub(crate) fn save_zip(path: &Path, object: &Object) -> PathBuf {
    let pickle = Pickle::of(object, false);
    let mut entries = vec![
        ("archive/data.pkl".to_owned(), pickle.bytes),
        ("archive/byteorder".to_owned(), b"little".to_vec()),
    ];
    for (key, _, bytes) in pickle.storages {
        entries.push((format!("archive/data/{key}"), bytes));
    }
    entries.push(("archive/version".to_owned(), b"3\n".to_vec()));
    write(path, &zip(&entries))
}

/// Writes the legacy form: magic number, protocol, facts of the machine, object, keys, storages.
pub(crate) fn save_legacy(path: &Path, object: &Object) -> PathBuf {
    write(path, &legacy(object))
}

pub(crate) fn legacy(object: &Object) -> Vec<u8> {
    let pickle = Pickle::of(object, true);
    let mut bytes = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    bytes.extend(Pickle::of(&Object::Int(1001), true).bytes);
    let facts = dict([
        ("protocol_version", Object::Int(1001)),
        ("little_endian", Object::Raw(vec![0x88])),
    ]);
    bytes.extend(Pickle::of(&facts, true).bytes);
    bytes.extend(pickle.bytes);
    let keys = pickle.storages.iter().map(|(key, ..)| text(key));
    bytes.extend(Pickle::of(&Object::List(keys.collect()), true).bytes);
    for (_, count, storage) in pickle.storages {
        bytes.extend((count as u64).to_le_bytes());
        bytes.extend(storage);
    }
    bytes
}

fn write(path: &Path, bytes: &[u8]) -> PathBuf {
    std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a writable folder");
    std::fs::write(path, bytes).expect("a writable file");
    path.to_owned()
}

/// A zip archive of stored entries. Checksums are zero: nobody looks at them.
pub(crate) fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let header = u32::try_from(bytes.len()).expect("small").to_le_bytes();
        let size = u32::try_from(content.len()).expect("small").to_le_bytes();
        let length = u16::try_from(name.len()).expect("short").to_le_bytes();
        let common = [&[0; 14], &size[..], &size, &length].concat();
        bytes.extend([b"PK\x03\x04", &common[..], &[0; 2], name.as_bytes()].concat());
        bytes.extend(content);
        let after = [&[0; 12], &header[..], name.as_bytes()].concat();
        directory.extend([b"PK\x01\x02\0\0", &common[..], &after].concat());
    }
    let start = u32::try_from(bytes.len()).expect("small").to_le_bytes();
    let size = u32::try_from(directory.len()).expect("small").to_le_bytes();
    let count = u16::try_from(entries.len()).expect("few").to_le_bytes();
    bytes.extend(directory);
    bytes.extend(
        [
            b"PK\x05\x06\0\0\0\0",
            &count[..],
            &count,
            &size,
            &start,
            &[0, 0],
        ]
        .concat(),
    );
    bytes
}

/// Rewrites a safetensors file as a pickle, and removes it.
pub(crate) fn repickle(from: &Path, to: &Path, save: fn(&Path, &Object) -> PathBuf) -> PathBuf {
    let bytes = std::fs::read(from).expect("a file");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut items = Vec::new();
    for (key, (name, tensor)) in tensors.tensors().into_iter().enumerate() {
        let tag = tensor.dtype().to_string();
        let stored = TYPES.into_iter().find(|one| one.tag() == tag);
        let stored = stored.expect("a type of these tests");
        let view = dense(key, stored, tensor.shape(), tensor.data().to_vec());
        items.push((text(&name), Object::Tensor(view)));
    }
    std::fs::remove_file(from).expect("a file of ours");
    save(to, &Object::Dict(items))
}
