//! A DHCPv4 server of a few lines that does what no real one can be made to do in a test's time: leases of seconds,
//! refusals, another address. It shares no code with the client.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::*;

/// What the server does with the n-th REQUEST (0 is the first).
type Script = fn(usize) -> Answer;

#[derive(Clone, Copy)]
enum Answer {
    /// ACK of 10.9.0.N for so many seconds.
    Lease(u8, u32),
    Refuse,
    Silence,
}

/// Serves until the other end of the channel is gone; tells the type of each message.
fn serve(lan: &Lan, script: Script) -> Result<Receiver<u8>> {
    let socket = lan.world.host.run(|| UdpSocket::bind("0.0.0.0:67"))??;
    socket.set_broadcast(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let (mut buffer, mut requests) = ([0; 1500], 0);
        while tell.send(0).is_ok() {
            let Ok((n, _)) = socket.recv_from(&mut buffer) else { continue };
            let kind = buffer[240..n].windows(3).find(|w| w[0] == 53 && w[1] == 1).map_or(0, |w| w[2]);
            let _ = tell.send(kind);
            let (answer, kind) = match kind {
                1 => (script(requests), 2),
                3 => {
                    requests += 1;
                    (script(requests - 1), 5)
                }
                _ => continue,
            };
            let (host, seconds, kind) = match (answer, kind) {
                (Answer::Silence, 5) => continue,
                (Answer::Refuse, 5) => (0, 0, 6),
                (Answer::Lease(host, seconds), kind) => (host, seconds, kind),
                (_, kind) => (200, 60, kind),
            };
            let mut reply = vec![2, 1, 6, 0];
            reply.extend(&buffer[4..8]);
            reply.extend([0; 8]);
            reply.extend(if kind == 6 { [0; 4] } else { [10, 9, 0, host] });
            reply.extend([0; 8]);
            reply.extend(&buffer[28..44]);
            reply.resize(236, 0);
            reply.extend([99, 130, 83, 99, 53, 1, kind, 54, 4, 10, 9, 0, 1]);
            if kind != 6 {
                reply.extend([1, 4, 255, 255, 255, 0, 3, 4, 10, 9, 0, 1, 51, 4]);
                reply.extend(seconds.to_be_bytes());
            }
            reply.push(255);
            // As RFC 2131 wants it: to the address that the client has, else to everybody.
            let client = Ipv4Addr::from(<[u8; 4]>::try_from(&buffer[12..16]).unwrap_or_default());
            let to = if client.is_unspecified() || kind == 6 { Ipv4Addr::BROADCAST } else { client };
            let _ = socket.send_to(&reply, (to, 68));
        }
    });
    Ok(told)
}

/// A LAN with this server and a pod that has a configured lease, by `bridge`.
fn attached(script: Script) -> Result<(Lan, Receiver<u8>, Value)> {
    attached_with(script, "dhcp4", &[])
}

/// As [`attached`], with another mode, and with dnsmasq as a router where it is told of a prefix.
fn attached_with(script: Script, mode: &str, router: &[&str]) -> Result<(Lan, Receiver<u8>, Value)> {
    let mut lan = Lan::bare(Side::Podnet, 1)?;
    lan.world.host_ip(&["route add 255.255.255.255 dev lan0"])?;
    let told = serve(&lan, script)?;
    if !router.is_empty() {
        lan.start_dnsmasq(router)?;
        lan.dnsmasq().wait_for("router advertisement on")?;
    }
    lan.start_daemon(&["-resendtimeout=5s"])?;
    let text = PLAIN.replace(r#"{"ipam":{"#, &format!(r#"{{"bridge":"lan0","ipam":{{"mode":"{mode}","#));
    let result = lan.world.call("bridge", "ADD").config(VERSION, &text).run()?.result()?;
    Ok((lan, told, result))
}

#[test]
fn a_refused_renewal_moves_the_interface_to_another_address() -> Result<()> {
    let (lan, _told, result) = attached(|request| match request {
        0 => Answer::Lease(7, 4),
        1 => Answer::Refuse,
        _ => Answer::Lease(8, 600),
    })?;
    ensure!(address(&result, 0) == "10.9.0.7/24", "{result}");
    lan.daemon().wait_for("the server refused the request")?;
    lan.daemon().wait_for("the lease changed to 10.9.0.8/24")?;
    eventually("the new address is on the link, with its routes", || {
        let addresses = lan.pod_says(0, "-o -4 addr show eth0").unwrap_or_default();
        let routes = lan.pod_says(0, "-4 route").unwrap_or_default();
        addresses.contains("10.9.0.8/24")
            && !addresses.contains("10.9.0.7")
            && routes.contains("default via 10.9.0.1")
    })?;
    // prevResult tells of an address that is not the pod's any more.
    let error = lan.call("CHECK", 0).prev(&result).run()?.error()?;
    ensure!(error.msg.contains("10.9.0.8/24, which is not in prevResult"), "{error:?}");
    Ok(())
}

#[test]
fn an_expired_lease_sets_the_interface_down_and_check_and_add_do_not_hang() -> Result<()> {
    let (lan, _told, result) = attached(|request| match request {
        0 => Answer::Lease(7, 2),
        1..=9 => Answer::Silence,
        _ => Answer::Lease(9, 600),
    })?;
    ensure!(lan.pod_says(0, "-br link show eth0")?.contains("LOWER_UP"));
    lan.daemon().wait_for("lease expired, bringing interface DOWN")?;
    eventually("the link is down", || {
        lan.pod_says(0, "-br link show eth0").is_ok_and(|text| text.contains("<BROADCAST,MULTICAST>"))
    })?;
    let error = lan.call("CHECK", 0).prev(&result).run()?.error()?;
    ensure!(error.msg.contains("the lease expired") && lan.kept() == 0, "{error:?}");
    lan.call("DEL", 0).run()?.silent()
}

#[test]
fn an_offer_that_is_refused_is_asked_for_again() -> Result<()> {
    let (lan, told, result) = attached(|request| match request {
        0 => Answer::Refuse,
        _ => Answer::Lease(7, 600),
    })?;
    ensure!(address(&result, 0) == "10.9.0.7/24", "{result}");
    lan.daemon().wait_for("the server refused the request")?;
    let mut kinds: Vec<u8> = told.try_iter().filter(|kind| *kind != 0).collect();
    // A message that got lost on a port just plugged was sent twice.
    kinds.dedup();
    ensure!(kinds == [1, 3, 1, 3], "{kinds:?}");
    Ok(())
}

#[test]
fn a_lease_is_renewed_at_t1_without_loss() -> Result<()> {
    let (lan, told, result) = attached(|_| Answer::Lease(7, 3))?;
    lan.daemon().wait_for_number("renewed", 2)?;
    let kinds: Vec<u8> = told.try_iter().filter(|kind| *kind != 0).collect();
    ensure!(
        kinds.iter().filter(|kind| **kind == 1).count() <= 2 && lan.daemon().count("changed") == 0,
        "{kinds:?}"
    );
    lan.call("CHECK", 0).prev(&result).run()?.silent()?;
    ensure!(lan.pod_says(0, "-o -4 addr show eth0")?.contains("10.9.0.7/24"));
    // The answers came by unicast, and nothing in the pod called them unreachable.
    let snmp = lan.world.pods[0].run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let line =
        |nth: usize| snmp.lines().filter(|line| line.starts_with("Icmp:")).nth(nth).unwrap_or_default();
    let sent = line(0).split(' ').zip(line(1).split(' ')).find(|(name, _)| *name == "OutDestUnreachs");
    ensure!(sent == Some(("OutDestUnreachs", "0")), "{sent:?}");
    // The link goes without DEL: the daemon notices at the next renewal and forgets the lease.
    lan.world.pod_ip(0, &["link del eth0"])?;
    lan.daemon().wait_for("terminating lease maintenance")?;
    let error = lan.call("CHECK", 0).prev(&result).run()?.error()?;
    ensure!(error.msg.contains("no longer exists") && lan.kept() == 0, "{error:?}");
    lan.call("DEL", 0).run()?.silent()
}

#[test]
fn a_hardware_address_that_is_changed_later_does_not_end_the_lease() -> Result<()> {
    let (lan, _told, result) = attached(|_| Answer::Lease(7, 2))?;
    // What a chained `tuning` may do.
    lan.world.pod_ip(0, &["link set eth0 address 02:00:00:00:00:77"])?;
    let so_far = lan.daemon().count("renewed");
    lan.daemon().wait_for_number("renewed", so_far + 2)?;
    lan.call("CHECK", 0).prev(&result).run()?.silent()
}

#[test]
fn of_two_leases_one_may_expire() -> Result<()> {
    let script: Script = |request| if request == 0 { Answer::Lease(7, 4) } else { Answer::Silence };
    let (lan, _told, result) =
        attached_with(script, "dual", &["--enable-ra", "--dhcp-range=fd00:9::,ra-only,64,300"])?;
    lan.daemon().wait_for("lease expired, removing its address")?;
    let (v4, v6) = (address(&result, 0), address(&result, 1));
    eventually("the IPv4 address is gone, the IPv6 address and the link stay", || {
        let addresses = lan.pod_says(0, "-o addr show eth0").unwrap_or_default();
        !addresses.contains(&v4) && addresses.contains(&v6)
    })?;
    ensure!(lan.pod_says(0, "-br link show eth0")?.contains("LOWER_UP"));
    let dual = PLAIN.replace(r#""type":"dhcp","#, r#""type":"dhcp","mode":"dual","#);
    let error = lan.call_with("CHECK", 0, &dual).prev(&result).run()?.error()?;
    ensure!(error.msg.contains("one of the two leases expired"), "{error:?}");
    // A repeated ADD asks anew and does not wait for what will not come.
    let error = lan.call_with("ADD", 0, &dual).run()?.error()?;
    ensure!(error.msg.contains("no more tries"), "{error:?}");
    Ok(())
}
