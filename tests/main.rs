//! The one integration binary; modules in the order of the flow.

mod prompt;
