//! The one integration binary; modules in the order of the flow.

mod support;

mod conditioning;
mod kernels;
mod tidy;
mod weights;
