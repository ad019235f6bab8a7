//! PLAN → CONDITIONINGS: loads, encodes and combines, each step once.

use std::collections::HashMap;

use super::cache::Cache;
use super::follow::Run;
use super::library::Library;
use super::needs::Need;
use super::plan::Plan;
use super::workflow::Socket;
use crate::conditioner::Conditioner;
use crate::conditioning::ConditioningList;
use crate::error::{Error, Result};

/// Encodings that are kept from run to run, unless another number is set.
const KEPT: usize = 512;

/// Follows plans, and keeps what it loaded and encoded for the next one.
///
/// Encoders that a run does not use are let go. Encodings are known by their content (windows,
/// strengths, vectors, encoders, LoRAs, clip skip, data type), so that after a change only what is
/// new is encoded.
#[derive(Debug)]
pub struct Session<L> {
    pub(super) library: L,
    pub(super) loaded: HashMap<String, Loaded>,
    pub(super) cache: Cache,
}

/// Encoders, and the stamp of the files they are from.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) stamp: u64,
    pub(super) text: Conditioner,
}

/// What a run did.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Encoders that were loaded from files.
    pub loaded: usize,
    /// Prompts that were encoded.
    pub encoded: usize,
    /// Prompts that were there from before.
    pub reused: usize,
    /// What was cut, guessed or reproduced, with the node that has the prompt.
    pub notes: Vec<(String, String)>,
}

impl<L: Library> Session<L> {
    /// A session that has nothing yet.
    pub fn new(library: L) -> Session<L> {
        Session {
            library,
            loaded: HashMap::new(),
            cache: Cache::new(KEPT),
        }
    }

    /// How many encodings are kept; 0 for none.
    #[must_use]
    pub fn keeping(mut self, most: usize) -> Session<L> {
        self.cache = Cache::new(most);
        self
    }

    /// Makes what the plan says, in the order of its sockets.
    pub fn run(&mut self, plan: &Plan) -> Result<Vec<ConditioningList>> {
        let mut made: HashMap<Socket, ConditioningList> = HashMap::new();
        self.run_each(plan, &mut |socket, list| {
            made.insert(socket.clone(), list.clone());
            Ok(())
        })?;
        let sockets = plan.sockets();
        let lists = sockets.map(|socket| made.get(socket).cloned().unwrap_or_default());
        Ok(lists.collect())
    }

    /// The same, handing each conditioning over as soon as it is there, so that not all are in memory
    /// at once. All files are looked for before the first is read; every missing one is named. An
    /// error of `each` ends the run.
    pub fn run_each(
        &mut self,
        plan: &Plan,
        each: &mut dyn FnMut(&Socket, &ConditioningList) -> Result<()>,
    ) -> Result<Summary> {
        self.check(plan)?;
        let embeddings = self.library.embeddings()?;
        let mut run = Run::new(self, plan, embeddings.as_ref());
        let done = run.all(each);
        let (handles, summary) = run.into_parts();
        if done.is_ok() {
            self.loaded.clear();
        }
        self.loaded.extend(handles);
        done.map(|()| summary)
    }

    /// Every file that is not there, in one error.
    fn check(&self, plan: &Plan) -> Result<()> {
        let missing = plan.needs().filter_map(|need| {
            let error = self.library.check(need).err()?;
            Some((need, error))
        });
        let mut missing: Vec<(&Need, Error)> = missing.collect();
        let Some((first, error)) = missing.pop() else {
            return Ok(());
        };
        let node = plan.recipes().named_by(first).unwrap_or_default();
        if missing.is_empty() {
            return Err(error.at_node(node));
        }
        let others = missing.iter().map(|(need, _)| {
            let node = plan.recipes().named_by(need).unwrap_or_default();
            format!("node {node}: no {need}")
        });
        let others: Vec<String> = others.collect();
        let message = format!("{}; {}", error.message(), others.join("; "));
        let all = Error::new(error.kind(), message).at_node(node);
        Err(match error.path() {
            Some(path) => all.at_path(path),
            None => all,
        })
    }
}
