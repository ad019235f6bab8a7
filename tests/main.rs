//! The one integration binary; modules in the order of the flow.

mod support;

mod tokens;
mod conditioning;
mod kernels;
mod tidy;
mod weights;
