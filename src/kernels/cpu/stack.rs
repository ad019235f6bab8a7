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
use super::team::Team;
use super::unit::Units;
use crate::kernels::Activation;

/// A block as the loops take it: scale and shift of the norms, matrix and bias of the products.
#[derive(Debug)]
pub(super) struct Layer<'a> {
    pub(super) norm1: [&'a [f32]; 2],
    pub(super) query_key_value: Weights<'a>,
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

impl Layer<'_> {
    /// True if all shapes are those of one block with heads of [`HEAD`].
    pub(super) fn fits(&self, width: usize, mlp: usize) -> bool {
        let shapes = [
            (self.query_key_value, 3 * width, width),
            (self.out, width, width),
            (self.up, mlp, width),
            (self.down, width, mlp),
        ];
        let norms = [self.norm1, self.norm2].concat();
        (width > 0 && mlp > 0 && width.is_multiple_of(HEAD))
            && norms.iter().all(|values| values.len() == width)
            && shapes.iter().all(|(weights, rows, depth)| {
                let Matrix {
                    rows: r, depth: d, ..
                } = weights.matrix;
                (r, d) == (*rows, *depth) && weights.bias.len() == *rows
            })
    }
}

/// The layers, and room for the activations of a group.
#[derive(Debug)]
pub(super) struct Stack<'a> {
    unit: Units,
    layers: &'a [Layer<'a>],
    activation: Activation,
    width: usize,
    /// `[windows, 77]`
    hidden: Option<&'a [f32]>,
    team: Team<'a>,
    rooms: Rooms<'a>,
}

impl<'a> Stack<'a> {
    /// For groups of as many windows as the rooms are for. All layers fit `width`.
    pub(super) fn new(
        unit: Units,
        (layers, activation): (&'a [Layer<'a>], Activation),
        width: usize,
        hidden: Option<&'a [f32]>,
        mut rooms: Rooms<'a>,
    ) -> Stack<'a> {
        Stack {
            unit,
            layers,
            activation,
            width,
            hidden,
            team: Team::new(std::mem::take(&mut rooms.threads)),
            rooms,
        }
    }

    /// Takes some windows of `input` (`[windows, 77, width]`) through all layers; the states after
    /// the layers in `keep` go to their places in `kept`.
    pub(super) fn group(
        &mut self,
        windows: Range<usize>,
        input: &[f32],
        keep: &[usize],
        kept: &mut [Vec<f32>],
    ) {
        let (width, n) = (self.width, windows.len());
        let rows = windows.start * ROWS * width..windows.end * ROWS * width;
        panel::from_rows(&input[rows.clone()], width, self.rooms.x);
        let hidden = self
            .hidden
            .map(|all| padded(&all[windows.start * ROWS..windows.end * ROWS]));
        for index in 0..self.layers.len() {
            self.layer(index, n, hidden.as_deref());
            for (place, _) in keep
                .iter()
                .enumerate()
                .filter(|(_, layer)| **layer == index + 1)
            {
                panel::to_rows(self.rooms.x, width, &mut kept[place][rows.clone()]);
            }
        }
    }

    fn layer(&mut self, index: usize, n: usize, hidden: Option<&[f32]>) {
        let (unit, team, width) = (self.unit, &self.team, self.width);
        let layer = &self.layers[index];
        let Rooms {
            x,
            taken,
            query_key_value,
            inner,
            second,
            ..
        } = &mut self.rooms;
        let x = Panels::plain(x, width, n);
        let stacked = Panels::plain(query_key_value, 3 * width, n);
        let product = |weights: Weights<'_>, then, from: Panels<'_>, to: Panels<'_>| {
            let Weights { matrix, bias } = weights;
            unit.linear(team, Linear { matrix, bias, then }, from, to);
        };
        let mut taken_by =
            |weights: Weights<'_>, make: &dyn Fn(Panels<'_>), then, to: Panels<'_>| {
                let panels = Panels::both(unit, &weights.matrix, n, (&mut *taken, &mut *second));
                make(panels);
                product(weights, then, panels, to);
            };
        let inner = Panels::only(unit, &layer.down.matrix, n, inner);
        let normed = |by, out: Panels<'_>| norms(unit.isa, team, by, x, out);
        let attended = |out: Panels<'_>| attention(unit.isa, team, stacked, hidden, out);
        let activate = Then::Activate(self.activation);
        taken_by(
            layer.query_key_value,
            &|out| normed(layer.norm1, out),
            Then::Store,
            stacked,
        );
        taken_by(layer.out, &attended, Then::Add, x);
        taken_by(layer.up, &|out| normed(layer.norm2, out), activate, inner);
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
fn norms(isa: &Isa, team: &Team<'_>, by: [&[f32]; 2], x: Panels<'_>, out: Panels<'_>) {
    let features = x.features();
    let parts = COLUMNS / 16;
    assert!(by.iter().all(|by| by.len() == features) && out.features() == features);
    team.share(x.windows() * parts, |task, _| {
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
    team: &Team<'_>,
    stacked: Panels<'_>,
    hidden: Option<&[f32]>,
    out: Panels<'_>,
) {
    let width = out.features();
    let heads = width / HEAD;
    team.share(out.windows() * heads, |task, room| {
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
