//! The machine: a memo, and one step for each opcode; its stack is below.

mod stack;

use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;

use super::source::Source;
use super::value::{Id, Storage, Value, Values};
use super::{broken, globals, opcode, unsupported};
use crate::error::Result;

/// The most opcodes that are followed, and values that calls copy; a checkpoint with its optimizer
/// has some hundred thousand.
const MAX_STEPS: usize = 4_000_000;

/// How many bytes of a name cost as much as a step.
const NAME_BYTES_A_STEP: usize = 16;

/// The most values that are remembered.
const MAX_MEMO: usize = 1 << 21;

/// What a pickle built.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) values: Values,
    pub(super) root: Id,
    /// Every storage that was referred to, by key.
    pub(super) storages: BTreeMap<Rc<str>, Rc<Storage>>,
    /// Keys of storages whose type is not known, with the type's name.
    pub(super) strange: BTreeMap<Rc<str>, Rc<str>>,
}

/// Follows one pickle from `source` to its end.
pub(super) fn run<R: Read>(source: &mut Source<R>) -> Result<Built> {
    let mut machine = Machine {
        source,
        values: Values::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        storages: BTreeMap::new(),
        strange: BTreeMap::new(),
        left: MAX_STEPS,
    };
    loop {
        machine.spend(1)?;
        let code = machine.source.byte()?;
        if code == opcode::STOP {
            return machine.stop();
        }
        machine.step(code)?;
    }
}

struct Machine<'a, R> {
    source: &'a mut Source<R>,
    values: Values,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
    storages: BTreeMap<Rc<str>, Rc<Storage>>,
    strange: BTreeMap<Rc<str>, Rc<str>>,
    /// Steps that are left, and values that may still be copied.
    left: usize,
}

impl<R: Read> Machine<'_, R> {
    /// What was built, with the last value as its root.
    fn stop(mut self) -> Result<Built> {
        let root = self.pop()?;
        Ok(Built {
            values: self.values,
            root,
            storages: self.storages,
            strange: self.strange,
        })
    }

    fn step(&mut self, code: u8) -> Result<()> {
        let known = self.plain(code)?
            || self.container(code)?
            || self.members(code)?
            || self.stack_and_memo(code)?
            || self.object(code)?;
        if known {
            return Ok(());
        }
        let message = format!("unknown operation {code:#04x}");
        Err(self.source.here(&message))
    }

    /// Numbers and texts.
    fn plain(&mut self, code: u8) -> Result<bool> {
        let source = &mut *self.source;
        let value = match code {
            opcode::NONE => Value::Nothing,
            opcode::NEWTRUE => Value::Bool(true),
            opcode::NEWFALSE => Value::Bool(false),
            opcode::BININT => Value::Int(i32::from_le_bytes(source.array()?).into()),
            opcode::BININT1 => Value::Int(source.byte()?.into()),
            opcode::BININT2 => Value::Int(u16::from_le_bytes(source.array()?).into()),
            opcode::LONG1 => return self.long::<1>(),
            opcode::LONG4 => return self.long::<4>(),
            opcode::BINFLOAT => {
                source.array::<8>()?;
                Value::Nothing
            }
            opcode::SHORT_BINUNICODE | opcode::SHORT_BINSTRING => return self.text::<1>(),
            opcode::BINUNICODE | opcode::BINSTRING => return self.text::<4>(),
            opcode::BINUNICODE8 => return self.text::<8>(),
            opcode::SHORT_BINBYTES => return self.bytes::<1>(),
            opcode::BINBYTES => return self.bytes::<4>(),
            opcode::BINBYTES8 | opcode::BYTEARRAY8 => return self.bytes::<8>(),
            _ => return Ok(false),
        };
        self.push(value)
    }

    fn text<const N: usize>(&mut self) -> Result<bool> {
        let length = self.source.length::<N>()?;
        let text = self.source.text(length)?;
        self.push(Value::Text(text.into()))
    }

    fn bytes<const N: usize>(&mut self) -> Result<bool> {
        let length = self.source.length::<N>()?;
        self.source.skip(length)?;
        self.push(Value::Nothing)
    }

    /// An integer of any length; those beyond 64 bits have no use here.
    fn long<const N: usize>(&mut self) -> Result<bool> {
        let length = self.source.length::<N>()?;
        if length > 8 {
            self.source.skip(length)?;
            return self.push(Value::Nothing);
        }
        let mut bytes = Vec::with_capacity(8);
        for _ in 0..length {
            bytes.push(self.source.byte()?);
        }
        let sign = if bytes.last().is_some_and(|last| last & 0x80 != 0) {
            0xff
        } else {
            0
        };
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(sign);
        self.push(Value::Int(i64::from_le_bytes(std::array::from_fn(byte))))
    }

    /// Tuples, lists, dictionaries and sets (which are lists here).
    fn container(&mut self, code: u8) -> Result<bool> {
        let value = match code {
            opcode::EMPTY_TUPLE => Value::Tuple(Vec::new()),
            opcode::EMPTY_LIST | opcode::EMPTY_SET => Value::List(Vec::new()),
            opcode::EMPTY_DICT => Value::Dict(Vec::new()),
            opcode::TUPLE1 => Value::Tuple(self.take(1)?),
            opcode::TUPLE2 => Value::Tuple(self.take(2)?),
            opcode::TUPLE3 => Value::Tuple(self.take(3)?),
            opcode::TUPLE => Value::Tuple(self.since_mark()?),
            opcode::LIST | opcode::FROZENSET => Value::List(self.since_mark()?),
            opcode::DICT => {
                let members = self.since_mark()?;
                Value::Dict(self.pairs(&members)?)
            }
            _ => return Ok(false),
        };
        self.push(value)
    }

    /// What goes into a container that is there.
    fn members(&mut self, code: u8) -> Result<bool> {
        match code {
            opcode::APPEND => {
                let members = self.take(1)?;
                self.extend(&members)
            }
            opcode::APPENDS | opcode::ADDITEMS => {
                let members = self.since_mark()?;
                self.extend(&members)
            }
            opcode::SETITEM => {
                let members = self.take(2)?;
                self.set(&members)
            }
            opcode::SETITEMS => {
                let members = self.since_mark()?;
                self.set(&members)
            }
            _ => Ok(false),
        }
    }

    /// The stack, the memo, and what stands between.
    fn stack_and_memo(&mut self, code: u8) -> Result<bool> {
        match code {
            opcode::PROTO => self.protocol()?,
            opcode::FRAME => drop(self.source.array::<8>()?),
            opcode::MARK => self.mark()?,
            opcode::POP => drop(self.pop()?),
            opcode::POP_MARK => drop(self.since_mark()?),
            opcode::DUP => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            opcode::BINPUT => self.put::<1>()?,
            opcode::LONG_BINPUT => self.put::<4>()?,
            opcode::MEMOIZE => self.remember(self.memo.len() as u64)?,
            opcode::BINGET => self.recall::<1>()?,
            opcode::LONG_BINGET => self.recall::<4>()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn protocol(&mut self) -> Result<()> {
        let protocol = self.source.byte()?;
        if protocol <= opcode::NEWEST {
            return Ok(());
        }
        let message = format!(
            "protocol {protocol}; the newest known is {}",
            opcode::NEWEST
        );
        Err(self.source.here(&message))
    }

    fn put<const N: usize>(&mut self) -> Result<()> {
        let place = self.source.length::<N>()?;
        self.remember(place)
    }

    fn remember(&mut self, place: u64) -> Result<()> {
        self.room(self.memo.len(), MAX_MEMO)?;
        let top = self.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall<const N: usize>(&mut self) -> Result<()> {
        let place = self.source.length::<N>()?;
        let Some(id) = self.memo.get(&place).copied() else {
            let message = format!("nothing was remembered at place {place}");
            return Err(self.source.here(&message));
        };
        self.push_id(id)
    }

    /// Names, calls and storages.
    fn object(&mut self, code: u8) -> Result<bool> {
        match code {
            opcode::GLOBAL => {
                let (module, name) = (self.source.line()?, self.source.line()?);
                self.global(&module, &name)?;
            }
            opcode::STACK_GLOBAL => self.stack_global()?,
            opcode::REDUCE | opcode::NEWOBJ => self.call(2)?,
            opcode::NEWOBJ_EX => self.call(3)?,
            opcode::BUILD => self.build()?,
            opcode::BINPERSID => self.reference()?,
            opcode::EXT1..=opcode::EXT4 => {
                return Err(unsupported("the pickle uses Python's extension registry"));
            }
            opcode::NEXT_BUFFER | opcode::READONLY_BUFFER => {
                return Err(unsupported("the pickle keeps bytes outside the file"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn stack_global(&mut self) -> Result<()> {
        let pair = self.take(2)?;
        let text = |id: &Id| self.values.text(*id).cloned();
        let texts: Vec<_> = pair.iter().filter_map(text).collect();
        let [module, name] = texts.as_slice() else {
            return Err(self.source.here("a name that is not made of texts"));
        };
        self.global(module, name)
    }

    /// A remembered text can be made a name again and again: what each keeps is counted.
    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let value = globals::find(module, name)?;
        self.spend((module.len() + name.len()) / NAME_BYTES_A_STEP)?;
        self.push(value)?;
        Ok(())
    }

    /// Callee and arguments, and keywords where there are three.
    fn call(&mut self, count: usize) -> Result<()> {
        let parts = self.take(count)?;
        // A remembered tuple can be given to many calls: what they copy is counted.
        self.spend(globals::cost(&self.values, parts[0], parts[1]))?;
        let id = globals::call(&mut self.values, parts[0], parts[1])?;
        self.push_id(id)
    }

    /// Gives an object its state. Dictionaries and tensors keep none: what `OrderedDict` carries
    /// (`_metadata`) and hooks of parameters have no use here.
    fn build(&mut self) -> Result<()> {
        let given = self.pop()?;
        let top = self.top()?;
        if let Some(Value::Object { state, .. }) = self.values.get_mut(top) {
            state.get_or_insert(given);
        }
        Ok(())
    }

    fn reference(&mut self) -> Result<()> {
        let reference = self.pop()?;
        let id = globals::referred(&mut self.values, reference)?;
        match self.values.get(id) {
            Value::Storage(storage) => {
                let storage = Rc::clone(storage);
                let known = self.storages.entry(Rc::clone(&storage.key));
                if *known.or_insert_with(|| Rc::clone(&storage)) != storage {
                    let message = format!("the storage `{}` is declared twice", storage.key);
                    return Err(broken(message));
                }
            }
            Value::Object { class, .. } => {
                let key = self.values.members(reference).map(|members| members[2]);
                let key = key.and_then(|key| self.values.text(key)).cloned();
                self.strange
                    .insert(key.unwrap_or_else(|| "".into()), Rc::clone(class));
            }
            _ => {}
        }
        self.push_id(id)
    }

    fn extend(&mut self, members: &[Id]) -> Result<bool> {
        let top = self.top()?;
        match self.values.get_mut(top) {
            Some(Value::List(list)) => list.extend(members),
            Some(Value::Object { .. }) => {}
            _ => return Err(self.source.here("members for what is no list")),
        }
        Ok(true)
    }

    fn set(&mut self, members: &[Id]) -> Result<bool> {
        let pairs = self.pairs(members)?;
        let top = self.top()?;
        match self.values.get_mut(top) {
            Some(Value::Dict(items)) => items.extend(pairs),
            Some(Value::Object { .. }) => {}
            _ => return Err(self.source.here("items for what is no dictionary")),
        }
        Ok(true)
    }

    fn pairs(&self, members: &[Id]) -> Result<Vec<(Id, Id)>> {
        let (pairs, rest) = members.as_chunks::<2>();
        if rest.is_empty() {
            return Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect());
        }
        Err(self.source.here("a key without a value"))
    }
}
