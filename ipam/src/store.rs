//! The store (being written).

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;

use crate::{RangeSet, Result};

/// An attachment's share in a network: the pair that owns a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The container id.
    pub container_id: &'a str,
    /// The interface's name in the container.
    pub ifname: &'a str,
}

/// An address that was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// The address with the prefix length of its subnet.
    pub address: IpNetwork,
    /// The gateway of its range.
    pub gateway: Option<IpAddr>,
}

/// The reservations of one network.
#[derive(Debug, Clone)]
pub struct Store {
    _data_dir: PathBuf,
}

impl Store {
    /// Names a store; touches nothing.
    pub fn open(data_dir: &Path, _network: &str) -> Result<Store> {
        Ok(Store { _data_dir: data_dir.to_owned() })
    }
    /// Reserves.
    pub fn allocate(
        &self,
        _set_index: usize,
        _set: &RangeSet,
        _owner: &Owner<'_>,
        _requested: Option<IpAddr>,
    ) -> Result<Allocation> {
        Err(crate::Error::NoRanges)
    }
    /// Reserves one of each set.
    pub fn allocate_all(
        &self,
        _sets: &[RangeSet],
        _owner: &Owner<'_>,
        _requested: &[IpAddr],
    ) -> Result<Vec<Allocation>> {
        Err(crate::Error::NoRanges)
    }
    /// Releases all.
    pub fn release(&self, _owner: &Owner<'_>) -> Result<Vec<IpAddr>> {
        Err(crate::Error::NoRanges)
    }
    /// Releases some.
    pub fn release_only(&self, _owner: &Owner<'_>, _addresses: &[IpAddr]) -> Result<()> {
        Err(crate::Error::NoRanges)
    }
    /// Finds.
    pub fn find(&self, _owner: &Owner<'_>) -> Result<Vec<IpAddr>> {
        Err(crate::Error::NoRanges)
    }
    /// Collects.
    pub fn gc(&self, _keep: &[Owner<'_>]) -> Result<Vec<IpAddr>> {
        Err(crate::Error::NoRanges)
    }
    /// How many are free.
    pub fn available(&self, _set: &RangeSet) -> Result<u128> {
        Err(crate::Error::NoRanges)
    }
}
