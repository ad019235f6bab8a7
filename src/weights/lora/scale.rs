//! ALPHA AND RANK → ONE FACTOR.

use std::collections::BTreeMap;

use super::adapter::Adapter;
use super::factor;
use super::roles::Role;
use crate::error::Result;
use crate::weights::format::archive::{Archive, Entry};

/// What a module's matrices are multiplied by, beside the strength.
#[derive(Clone, Debug, Default)]
pub(super) struct Scale {
    /// Instead of everything else (`.scale`, as A1111 and stable-diffusion.cpp read it).
    fixed: Option<f64>,
    alpha: Option<f64>,
    /// What an adapter's configuration says of this module.
    adapter: Option<Adapter>,
    last: Option<f64>,
}

impl Scale {
    /// Takes `alpha` and `scale` out of a module's tensors and reads them. A configuration counts
    /// where the file has neither.
    pub(super) fn take(
        roles: &mut BTreeMap<Role, &Entry>,
        archive: &Archive,
        adapter: Option<Adapter>,
    ) -> Result<Scale> {
        let mut read = |role: Role| {
            let entry = roles.remove(&role);
            entry
                .map(|entry| factor::number(entry, archive))
                .transpose()
        };
        Ok(Scale {
            fixed: read(Role::Scale)?,
            alpha: read(Role::Alpha)?,
            adapter,
            last: None,
        })
    }

    /// α / r; without α 1, as if α were r. The rank is that of the matrices, whatever metadata say.
    pub(super) fn of_rank(&mut self, rank: usize) -> f64 {
        let rank = rank as f64;
        let adapter = || self.adapter.as_ref().map_or(1.0, |one| one.factor(rank));
        let by_alpha = || self.alpha.map(|alpha| alpha / rank);
        let factor = self.fixed.or_else(by_alpha).unwrap_or_else(adapter);
        self.last = Some(factor);
        factor
    }

    /// Of a module whose matrices have no rank: 1, unless a configuration gives both alpha and rank.
    pub(super) fn without_rank(&mut self) -> f64 {
        let adapter = self.adapter.filter(|_| self.alpha.is_none());
        let factor = adapter.and_then(Adapter::told_factor).unwrap_or(1.0);
        self.last = Some(factor);
        factor
    }

    /// The factor of the matrices, for the bias beside them.
    pub(super) fn last(&self) -> f64 {
        self.last.unwrap_or(1.0)
    }

    pub(super) fn alpha(&self) -> Option<f64> {
        self.alpha
    }

    /// True if the file says that the module does nothing.
    pub(super) fn is_zero(&self) -> bool {
        self.last == Some(0.0)
    }
}
