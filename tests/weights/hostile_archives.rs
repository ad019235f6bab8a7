//! Archives and legacy files that are broken or lie about what is in them.

use sd_conditioner::ErrorKind::{FileFormat, Unsupported};

use super::hostile_pickles::{Attic, archive, good};
use crate::support::entries::{Entry, Stored};
use crate::support::pickles::{Object, Pickle, dict, legacy, view};

#[test]
fn storages_that_are_not_there() {
    let attic = Attic::new();
    let Pickle {
        bytes, storages, ..
    } = Pickle::of(&good(), false);
    let data = &storages[0].2;
    attic.pickle(&bytes, FileFormat, &["`w`", "archive/data/0", "missing"]);
    let short = archive(&[
        ("archive/data.pkl", &bytes),
        ("archive/data/0", &data[..20]),
    ]);
    attic.check(
        &short,
        FileFormat,
        &["`w`", "should have 24 bytes, there are 20"],
    );
    let no_pickle = archive(&[("archive/data/0", b"data.pkl")]);
    attic.check(&no_pickle, FileFormat, &["0 entries named data.pkl"]);
    let two = archive(&[("a/data.pkl", &bytes), ("b/data.pkl", &bytes)]);
    attic.check(&two, FileFormat, &["2 entries named data.pkl"]);
    let script = archive(&[
        ("a/data.pkl", &bytes),
        ("a/constants.pkl", b"x"),
        ("a/code/x.py", b"x"),
    ]);
    attic.check(&script, Unsupported, &["TorchScript"]);
    let big = archive(&[
        ("a/data.pkl", &bytes),
        ("a/byteorder", b"big"),
        ("a/data/0", data),
    ]);
    attic.check(&big, Unsupported, &["big-endian"]);
    let twice = archive(&[
        ("a/data.pkl", &bytes),
        ("a/data/0", data),
        ("a/data/0", data),
    ]);
    attic.check(&twice, FileFormat, &["a/data/0", "twice"]);
    let unknown = dict([("w", Object::Raw(
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nQInt8Storage\nX\x01\0\0\0\
          0X\x03\0\0\0cpuK\x06tQK\0K\x06\x85K\x01\x85\x89NtR".to_vec(),
    ))]);
    attic.pickle(
        &Pickle::of(&unknown, false).bytes,
        FileFormat,
        &["no tensor", "torch.QInt8Storage"],
    );
}

/// A good archive, and the pickle in it.
fn two_entries() -> (Vec<u8>, Vec<u8>) {
    let pickle = Pickle::of(&good(), false);
    let data = &pickle.storages[0].2;
    let whole = archive(&[("a/data.pkl", &pickle.bytes), ("a/data/0", data)]);
    (whole, pickle.bytes)
}

fn changed(whole: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// Every kind of lie in an archive's directory.
#[test]
fn lying_directories() {
    let attic = Attic::new();
    let (whole, _) = two_entries();
    let mut entries = whole.windows(4);
    let second = entries.rposition(|four| four == b"PK\x01\x02").unwrap();
    let change = |at: usize, new: &[u8]| changed(&whole, at, new);
    attic.check(
        &change(second + 10, &[8]),
        Unsupported,
        &["a/data/0", "compressed"],
    );
    attic.check(
        &change(second + 8, &[1]),
        Unsupported,
        &["a/data/0", "encrypted"],
    );
    let far = 0x7fff_ffff_u32.to_le_bytes();
    attic.check(
        &change(second + 42, &far),
        FileFormat,
        &["outside the file"],
    );
    let long = [far, far].concat();
    attic.check(
        &change(second + 20, &long),
        FileFormat,
        &["outside the file"],
    );
    let unlike = [[0xff; 4], far].concat();
    attic.check(
        &change(second + 20, &unlike),
        FileFormat,
        &["directory is broken"],
    );
    // The second entry's header is the first's: it would read the pickle as numbers.
    attic.check(
        &change(second + 42, &[0; 4]),
        FileFormat,
        &["another name in its own header"],
    );
    attic.check(&change(second + 42, &[9, 0]), FileFormat, &["no header"]);
}

/// The same for the record at the archive's end.
#[test]
fn lying_ends() {
    let attic = Attic::new();
    let (whole, bytes) = two_entries();
    let end = whole.len() - 22;
    let far = 0x7fff_ffff_u32.to_le_bytes();
    let change = |at: usize, new: &[u8]| changed(&whole, at, new);
    attic.check(&change(end + 16, &far), FileFormat, &["outside the file"]);
    attic.check(
        &change(end + 10, &[0xfe, 0xff]),
        FileFormat,
        &["outside the file"],
    );
    attic.check(&change(end + 10, &[3]), FileFormat, &["directory"]);
    attic.check(
        &change(end + 10, &[0xff, 0xff]),
        FileFormat,
        &["outside the file"],
    );
    attic.check(
        &whole[..end],
        FileFormat,
        &["no directory", "incomplete download"],
    );
    // The pickle's entry reaches into the storage's.
    let first = whole
        .windows(4)
        .position(|four| four == b"PK\x01\x02")
        .unwrap();
    let size = u32::try_from(bytes.len() + 40).unwrap().to_le_bytes();
    attic.check(
        &change(first + 20, &[size, size].concat()),
        FileFormat,
        &["overlap"],
    );
}

#[test]
fn broken_legacy_files() {
    let attic = Attic::new();
    let whole = legacy(&good());
    for cut in [16, 40, whole.len() - 1, whole.len() - 26] {
        attic.check(&whole[..cut], FileFormat, &["incomplete download"]);
    }
    let find = |part: &[u8]| {
        whole
            .windows(part.len())
            .position(|window| window == part)
            .unwrap()
    };
    let change = |at: usize, new: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    let protocol = find(&1001_i32.to_le_bytes());
    attic.check(
        &change(protocol, &[7]),
        FileFormat,
        &["another version than 1001"],
    );
    let order = find(b"little_endian") + 13;
    attic.check(&change(order, &[0x89]), Unsupported, &["big-endian"]);
    let count = whole.len() - 24 - 8;
    attic.check(
        &change(count, &[9]),
        FileFormat,
        &["`0` has 9 values, declared are 6"],
    );
    attic.check(&change(count, &[0xff; 8]), FileFormat, &["declared are 6"]);
    let key = whole.len() - 24 - 8 - 3;
    attic.check(
        &change(key, b"7"),
        FileFormat,
        &["nothing refers to the storage `7`"],
    );
    // One of two storages is of a type without a known size: those behind it cannot be found.
    let tensor = |key, stored| Object::Tensor(view(key, &Entry::filled("", stored, &[2], 1.0)));
    let two = legacy(&dict([
        ("v", tensor(0, Stored::F16)),
        ("w", tensor(1, Stored::F32)),
    ]));
    let at = two.windows(11).position(|window| window == b"HalfStorage");
    let mut strange = two;
    strange[at.unwrap()..at.unwrap() + 4].copy_from_slice(b"QInt");
    attic.check(
        &strange,
        Unsupported,
        &["`torch.QIntStorage`", "storage `0`"],
    );
}
