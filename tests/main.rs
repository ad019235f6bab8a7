//! The one integration binary: a module for each room, in flow order.

mod support;
mod weights;
