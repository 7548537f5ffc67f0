//! The system calls that no safe wrapper covers: packet sockets, SIOCETHTOOL, TUNSETIFF and its kin, fork(2),
//! getrandom(2), descriptors by number, rings of tracepoint samples.
//!
//! The only file of the workspace that may hold `unsafe`. Each function takes and gives plain safe values; the
//! structures and numbers are those of linux/if_packet.h, linux/ethtool.h, linux/if_tun.h, linux/if.h and linux/perf_event.h.
//! It is long because it is the only one.
#![allow(unsafe_code)]

use std::io::{Error, Read, Result, Write};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_int, c_void, socklen_t};

use crate::packet::{Frame, Instruction, OUTGOING};
use crate::tap::Tap;

const PACKET_STATISTICS: c_int = 6;
const PACKET_AUXDATA: c_int = 8;
const TP_STATUS_CSUMNOTREADY: u32 = 1 << 3;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const SIOCETHTOOL: u32 = 0x8946;

/// linux/in.h, linux/in6.h
const PMTUDISC_PROBE: c_int = 3;

/// `struct tpacket_auxdata`
#[repr(C)]
#[derive(Clone, Copy)]
struct Auxdata {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// `struct ethtool_value`
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Has a socket send whole datagrams only, whatever it has learned of the path (IP_PMTUDISC_PROBE).
pub(crate) fn probe_path(socket: &impl AsFd, v6: bool) -> Result<()> {
    let (level, name) = match v6 {
        false => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    let value = PMTUDISC_PROBE;
    let (pointer, len) = ((&raw const value).cast::<c_void>(), size_of::<c_int>() as socklen_t);
    // SAFETY: the pointer is to a live integer of this length.
    check(unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, pointer, len) }).map(drop)
}

fn check(result: c_int) -> Result<c_int> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Fills `bytes` with random bytes.
pub(crate) fn random(bytes: &mut [u8]) -> Result<()> {
    // SAFETY: the pointer and length are those of a live, writable slice. Up to 256 bytes come whole.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast::<c_void>(), bytes.len(), 0) };
    match usize::try_from(n) {
        Ok(n) if n == bytes.len() => Ok(()),
        Ok(_) => Err(Error::from_raw_os_error(libc::EINTR)),
        Err(_) => Err(Error::last_os_error()),
    }
}

fn set_int(fd: &OwnedFd, level: c_int, name: c_int, value: c_int) -> Result<()> {
    let len = size_of::<c_int>() as socklen_t;
    // SAFETY: the option value is a live c_int and its length is given.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast::<c_void>(), len)
    })?;
    Ok(())
}

/// A packet socket that is bound to all protocols of one link, 0 for all links, and takes what `filter` lets through (all
/// when it is empty). It is bound only after its options are set, so that no frame comes without them. `buffer` is the
/// size of the receive buffer; None leaves it as it is.
pub(crate) fn packet_socket(index: u32, buffer: Option<c_int>, filter: &[Instruction]) -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; protocol 0 receives nothing yet.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the descriptor was just made and has no other owner.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set_int(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    set_int(&fd, libc::SOL_PACKET, PACKET_AUXDATA, 1)?;
    if let Some(bytes) = buffer
        && set_int(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err()
    {
        set_int(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
    }
    if !filter.is_empty() {
        attach(&fd, filter)?;
    }
    bind_packet(&fd, index)?;
    Ok(fd)
}

fn attach(fd: &OwnedFd, filter: &[Instruction]) -> Result<()> {
    let code = |i: &Instruction| libc::sock_filter { code: i.code, jt: i.yes, jf: i.no, k: i.value };
    let mut code: Vec<libc::sock_filter> = filter.iter().map(code).collect();
    let len = u16::try_from(code.len()).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: code.as_mut_ptr() };
    // SAFETY: the program is live, and its pointer is to as many instructions as it says.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast::<c_void>(),
            size_of::<libc::sock_fprog>() as socklen_t,
        )
    })?;
    Ok(())
}

/// Puts a frame on the link that a packet socket is bound to.
pub(crate) fn packet_send(fd: &OwnedFd, frame: &[u8]) -> Result<()> {
    // SAFETY: the pointer and length are those of a live slice.
    let n = unsafe { libc::send(fd.as_raw_fd(), frame.as_ptr().cast::<c_void>(), frame.len(), 0) };
    match usize::try_from(n) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::last_os_error()),
    }
}

/// Binds a packet socket to all protocols of one link, 0 for all links.
fn bind_packet(fd: &OwnedFd, index: u32) -> Result<()> {
    // SAFETY: sockaddr_ll is plain integers, for which all zeros is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as c_int;
    let len = size_of::<libc::sockaddr_ll>() as socklen_t;
    // SAFETY: the address is a live sockaddr_ll and its length is given.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast::<libc::sockaddr>(), len) })?;
    Ok(())
}

/// A descriptor of our own for what the process got under this number.
pub(crate) fn duplicate(number: c_int) -> Result<OwnedFd> {
    // SAFETY: no pointers; a number that is no open descriptor is refused (EBADF).
    let fd = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the descriptor was just made and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Most frames that one call reads.
pub(crate) const BATCH: usize = 32;

/// Room for a timestamp and the auxiliary data, aligned for the headers in it.
type Control = [u64; 16];

/// Reads frames, the first [`BATCH`] at most of those that are waiting: each into a part of `buffer` that is `longest` bytes
/// long, what is known of it at the end of `frames`.
pub(crate) fn packet_recv(
    fd: &OwnedFd,
    buffer: &mut [u8],
    longest: usize,
    frames: &mut Vec<Frame>,
) -> Result<()> {
    let mut controls: [Control; BATCH] = [[0; 16]; BATCH];
    // SAFETY: sockaddr_ll is plain integers, for which all zeros is a value.
    let mut from: [libc::sockaddr_ll; BATCH] = unsafe { zeroed() };
    // SAFETY: iovec is a pointer and a length, for which null and 0 (no data) is a value.
    let mut parts: [libc::iovec; BATCH] = unsafe { zeroed() };
    // SAFETY: mmsghdr is integers and pointers, for which all zeros (no data) is a value.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
    let mut count = 0;
    for (i, part) in buffer.chunks_exact_mut(longest).take(BATCH).enumerate() {
        parts[i] = libc::iovec { iov_base: part.as_mut_ptr().cast::<c_void>(), iov_len: part.len() };
        let message = &mut messages[i].msg_hdr;
        message.msg_name = (&raw mut from[i]).cast::<c_void>();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as socklen_t;
        message.msg_iov = &raw mut parts[i];
        message.msg_iovlen = 1;
        message.msg_control = controls[i].as_mut_ptr().cast::<c_void>();
        message.msg_controllen = size_of::<Control>() as _;
        count = i + 1;
    }
    let (none, flags) = (std::ptr::null_mut(), libc::MSG_TRUNC);
    // SAFETY: every pointer in the first `count` messages is to a live value of the length given beside it, and so are the
    // messages themselves; there is no time limit.
    let read =
        unsafe { libc::recvmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count as u32, flags as _, none) };
    let Ok(read) = usize::try_from(read) else {
        let e = Error::last_os_error();
        return match e.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(()),
            _ => Err(e),
        };
    };
    let read = messages.iter().zip(&from).take(read);
    frames
        .extend(read.map(|(message, from)| frame(&message.msg_hdr, message.msg_len as usize, longest, from)));
    Ok(())
}

/// What a message that was received says of its frame.
fn frame(message: &libc::msghdr, original_len: usize, longest: usize, from: &libc::sockaddr_ll) -> Frame {
    let mut frame = Frame {
        len: original_len.min(longest),
        original_len,
        ifindex: from.sll_ifindex as u32,
        outgoing: from.sll_pkttype == OUTGOING,
        packet_type: from.sll_pkttype,
        stamp_ns: 0,
        csum_not_ready: false,
        vlan_tci: None,
    };
    // SAFETY: the kernel has filled in the message, and its control buffer is still alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a header that the CMSG macros give lies whole within the control buffer, and so does its data.
        let (level, kind, data) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, libc::CMSG_DATA(header)) };
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: the kernel puts a timespec here; it need not be aligned.
                let t = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                frame.stamp_ns = t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64;
            }
            (libc::SOL_PACKET, PACKET_AUXDATA) => {
                // SAFETY: the kernel puts a tpacket_auxdata here; it need not be aligned.
                let aux = unsafe { data.cast::<Auxdata>().read_unaligned() };
                frame.csum_not_ready = aux.status & TP_STATUS_CSUMNOTREADY != 0;
                frame.vlan_tci = (aux.status & TP_STATUS_VLAN_VALID != 0).then_some(aux.vlan_tci);
            }
            _ => {}
        }
        // SAFETY: message and header are those of this loop, unchanged since they were received.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    frame
}

/// Gives the calling thread this nice value.
pub(crate) fn set_nice(value: c_int) -> Result<()> {
    // SAFETY: no pointers; on Linux 0 is the calling thread (setpriority(2)).
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) }).map(drop)
}

/// Frames and drops since the last call.
pub(crate) fn packet_stats(fd: &OwnedFd) -> Result<(u32, u32)> {
    // `struct tpacket_stats`
    let mut stats = [0u32; 2];
    let mut len = size_of_val(&stats) as socklen_t;
    // SAFETY: the buffer is live, writable and as long as `len` says.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_STATISTICS,
            stats.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    })?;
    Ok((stats[0], stats[1]))
}

/// An ioctl request for the link of this name; ENODEV for a name that no link can have.
fn link_request(name: &str) -> Result<libc::ifreq> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.as_bytes().contains(&0) {
        return Err(Error::from_raw_os_error(libc::ENODEV));
    }
    // SAFETY: ifreq is integers, bytes and a union of the like, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Runs an ethtool command that takes and gives one number. ENODEV for a name that no link can have.
pub(crate) fn ethtool_value(socket: &impl AsFd, name: &str, command: u32, data: u32) -> Result<u32> {
    let mut request = link_request(name)?;
    let mut value = EthtoolValue { command, data };
    request.ifr_ifru.ifru_data = (&raw mut value).cast::<libc::c_char>();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the request is live, its name ends in a NUL, and its data pointer is to a live ethtool_value.
    check(unsafe { libc::ioctl(fd, SIOCETHTOOL as _, &raw mut request) })?;
    Ok(value.data)
}

/// Makes a TAP device through an open /dev/net/tun. EBUSY for a name that is taken. The device becomes persistent last:
/// until then it goes when `file` is closed.
pub(crate) fn tap_create(file: &impl AsFd, tap: &Tap<'_>) -> Result<()> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    if tap.multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut request = link_request(tap.name)?;
    // The flags are sixteen bits, of which IFF_TUN_EXCL is the sign.
    request.ifr_ifru.ifru_flags = flags as i16;
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the request is live, and its name ends in a NUL.
    check(unsafe { libc::ioctl(fd, libc::TUNSETIFF as _, &raw mut request) })?;
    let rest =
        [(libc::TUNSETOWNER, tap.owner), (libc::TUNSETGROUP, tap.group), (libc::TUNSETPERSIST, Some(1))];
    for (command, value) in rest {
        if let Some(value) = value {
            // SAFETY: these commands take a number and no pointer.
            check(unsafe { libc::ioctl(fd, command as _, libc::c_ulong::from(value)) })?;
        }
    }
    Ok(())
}

/// Forks. The child has `stdio` as its descriptors 0, 1 and 2 and no other; it runs `work` and ends with what that
/// returns, or with 101 when it panics.
///
/// The calling process must have one thread: of others, the child would have the locks and not the thread that
/// releases them. The caller looks to that.
pub(crate) fn fork(stdio: [&OwnedFd; 3], work: impl FnOnce() -> u8) -> Result<c_int> {
    // Out of the way of the numbers that are about to be replaced.
    let [stdin, stdout, stderr] = stdio.map(|fd| duplicate(fd.as_raw_fd()));
    let stdio = [stdin?, stdout?, stderr?];
    // SAFETY: with one thread in this process the child is a whole copy of it, in which everything may be done.
    let child = check(unsafe { libc::fork() })?;
    if child != 0 {
        return Ok(child);
    }
    let ready = stdio.iter().zip(0..).all(|(fd, number)| {
        // SAFETY: no pointers; what the number stood for is the parent's affair and not used here any more.
        unsafe { libc::dup2(fd.as_raw_fd(), number) == number }
    });
    // SAFETY: no pointers. Values that own one of these descriptors are never dropped here: the child leaves by _exit.
    let alone = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } == 0;
    let status = match ready && alone {
        true => std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101),
        false => 101,
    };
    // SAFETY: ends the child here.
    unsafe { libc::_exit(c_int::from(status)) }
}

/// Makes a device of this kind (IFF_TUN, IFF_TAP) through an open /dev/net/tun, which goes when `file` is closed. EBUSY for
/// a name that is taken.
pub(crate) fn tun_create(file: &impl AsFd, name: &str, kind: c_int) -> Result<()> {
    let mut request = link_request(name)?;
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as i16;
    // SAFETY: the request is live, and its name ends in a NUL.
    check(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) }).map(drop)
}

/// Runs the steps in a child of this process, up to the first that fails, of which it gives the number and the error;
/// without a number it is the child itself that could not be had. For changes to the task that cannot be taken back.
///
/// The steps must allocate nothing and take no lock: another thread of this process may have held one at the fork.
pub(crate) fn in_child(steps: &[&dyn Fn() -> Result<()>]) -> std::result::Result<(), (Option<usize>, Error)> {
    let (mut ours, theirs) = UnixStream::pair().map_err(|e| (None, e))?;
    // SAFETY: the child makes system calls only, by the contract above, and ends with _exit, which runs nothing of
    // this process.
    let child = check(unsafe { libc::fork() }).map_err(|e| (None, e))?;
    if child == 0 {
        let mut status = 0;
        for (number, step) in steps.iter().enumerate() {
            if let Err(e) = step() {
                let errno = e.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
                let [a, b, c, d] = errno;
                // Nobody else can be told.
                let _ = (&theirs).write_all(&[number as u8, a, b, c, d]);
                status = 1;
                break;
            }
        }
        // SAFETY: ends the child here.
        unsafe { libc::_exit(status) }
    }
    drop(theirs);
    let mut answer = [0; 5];
    let told = ours.read_exact(&mut answer);
    let mut status = 0;
    // SAFETY: the status is a live c_int.
    while check(unsafe { libc::waitpid(child, &raw mut status, 0) })
        .is_err_and(|e| e.raw_os_error() == Some(libc::EINTR))
    {}
    match told {
        Ok(()) => {
            let [number, errno @ ..] = answer;
            Err((Some(usize::from(number)), Error::from_raw_os_error(c_int::from_ne_bytes(errno))))
        }
        Err(_) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 => Ok(()),
        Err(_) => Err((None, Error::from_raw_os_error(libc::ECHILD))),
    }
}

/// Runs `step` in a child of this process that is not waited for, and gives the reading end of a pipe that ends with
/// it. The child keeps the descriptors of `keep` and no other, so nobody waits for what this process had open.
///
/// The step must allocate nothing and take no lock: another thread of this process may have held one at the fork.
pub(crate) fn detach(keep: &[BorrowedFd<'_>], step: &dyn Fn()) -> Result<OwnedFd> {
    let (ours, theirs) = std::io::pipe()?;
    let mut kept: Vec<c_int> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    kept.push(theirs.as_raw_fd());
    kept.sort_unstable();
    // SAFETY: the child makes system calls only, by the contract above, and ends with _exit, which runs nothing of
    // this process.
    let child = check(unsafe { libc::fork() })?;
    if child == 0 {
        let mut from = 0;
        // By reference: to free the list here would take the allocator's lock.
        for &fd in &kept {
            if fd > from {
                close_range(from, fd - 1);
            }
            from = fd + 1;
        }
        close_range(from, c_int::MAX);
        step();
        // SAFETY: ends the child here.
        unsafe { libc::_exit(0) }
    }
    drop(theirs);
    Ok(ours.into())
}

/// close_range(2); where the kernel has none (before Linux 5.9), what a child must not hold most: stdio.
fn close_range(from: c_int, to: c_int) {
    // SAFETY: no pointers; called in a child that uses no descriptor of this range any more.
    let closed = check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } as c_int);
    if closed.is_err() {
        for fd in from..=to.min(libc::STDERR_FILENO) {
            // SAFETY: no pointers, as above.
            unsafe { libc::close(fd) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::link::{self, Change, Veth};
    use crate::netns::Netns;
    use crate::packet::PacketSocket;
    use crate::rtnl::Rtnl;

    /// Puts a frame on a link by its index.
    fn send(fd: &OwnedFd, index: u32, bytes: &[u8]) -> Result<()> {
        // SAFETY: sockaddr_ll is plain integers, for which all zeros is a value.
        let mut to: libc::sockaddr_ll = unsafe { zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index as c_int;
        let len = size_of::<libc::sockaddr_ll>() as socklen_t;
        let (data, to) = (bytes.as_ptr().cast::<c_void>(), (&raw const to).cast::<libc::sockaddr>());
        // SAFETY: both pointers are to live values of the lengths given beside them.
        let n = unsafe { libc::sendto(fd.as_raw_fd(), data, bytes.len(), 0, to, len) };
        check(n as c_int).map(drop)
    }

    #[test]
    fn vlan_tag_is_reported_beside_the_frame() {
        let ns = Netns::create().unwrap();
        let mut rtnl = Rtnl::open_in(&ns).unwrap();
        let veth = Veth { name: "a", peer: "b", up: true, ..Veth::default() };
        link::add_veth(&mut rtnl, &veth).unwrap();
        let (a, b) =
            (link::by_name(&mut rtnl, "a").unwrap().index, link::by_name(&mut rtnl, "b").unwrap().index);
        link::set(&mut rtnl, b, &Change { up: Some(true), ..Change::default() }).unwrap();
        // Before its carrier has come through, a link throws frames away.
        for end in [a, b] {
            assert!(link::wait_oper_up(&mut rtnl, end, Duration::from_secs(5)).unwrap());
        }
        let socket = PacketSocket::open_in(&ns).unwrap();

        let mut tagged = [0xffu8; 64];
        // Priority 3, VLAN 5, and an experimental EtherType within (IEEE 802).
        tagged[12..18].copy_from_slice(&[0x81, 0x00, 0x60, 0x05, 0x88, 0xb5]);
        let sender = ns.run(|| packet_socket(0, Some(65536), &[])).unwrap().unwrap();
        send(&sender, a, &tagged).unwrap();

        let mut buffer = [0; 128];
        let began = Instant::now();
        let seen = std::iter::repeat_with(|| socket.recv(&mut buffer).unwrap())
            .take_while(|_| began.elapsed() < Duration::from_secs(5))
            .flatten()
            .find(|f| f.ifindex == b && !f.outgoing && f.vlan_tci.is_some())
            .expect("the frame at the other end");
        assert_eq!((seen.vlan_tci, seen.original_len), (Some(0x6005), 60));
    }

    #[test]
    fn a_child_tells_which_step_failed_and_how() {
        let fine = || Ok(());
        let broken = || Err(Error::from_raw_os_error(libc::EACCES));
        assert!(in_child(&[&fine, &fine]).is_ok());
        let (step, e) = in_child(&[&fine, &broken, &fine]).unwrap_err();
        assert_eq!((step, e.raw_os_error()), (Some(1), Some(libc::EACCES)));
        // What a step changes is the child's alone.
        let before = std::fs::read_link("/proc/self/ns/net").unwrap();
        let unshare = || nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(Error::from);
        assert!(in_child(&[&unshare]).is_ok());
        assert_eq!(std::fs::read_link("/proc/self/ns/net").unwrap(), before);
    }

    #[test]
    fn a_detached_child_holds_what_it_may_keep_and_nothing_else() {
        use std::io::{Read, Write};
        let (gate, mut opener) = std::io::pipe().unwrap();
        let (mut other, held) = std::io::pipe().unwrap();
        let mut byte = [0];
        let waits = || drop((&gate).read(&mut [0]));
        let end = detach(&[gate.as_fd()], &waits).unwrap();
        drop(held);
        // Were the writing end open in the child, this would never return.
        assert_eq!(other.read(&mut byte).unwrap(), 0);
        let mut fds = [nix::poll::PollFd::new(end.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).unwrap(), 0, "it still waits");
        opener.write_all(&[1]).unwrap();
        assert_eq!(std::fs::File::from(end).read(&mut byte).unwrap(), 0, "and ends");
    }

    #[test]
    fn names_that_no_link_can_have_are_no_device() {
        let ns = Netns::create().unwrap();
        let socket = ns.run(|| packet_socket(0, Some(4096), &[])).unwrap().unwrap();
        for name in ["", "sixteen-bytes-xx", "nul\0"] {
            let e = ethtool_value(&socket, name, 0x2b, 0).unwrap_err();
            assert_eq!(e.raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    }
}

/// `struct perf_event_attr` as of PERF_ATTR_SIZE_VER5 (linux/perf_event.h), in words of eight bytes.
const PERF_WORDS: usize = 14;
/// PERF_TYPE_TRACEPOINT
const PERF_TRACEPOINT: u64 = 2;
/// PERF_SAMPLE_TIME and PERF_SAMPLE_RAW
const PERF_TIME_AND_RAW: u64 = 1 << 2 | 1 << 10;
/// The bit `use_clockid`.
const PERF_USE_CLOCK: u64 = 1 << 25;
/// PERF_FLAG_FD_CLOEXEC
const PERF_CLOEXEC: libc::c_ulong = 8;
/// Where the ring's ends stand in its first page: `data_head`, `data_tail` of `struct perf_event_mmap_page`.
const RING_HEAD: usize = 1024;
const RING_TAIL: usize = 1032;
/// Pages of data; a power of two.
const RING_PAGES: usize = 64;
/// PERF_RECORD_SAMPLE
const RING_SAMPLE: u32 = 9;

/// The samples of a tracepoint on one processor (perf_event_open(2)), in a ring in memory. Nobody else reads from it.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Holds the event: with it go the samples.
    _fd: OwnedFd,
    base: NonNull<u8>,
    page: usize,
}

// SAFETY: the mapping is this value's own, and goes with it, on whatever thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Samples the tracepoint of this number on a processor, stamped by CLOCK_MONOTONIC.
    pub(crate) fn open(tracepoint: u64, processor: i32) -> Result<Ring> {
        let mut attr = [0u64; PERF_WORDS];
        attr[0] = PERF_TRACEPOINT | (size_of_val(&attr) as u64) << 32;
        attr[1] = tracepoint;
        attr[2] = 1;
        attr[3] = PERF_TIME_AND_RAW;
        attr[5] = PERF_USE_CLOCK;
        attr[11] = (libc::CLOCK_MONOTONIC as u64) << 32;
        // SAFETY: the kernel reads as many bytes of the attribute as it says that it has.
        let fd = unsafe {
            libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, processor, -1, PERF_CLOEXEC)
        };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(Error::last_os_error)?;
        // SAFETY: a descriptor that the kernel has just given, and nobody else has.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: no pointer is passed.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let len = page * (1 + RING_PAGES);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Ring { _fd: fd, base, page })
    }

    fn end(&self, at: usize) -> &AtomicU64 {
        // SAFETY: an aligned word in the first page of the mapping, which lives as long as self does; the kernel changes
        // it as an atomic does.
        unsafe { AtomicU64::from_ptr(self.base.add(at).as_ptr().cast()) }
    }

    fn byte(&self, at: u64) -> u8 {
        let offset = self.page + (at as usize & (self.page * RING_PAGES - 1));
        // SAFETY: within the mapping's data; below the head that was read, the kernel writes no more until the tail has
        // passed.
        unsafe { self.base.add(offset).as_ptr().read_volatile() }
    }

    /// The samples that wait: time in nanoseconds, and the tracepoint's record.
    pub(crate) fn samples(&mut self) -> Vec<(u64, Vec<u8>)> {
        let head = self.end(RING_HEAD).load(Ordering::Acquire);
        let mut at = self.end(RING_TAIL).load(Ordering::Relaxed);
        let mut all = Vec::new();
        while head.wrapping_sub(at) >= 8 {
            let take =
                |from: u64, len: usize| (0..len as u64).map(|i| self.byte(from + i)).collect::<Vec<u8>>();
            let header = take(at, 8);
            let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            let size = u64::from(u16::from_ne_bytes([header[6], header[7]]));
            if size < 8 {
                break;
            }
            if kind == RING_SAMPLE && size >= 20 {
                let body = take(at + 8, size as usize - 8);
                let time = u64::from_ne_bytes(std::array::from_fn(|i| body[i]));
                let len = u32::from_ne_bytes(std::array::from_fn(|i| body[8 + i])) as usize;
                all.extend(body.get(12..12 + len).map(|raw| (time, raw.to_vec())));
            }
            at += size;
        }
        self.end(RING_TAIL).store(at, Ordering::Release);
        all
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping that open made, which nobody uses after this.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.page * (1 + RING_PAGES)) };
    }
}
