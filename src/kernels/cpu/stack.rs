//! All layers, for one group of windows.

use std::ops::Range;

use super::attention::{HEAD, Head, SCORES};
use super::isa::Isa;
use super::linear::{Linear, Then};
use super::matrix::Matrix;
use super::norm::Norm;
use super::panel::{self, COLUMNS, ROWS};
use super::panels::Panels;
use super::rooms::Rooms;
use super::shared::SharedMut;
use super::team::Lead;
use super::unit::Units;
use crate::kernels::Activation;

/// A block as the loops take it: scale and shift of the norms, matrix and bias of the products.
#[derive(Debug)]
pub(super) struct Layer<'a> {
    pub(super) norm1: [&'a [f32]; 2],
    /// One below the other.
    pub(super) query_key_value: Vec<Weights<'a>>,
    pub(super) out: Weights<'a>,
    pub(super) norm2: [&'a [f32]; 2],
    pub(super) up: Weights<'a>,
    pub(super) down: Weights<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Weights<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) bias: &'a [f32],
}

impl Weights<'_> {
    fn fits(&self, depth: usize) -> bool {
        self.matrix.depth == depth && self.bias.len() == self.matrix.rows
    }
}

impl Layer<'_> {
    /// True if all shapes are those of one block with heads of [`HEAD`].
    pub(super) fn fits(&self, width: usize, mlp: usize) -> bool {
        let shapes: [(&[Weights<'_>], usize, usize); 4] = [
            (&self.query_key_value, 3 * width, width),
            (&[self.out], width, width),
            (&[self.up], mlp, width),
            (&[self.down], width, mlp),
        ];
        let norms = [self.norm1, self.norm2].concat();
        (width > 0 && mlp > 0 && width.is_multiple_of(HEAD))
            && norms.iter().all(|values| values.len() == width)
            && shapes.iter().all(|(parts, rows, depth)| {
                let n_rows: usize = parts.iter().map(|part| part.matrix.rows).sum();
                let alike = parts
                    .windows(2)
                    .all(|two| two[0].matrix.is_like(&two[1].matrix));
                alike && n_rows == *rows && parts.iter().all(|part| part.fits(*depth))
            })
    }
}

/// All layers, one at least and all of them alike, and what passes through them.
#[derive(Debug)]
pub(super) struct Stack<'a> {
    pub(super) unit: Units,
    pub(super) layers: &'a [Layer<'a>],
    pub(super) activation: Activation,
    pub(super) width: usize,
    /// `[windows, 77]`
    pub(super) hidden: Option<&'a [f32]>,
    /// `[windows, 77, width]`
    pub(super) input: &'a [f32],
}

impl Stack<'_> {
    /// Features between the MLP's two products.
    pub(super) fn mlp(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.up.matrix.rows)
    }

    /// Takes some windows, which are nobody else's, through all layers. The rooms are for as many at least.
    /// The states after some layers are kept, in places for all windows: `[windows, 77, width]`.
    pub(super) fn group(
        &self,
        windows: Range<usize>,
        kept: &[(usize, SharedMut<'_>)],
        rooms: &mut Rooms<'_>,
        lead: Lead<'_>,
    ) {
        let n = windows.len();
        let hidden = self
            .hidden
            .map(|all| padded(&all[windows.start * ROWS..windows.end * ROWS]));
        self.enter(&windows, Panels::plain(rooms.x, self.width, n), lead);
        for index in 0..self.layers.len() {
            self.layer(index, n, hidden.as_deref(), (rooms, lead));
            let after = kept.iter().filter(|(layer, _)| *layer == index + 1);
            for (_, place) in after {
                let x = Panels::plain(rooms.x, self.width, n);
                self.keep(&windows, x, *place, lead);
            }
        }
    }

    /// Rows → panels.
    fn enter(&self, windows: &Range<usize>, x: Panels<'_>, lead: Lead<'_>) {
        let values = ROWS * self.width;
        lead.share(x.windows(), |window, _| {
            let rows = &self.input[(windows.start + window) * values..][..values];
            let panel = x.rows(window, 0, self.width);
            // SAFETY: tasks have other windows.
            let panel = unsafe { std::slice::from_raw_parts_mut(panel, self.width * COLUMNS) };
            panel::from_rows(rows, self.width, panel);
        });
    }

    /// Panels → rows.
    fn keep(&self, windows: &Range<usize>, x: Panels<'_>, kept: SharedMut<'_>, lead: Lead<'_>) {
        let values = ROWS * self.width;
        lead.share(x.windows(), |window, _| {
            let panel = x.rows(window, 0, self.width);
            // SAFETY: nobody writes it now.
            let panel = unsafe { std::slice::from_raw_parts(panel, self.width * COLUMNS) };
            let rows = kept.at((windows.start + window) * values, values);
            // SAFETY: tasks have other windows, and so have groups.
            let rows = unsafe { std::slice::from_raw_parts_mut(rows, values) };
            panel::to_rows(panel, self.width, rows);
        });
    }

    fn layer(
        &self,
        index: usize,
        n: usize,
        hidden: Option<&[f32]>,
        (rooms, lead): (&mut Rooms<'_>, Lead<'_>),
    ) {
        let (unit, width) = (self.unit, self.width);
        let layer = &self.layers[index];
        let x = Panels::plain(rooms.x, width, n);
        let stacked = Panels::plain(rooms.query_key_value, 3 * width, n);
        let inner = Panels::only(unit, &layer.down.matrix, n, rooms.inner);
        let product = |weights: Weights<'_>, then, from: Panels<'_>, to: Panels<'_>| {
            let Weights { matrix, bias } = weights;
            unit.linear(lead, Linear { matrix, bias, then }, from, to);
        };
        let mut taken_by =
            |parts: &[Weights<'_>], make: &dyn Fn(Panels<'_>), then, to: Panels<'_>| {
                let room = (&mut *rooms.taken, &mut *rooms.second);
                let panels = Panels::both(unit, &parts[0].matrix, n, room);
                make(panels);
                let mut rest = to;
                for weights in parts {
                    let own;
                    (own, rest) = rest.split(weights.matrix.rows);
                    product(*weights, then, panels, own);
                }
            };
        let first = |out: Panels<'_>| norms(unit.isa, lead, layer.norm1, x, out);
        let second = |out: Panels<'_>| norms(unit.isa, lead, layer.norm2, x, out);
        let attended = |out: Panels<'_>| attention(unit.isa, lead, stacked, hidden, out);
        taken_by(&layer.query_key_value, &first, Then::Store, stacked);
        taken_by(&[layer.out], &attended, Then::Add, x);
        let activate = Then::Activate(self.activation);
        taken_by(&[layer.up], &second, activate, inner);
        product(layer.down, Then::Add, inner, x);
    }
}

/// `[windows, 77]` → `[windows, 80]`.
fn padded(keys: &[f32]) -> Vec<f32> {
    let windows = keys.chunks_exact(ROWS);
    let padding = [0.0; COLUMNS - ROWS];
    windows
        .flat_map(|keys| keys.iter().chain(&padding).copied())
        .collect()
}

/// Layer norm of all panels.
fn norms(isa: &Isa, lead: Lead<'_>, by: [&[f32]; 2], x: Panels<'_>, out: Panels<'_>) {
    let features = x.features();
    let parts = COLUMNS / 16;
    assert!(by.iter().all(|by| by.len() == features) && out.features() == features);
    lead.share(x.windows() * parts, |task, _| {
        let (window, column) = (task / parts, task % parts * 16);
        let norm = Norm {
            x: x.rows(window, 0, features),
            features,
            weight: by[0].as_ptr(),
            bias: by[1].as_ptr(),
            out: out.rows(window, 0, features),
        };
        // SAFETY: tasks have other columns, and the unit is there.
        unsafe { (isa.norm)(norm, column) }
        // SAFETY: as above; the values were just put there.
        unsafe { out.ready(window, 0..features, [column]) }
    });
}

/// Attention of all heads of all panels; `stacked` holds query, key and value of each.
fn attention(
    isa: &Isa,
    lead: Lead<'_>,
    stacked: Panels<'_>,
    hidden: Option<&[f32]>,
    out: Panels<'_>,
) {
    let width = out.features();
    let heads = width / HEAD;
    lead.share(out.windows() * heads, |task, room| {
        let (window, row) = (task / heads, task % heads * HEAD);
        let part = |part: usize| stacked.rows(window, part * width + row, HEAD).cast_const();
        let hidden = hidden.map(|all| all[window * COLUMNS..][..COLUMNS].as_ptr());
        let head = Head {
            query: part(0),
            key: part(1),
            value: part(2),
            hidden_keys: hidden.unwrap_or(std::ptr::null()),
            scores: room[..SCORES].as_mut_ptr(),
            out: out.rows(window, row, HEAD),
        };
        // SAFETY: tasks have other rows, the room is this thread's, and the unit is there.
        unsafe { (isa.attend)(head) }
        // SAFETY: as above; the values were just put there.
        unsafe { out.ready(window, row..row + HEAD, (0..COLUMNS).step_by(16)) }
    });
}
