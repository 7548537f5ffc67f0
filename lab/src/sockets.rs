//! Who listens: the TCP sockets of a process's network namespace, as /proc shows them (proc_pid_net(5)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `TCP_LISTEN`, net/tcp_states.h, as /proc/net/tcp writes it.
const LISTEN: &str = "0A";

/// The addresses that TCP sockets listen on in the network namespace of a process, IPv4's before IPv6's.
///
/// # Errors
/// The process is gone.
pub fn listening(pid: i32) -> io::Result<Vec<SocketAddr>> {
    let mut all = parse(&std::fs::read_to_string(format!("/proc/{pid}/net/tcp"))?);
    match std::fs::read_to_string(format!("/proc/{pid}/net/tcp6")) {
        Ok(text) => all.extend(parse(&text)),
        // A kernel without IPv6.
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(err),
    }
    Ok(all)
}

fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines().skip(1).filter_map(line).collect()
}

fn line(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_whitespace().skip(1);
    let (local, state) = (words.next()?, words.nth(1)?);
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = (state == LISTEN).then(|| address(ip)).flatten()?;
    Some(SocketAddr::new(address, port))
}

/// Words of four bytes, each in the host's order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => word(0).map(|bytes| Ipv4Addr::from(bytes).into()),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn listening_sockets_are_read_and_connections_passed_over() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n\
             1: 0201F40A:1F90 0301F40A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1\n";
        assert_eq!(parse(text), ["127.0.0.1:8080".parse::<SocketAddr>().unwrap()]);
        let text = "head\n   0: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0 0\n";
        assert_eq!(parse(text), ["[::1]:22".parse::<SocketAddr>().unwrap()]);
    }

    #[test]
    fn a_listener_of_this_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = socket.local_addr().unwrap();
        assert!(listening(std::process::id() as i32).unwrap().contains(&own));
    }
}
