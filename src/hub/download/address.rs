//! Where to ask and with which token, checked before anything is sent.

use crate::error::{Error, Result};
use crate::hub::names::shown;
use crate::hub::options::DEFAULT_ENDPOINT;
use crate::hub::{HubOptions, hub_error};

/// The endpoint without a slash at its end, if it can be one.
pub(super) fn endpoint(options: &HubOptions) -> Result<String> {
    let endpoint = options
        .endpoint
        .as_deref()
        .unwrap_or(DEFAULT_ENDPOINT)
        .trim_end_matches('/');
    let rest = endpoint
        .strip_prefix("https://")
        .or_else(|| endpoint.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or(""));
    let good = host.is_some_and(|host| !host.is_empty() && !host.starts_with(':'))
        && endpoint
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/[]".contains(&byte));
    if good {
        Ok(endpoint.to_owned())
    } else {
        Err(bad_endpoint(endpoint))
    }
}

/// The token, if it can be sent.
pub(super) fn token(options: &HubOptions) -> Result<Option<String>> {
    let token = options
        .token
        .as_deref()
        .map(str::trim)
        .filter(|token| !token.is_empty());
    if token.is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(hub_error("the token has characters that cannot be sent")
            .hint("a token is one word of printable characters, such as hf_…"));
    }
    Ok(token.map(str::to_owned))
}

fn bad_endpoint(endpoint: &str) -> Error {
    hub_error(format!("`{}` is not the address of a hub", shown(endpoint))).hint(format!(
        "expected something like {DEFAULT_ENDPOINT} (HF_ENDPOINT)"
    ))
}
