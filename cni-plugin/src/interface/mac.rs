//! The MAC that a runtime or a configuration asks for. Which place goes before which is the plugin's own affair.

use cni::{Call, Error, args};
use kernel::Mac;

/// `MAC` in CNI_ARGS; empty when it is not there.
///
/// # Errors
/// Code 4 for CNI_ARGS that are none.
pub(crate) fn of_args(call: &Call) -> Result<String, Error> {
    Ok(args::parse(&call.env.args, &["MAC"])?.remove("MAC").unwrap_or_default())
}

/// The first text that is not empty, as a MAC.
///
/// # Errors
/// Code 7 when it is none.
pub(crate) fn first(texts: &[&str]) -> Result<Option<Mac>, Error> {
    let text = texts.iter().find(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|err: kernel::ParseMacError| Error::invalid(err.to_string())))
        .transpose()
}
