//! Pickles that are broken or meant to do harm: an error each that says what, nothing run, nothing
//! allocated that the file does not have.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sd_conditioner::ErrorKind::{self, FileFormat, Unsupported};

use super::{check_refused, load};
use crate::support::entries::{Entry, Stored};
use crate::support::pickles::{Object, Pickle, View, dict, save_legacy, save_zip, text, view, zip};

/// Where the files lie.
pub(super) struct Attic {
    folder: tempfile::TempDir,
}

impl Attic {
    pub(super) fn new() -> Attic {
        let folder = tempfile::tempdir().unwrap();
        Attic { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("model.ckpt")
    }

    #[track_caller]
    pub(super) fn check(&self, bytes: &[u8], kind: ErrorKind, words: &[&str]) {
        std::fs::write(self.path(), bytes).unwrap();
        check_refused(load(&self.path()), kind, words);
    }

    /// An archive of this pickle and nothing else.
    #[track_caller]
    pub(super) fn pickle(&self, pickle: &[u8], kind: ErrorKind, words: &[&str]) {
        self.check(
            &zip(&[("archive/data.pkl".to_owned(), pickle.to_vec())]),
            kind,
            words,
        );
    }

    /// The object in both forms.
    #[track_caller]
    fn object(&self, object: &Object, kind: ErrorKind, words: &[&str]) {
        for save in [save_zip, save_legacy] {
            check_refused(load(&save(&self.path(), object)), kind, words);
        }
    }

    /// A dictionary with this tensor.
    #[track_caller]
    fn tensor(&self, change: impl Fn(&mut View), words: &[&str]) {
        let mut view = view(0, &Entry::filled("", Stored::F32, &[2, 3], 0.5));
        change(&mut view);
        self.object(&dict([("w", Object::Tensor(view))]), FileFormat, words);
    }
}

pub(super) fn good() -> Object {
    let entry = Entry::filled("", Stored::F32, &[2, 3], 0.5);
    dict([("w", Object::Tensor(view(0, &entry)))])
}

pub(super) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let entries = entries.iter();
    let entries: Vec<_> = entries
        .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()))
        .collect();
    zip(&entries)
}

/// What is there before anything is wrong: a tensor that no text encoder has.
#[test]
fn the_good_one_is_read() {
    let attic = Attic::new();
    attic.object(
        &good(),
        ErrorKind::UnknownLayout,
        &["no text encoder", "`w`"],
    );
}

/// Names that only an attack needs are refused by name; nothing of them is run.
#[test]
fn forbidden_names() {
    let attic = Attic::new();
    let marker = attic.folder.path().join("ran");
    let names = [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("builtins", "__import__"),
        ("runpy", "_run_code"),
        ("importlib", "import_module"),
        ("socket", "socket"),
        ("shutil", "rmtree"),
        ("ctypes", "CDLL"),
        ("pickle", "loads"),
        ("webbrowser", "open"),
    ];
    for (module, name) in names {
        let command = text(&format!("touch {}", marker.display()));
        let call = Object::Call(Object::Global(module, name).into(), vec![command]);
        let object = dict([("state_dict", good()), ("x", call)]);
        let full = format!("`{module}.{name}`");
        attic.object(&object, Unsupported, &[&full, "nothing of it was run"]);
    }
    assert!(!marker.exists());
}

/// Other names are never called either; where the weights should be, they are named.
#[test]
fn objects_that_are_not_built() {
    let attic = Attic::new();
    let made = |module, name| Object::Call(Object::Global(module, name).into(), Vec::new());
    let model = Object::Build(
        made("mine.models", "Net").into(),
        dict([("_modules", dict([])), ("_parameters", dict([]))]).into(),
    );
    attic.object(
        &model,
        Unsupported,
        &["whole pickled model", "`mine.models.Net`", "state_dict()"],
    );
    let wrapped = dict([("model", model)]);
    attic.object(&wrapped, Unsupported, &["whole pickled model"]);
    attic.object(
        &made("a.b", "C"),
        Unsupported,
        &["`a.b.C`", "not a dictionary"],
    );
    let array = dict([("w", made("numpy.core.multiarray", "_reconstruct"))]);
    attic.object(
        &array,
        FileFormat,
        &["no tensor", "numpy.core.multiarray._reconstruct"],
    );
    attic.object(&dict([]), FileFormat, &["no tensor"]);
    attic.object(&Object::Int(3), FileFormat, &["no tensor"]);
    let deep = (0..80).fold(good(), |inner, _| Object::List(vec![inner]));
    attic.object(&deep, FileFormat, &["nested deeper than 64"]);
    let long = Object::Dict(vec![(text(&"n".repeat(5000)), Object::List(vec![good()]))]);
    let beside = dict([("a", long), ("b", Object::Int(1))]);
    attic.object(&beside, FileFormat, &["a name of 5000 bytes"]);
    let number = Object::Dict(vec![(Object::Int(1), good()), (Object::Int(2), good())]);
    attic.object(&number, ErrorKind::UnknownLayout, &["1.w"]);
}

#[test]
fn broken_machines() {
    let attic = Attic::new();
    let check = |code: &[u8], words: &[&str]| {
        attic.pickle(&[&[0x80, 2], code].concat(), FileFormat, words);
    };
    attic.pickle(&[0x80, 6, b'.'], FileFormat, &["protocol 6"]);
    check(b"I1\n.", &["unknown operation 0x49"]);
    check(b"", &["incomplete"]);
    check(b"N", &["incomplete"]);
    check(b".", &["nothing is on the stack"]);
    check(b"R.", &["too few values"]);
    check(b"N\x86.", &["too few values"]);
    check(b"t.", &["no mark"]);
    check(b"h\x07.", &["nothing was remembered at place 7"]);
    check(b"}NN(N s.", &["unknown operation 0x20"]);
    check(b"}(Nu.", &["a key without a value"]);
    check(b"N(NNu.", &["no dictionary"]);
    check(b"Na.", &["nothing is on the stack"]);
    check(
        b"\x8b\xff\xff\xff\x7f.",
        &["2147483647 bytes are announced"],
    );
    check(
        b"\x8b\xff\xff\xff\xff.",
        &["4294967295 bytes are announced"],
    );
    check(b"\x8a\xff.", &["255 bytes are announced"]);
    check(b"X\xff\xff\xff\x7f.", &["2147483647 bytes"]);
    check(b"X\x10\0\0\0abc", &["16 bytes are announced, 3 are left"]);
    check(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", &["bytes"]);
    check(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", &["are announced"]);
    check(b"ccollections\nOrderedDict\nNR.", &["without a tuple"]);
    check(
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        &["`torch._utils._rebuild_tensor_v2` with 0"],
    );
    check(
        b"ctorch._utils\n_rebuild_parameter\n)R.",
        &["_rebuild_parameter` with 0 arguments"],
    );
    check(b"NQ.", &["no storage"]);
    check(b"NN\x93.", &["not made of texts"]);
    attic.pickle(b"\x80\x02\x82\x01.", Unsupported, &["extension registry"]);
    attic.pickle(b"\x80\x05\x97.", Unsupported, &["outside the file"]);
}

/// Some bytes that ask for far more than they are.
#[test]
fn bombs() {
    let attic = Attic::new();
    // A list in itself, and lists of lists of one list: each is walked once.
    let ring = b"\x80\x02}q\0(X\x01\0\0\0ah\0X\x01\0\0\0b]q\x01h\x01au.";
    attic.pickle(ring, FileFormat, &["no tensor"]);
    let mut doubling = b"\x80\x02]q\0".to_vec();
    for _ in 0..40 {
        doubling.extend(b"h\0\x86q\0");
        doubling.splice(doubling.len() - 3..doubling.len() - 3, *b"h\0");
    }
    doubling.push(b'.');
    std::fs::write(attic.path(), archive(&[("archive/data.pkl", &doubling)])).unwrap();
    assert!(load(&attic.path()).is_err());
    // A long list that is made a dictionary again and again.
    let mut copies = b"\x80\x02ccollections\nOrderedDict\nq\0](".to_vec();
    copies.extend(b"N".repeat(100_000));
    copies.extend(b"e\x85q\x01");
    copies.extend(b"h\0h\x01R0".repeat(1000));
    copies.push(b'.');
    attic.pickle(&copies, FileFormat, &["more than 4000000 operations"]);
    let marks = [b"\x80\x02".as_slice(), &b"(".repeat(2_000_000)].concat();
    attic.pickle(&marks, FileFormat, &["values at once"]);
}

/// One long text that is made a name again and again would be kept each time.
#[test]
fn names_that_are_repeated() {
    let attic = Attic::new();
    let named = |length: usize, count: usize| {
        let length_bytes = u32::try_from(length).unwrap().to_le_bytes();
        let mut code = [b"\x80\x02X".as_slice(), &length_bytes].concat();
        code.extend(b"n".repeat(length));
        code.extend(b"q\x00");
        code.extend(b"h\x00h\x00\x93".repeat(count));
        code
    };
    let long = [named(1 << 20, 5000).as_slice(), b"."].concat();
    attic.pickle(&long, FileFormat, &["a name of 2097152 bytes"]);
    let line = [b"\x80\x02c".as_slice(), &b"m".repeat(600), b"\nx\n."].concat();
    attic.pickle(&line, FileFormat, &["a name of 601 bytes"]);
    let many = [named(250, 200_000).as_slice(), b"."].concat();
    attic.pickle(&many, FileFormat, &["more than 4000000 operations"]);
}

/// What is small and would be copied or searched again and again.
#[test]
fn work_that_is_repeated() {
    let attic = Attic::new();
    let begun = Instant::now();
    // A long list that is called.
    let mut calls = b"\x80\x02](".to_vec();
    calls.extend(b"N".repeat(500_000));
    calls.extend(b"eq\x00");
    calls.extend(b"h\x00)R0".repeat(400_000));
    calls.push(b'.');
    attic.pickle(&calls, FileFormat, &["no tensor"]);
    // Objects that share a large state.
    let classes = ["mine\nNet", "torch.nn.modules.container\nParameterDict"];
    for class in classes {
        let mut code = format!("\u{2}c{class}\nq").into_bytes();
        code.insert(0, 0x80);
        code.extend(b"\x00X\x01\0\0\0aq\x01}(");
        code.extend(b"h\x01N".repeat(400_000));
        code.extend(b"uq\x020](");
        code.extend(b"h\x00)\x81h\x02b".repeat(60_000));
        code.extend(b"e.");
        attic.pickle(&code, FileFormat, &["no tensor"]);
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn tensors_outside_their_storage() {
    let attic = Attic::new();
    attic.tensor(
        |view| view.offset = 1,
        &["`w`", "outside its storage `0` of 24 bytes"],
    );
    attic.tensor(|view| view.strides = vec![3, 2], &["`w`", "strides [3, 2]"]);
    attic.tensor(
        |view| view.strides = vec![2_000_000_000, 1],
        &["outside its storage"],
    );
    attic.tensor(|view| view.offset = 2_000_000_000, &["outside its storage"]);
    attic.tensor(
        |view| view.shape = vec![2_000_000_000, 2_000_000_000],
        &["takes more bytes"],
    );
    attic.tensor(
        |view| (view.shape, view.strides) = (vec![100_000, 100_000], vec![0, 0]),
        &["takes more bytes than the file's"],
    );
    attic.tensor(
        |view| (view.shape, view.strides) = (vec![1 << 30; 3], vec![0; 3]),
        &["takes more bytes"],
    );
    attic.tensor(|view| view.shape = vec![6], &["of a wrong kind"]);
    attic.tensor(
        |view| (view.shape, view.strides) = (vec![1; 65], vec![1; 65]),
        &["wrong kind"],
    );
}

#[test]
fn tensors_with_negative_numbers() {
    let attic = Attic::new();
    let Pickle { bytes, .. } = Pickle::of(&good(), false);
    let side = [b"J".as_slice(), &2_i32.to_le_bytes()].concat();
    let at = bytes.windows(5).position(|five| five == side).unwrap();
    let mut negative = bytes;
    negative[at + 1..at + 5].copy_from_slice(&(-2_i32).to_le_bytes());
    attic.pickle(&negative, FileFormat, &["whole numbers from 0"]);
}
