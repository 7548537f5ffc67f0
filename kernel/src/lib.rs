//! All of podnet's talk with the Linux kernel: links, addresses, routes, neighbours and traffic control over rtnetlink,
//! rules and connections over nfnetlink, network namespaces, sysctls, packet sockets and device offloads.
//!
//! Every verb is blocking and returns when the kernel has answered. The crate decides nothing: it knows no CNI, no
//! IPAM and no policy, it starts no thread except those that [`Netns::create`] and [`drops::Drops::open`] need, and it retries no change
//! but those of [`Nfnl::transact`]. What it does deliberately not hold: devices that no pod uses.
//!
//! `unsafe` lives in the private module `sys` only.

pub mod addr;
pub mod batch;
mod channel;
pub mod conntrack;
pub mod drops;
mod error;
pub mod ethtool;
pub mod events;
pub mod fork;
pub mod inherit;
pub mod link;
mod mac;
pub mod neigh;
pub mod netconf;
pub mod netns;
mod nfnl;
pub mod nft;
pub mod packet;
pub mod path;
pub mod route;
pub mod rtnl;
pub mod rule;
mod sys;
pub mod sysctl;
pub mod tap;
pub mod tc;
mod wire;
pub mod wireguard;
pub mod xfrm;

pub use batch::Batch;
pub use error::{Error, Result, uninterrupted};
pub use ipnetwork::IpNetwork;
pub use mac::{Mac, ParseMacError};
pub use netns::Netns;
pub use nfnl::Nfnl;
pub use route::Family;
pub use rtnl::Rtnl;
