//! The one integration binary; modules in the order of the flow.

mod support;

mod prompt;
mod tokens;
mod weights;
mod hub;
mod kernels;
mod conditioning;
mod tidy;
