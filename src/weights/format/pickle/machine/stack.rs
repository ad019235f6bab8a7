//! The stack of the machine: values that wait, marks among them, and how many of all there may be.

use std::io::Read;

use super::super::value::{Id, Value};
use super::{MAX_STEPS, Machine};
use crate::error::Result;

/// The most values that wait, and the most marks among them.
const MAX_STACK: usize = 1 << 20;

impl<R: Read> Machine<'_, R> {
    pub(super) fn spend(&mut self, count: usize) -> Result<()> {
        let Some(left) = self.left.checked_sub(count) else {
            return Err(self
                .source
                .here(&format!("more than {MAX_STEPS} operations")));
        };
        self.left = left;
        Ok(())
    }

    pub(super) fn push(&mut self, value: Value) -> Result<bool> {
        let id = self.values.add(value);
        self.push_id(id)?;
        Ok(true)
    }

    /// What comes next belongs together.
    pub(super) fn mark(&mut self) -> Result<()> {
        self.room(self.marks.len(), MAX_STACK)?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    pub(super) fn push_id(&mut self, id: Id) -> Result<()> {
        self.room(self.stack.len(), MAX_STACK)?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn room(&self, count: usize, limit: usize) -> Result<()> {
        if count < limit {
            return Ok(());
        }
        Err(self
            .source
            .here(&format!("more than {limit} values at once")))
    }

    /// The lowest height that may be taken from: values below a mark belong to someone else.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn top(&self) -> Result<Id> {
        match self.stack.get(self.floor()..).and_then(<[Id]>::last) {
            Some(id) => Ok(*id),
            None => Err(self.source.here("nothing is on the stack")),
        }
    }

    pub(super) fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// The last `count` values, oldest first.
    pub(super) fn take(&mut self, count: usize) -> Result<Vec<Id>> {
        let from = self.stack.len().checked_sub(count);
        match from.filter(|from| *from >= self.floor()) {
            Some(from) => Ok(self.stack.split_off(from)),
            None => Err(self.source.here("too few values on the stack")),
        }
    }

    /// All values since the last mark.
    pub(super) fn since_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height.min(self.stack.len()))),
            None => Err(self.source.here("there is no mark on the stack")),
        }
    }
}
