//! Workflows: what they give, what they need, and what is wrong with them.

mod anything;
mod broken;
mod editor;
mod large;
mod nodes;
mod oracle;
mod pictures;
mod plans;
mod sessions;
mod support;
