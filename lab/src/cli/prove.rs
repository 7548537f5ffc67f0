//! `podlab verify` and `podlab trace`: the proofs. The supervisor captures and judges; here the answer is
//! printed.

use super::{Style, TraceArgs, VerifyArgs};
use crate::control::{Client, Request};
use crate::exit::{self, Failure};
use crate::output::{self, Format, Steps};
use crate::{kubia, trace, verify};
