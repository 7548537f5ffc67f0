//! Several requests in one send. The kernel always says which it refused; only the last is asked to say that it is done.
//!
//! A batch is no transaction: the kernel handles one request after the other, and one that it refuses undoes nothing.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST};

use crate::addr::{self, AddrOptions};
use crate::link::{self, Change, Port, Veth};
use crate::mac::Mac;
use crate::neigh;
use crate::route::{self, Route};
use crate::wire;

/// Requests to send with [`crate::Rtnl::send`], in the order in which they were put in.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) bytes: Vec<u8>,
    /// Of each request: where it starts in `bytes`, and what an error is to call it.
    pub(crate) requests: Vec<(usize, String)>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// The number of requests in it.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// No request is in it.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// As [`link::add_veth`].
    pub fn link_add_veth(&mut self, veth: &Veth<'_>) -> &mut Batch {
        let m = link::veth_message(veth);
        self.push(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &m, link::about_create(veth.name))
    }

    /// As [`link::set`].
    pub fn link_set(&mut self, index: u32, change: &Change<'_>) -> &mut Batch {
        self.push(libc::RTM_SETLINK, 0, &link::change_message(index, change), link::about_set(index))
    }

    /// Asks for a link; of the whole batch only the last request may ask.
    pub(crate) fn link_look(&mut self, index: u32) -> &mut Batch {
        self.push(libc::RTM_GETLINK, 0, &link::query(index, None), link::about_look(index))
    }

    /// As [`link::set_port`].
    pub fn link_set_port(&mut self, index: u32, port: &Port) -> &mut Batch {
        self.push(libc::RTM_NEWLINK, 0, &link::port_message(index, port), link::about_port(index))
    }

    /// As [`link::delete`].
    pub fn link_delete(&mut self, index: u32) -> &mut Batch {
        self.push(libc::RTM_DELLINK, 0, &link::delete_message(index), link::about_delete(index))
    }

    /// As [`addr::add`].
    pub fn addr_add(&mut self, index: u32, net: IpNetwork, options: &AddrOptions) -> &mut Batch {
        let m = addr::add_message(index, net, options);
        self.push(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &m, addr::about_add(index, net))
    }

    /// As [`addr::delete`].
    pub fn addr_delete(&mut self, index: u32, net: IpNetwork) -> &mut Batch {
        self.push(libc::RTM_DELADDR, 0, &addr::delete_message(index, net), addr::about_delete(index, net))
    }

    /// As [`route::add`].
    pub fn route_add(&mut self, route: &Route) -> &mut Batch {
        self.push(libc::RTM_NEWROUTE, NLM_F_CREATE, &route::message(route), route::about("add", route))
    }

    /// As [`route::add_exclusive`].
    pub fn route_add_exclusive(&mut self, route: &Route) -> &mut Batch {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.push(libc::RTM_NEWROUTE, flags, &route::message(route), route::about("add", route))
    }

    /// As [`route::delete`].
    pub fn route_delete(&mut self, route: &Route) -> &mut Batch {
        self.push(libc::RTM_DELROUTE, 0, &route::delete_message(route), route::about("delete", route))
    }

    /// As [`route::replace`].
    pub fn route_replace(&mut self, route: &Route) -> &mut Batch {
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.push(libc::RTM_NEWROUTE, flags, &route::message(route), route::about("replace", route))
    }

    /// Deletes the first route that has what is given, the protocol among it: never another program's, where each program has
    /// a protocol of its own.
    pub fn route_delete_own(&mut self, route: &Route) -> &mut Batch {
        self.push(libc::RTM_DELROUTE, 0, &route::delete_own_message(route), route::about("delete", route))
    }

    /// As [`neigh::replace_permanent`].
    pub fn neigh_replace(&mut self, index: u32, addr: IpAddr, mac: Mac) -> &mut Batch {
        let m = neigh::permanent_message(index, addr, mac);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.push(libc::RTM_NEWNEIGH, flags, &m, neigh::about_replace(index, addr))
    }

    /// As [`neigh::delete`].
    pub fn neigh_delete(&mut self, index: u32, addr: IpAddr) -> &mut Batch {
        let m = neigh::delete_message(index, addr);
        self.push(libc::RTM_DELNEIGH, 0, &m, neigh::about_delete(index, addr))
    }

    /// As [`neigh::add_fdb`], in the place of an entry that sends frames for `mac` elsewhere.
    pub fn fdb_replace(&mut self, index: u32, mac: Mac, dst: IpAddr) -> &mut Batch {
        let m = neigh::fdb_message(index, mac, dst);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.push(libc::RTM_NEWNEIGH, flags, &m, neigh::about_fdb("replace", index, mac, dst))
    }

    /// As [`neigh::delete_fdb`].
    pub fn fdb_delete(&mut self, index: u32, mac: Mac, dst: IpAddr, vni: Option<u32>) -> &mut Batch {
        let m = neigh::delete_fdb_message(index, mac, dst, vni);
        self.push(libc::RTM_DELNEIGH, 0, &m, neigh::about_fdb("delete", index, mac, dst))
    }

    fn push(&mut self, kind: u16, flags: u16, body: &dyn Emitable, subject: String) -> &mut Batch {
        self.requests.push((self.bytes.len(), subject));
        // The sequence number is the socket's to give, when the batch is sent.
        wire::push(&mut self.bytes, kind, NLM_F_REQUEST | flags, 0, body);
        self
    }
}
