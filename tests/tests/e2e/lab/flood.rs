//! Captures of more than can be written while it comes: nothing is lost without being counted, and the order is that of time.
//!
//! ```text
//!  fabric ── node1: kubia-1, kubia-2 ; node2: kubia-3, kubia-4
//!  kubia-1 and kubia-3 send each other's node datagrams as fast as they can
//! ```

use std::io::Read;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::evidence::{listening, tshark};
use super::verdicts::SMALL;
use super::{Lab, command};

/// Datagrams to nobody's port, in turn to the addresses given.
const SENDER: &str = "import socket, sys, time; ends = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in sys.argv[2:]]\n\
                      for end, to in zip(ends, sys.argv[2:]): end.connect((to, 9))\n\
                      until = time.monotonic() + float(sys.argv[1])\n\
                      while time.monotonic() < until:\n \
                      for end in ends * 16:\n  \
                      try: end.send(b'x' * 64)\n  \
                      except OSError: pass";

#[test]
fn a_flooded_capture_counts_what_it_loses_and_keeps_the_order() -> Result<()> {
    let lab = Lab::up("flood", &SMALL)?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("flood.pcapng");
    let (mut child, mut said) = listening(&lab, &["-w", path.to_str().context("path")?])?;
    let send = |from: &str, to: [&str; 2]| -> Result<std::process::Child> {
        let mut all = vec!["exec", "--name", &lab.name, from, "--", "python3", "-c", SENDER, "0.5"];
        all.extend(to);
        Ok(command(&all)?.stdin(Stdio::null()).spawn()?)
    };
    let senders =
        [send("kubia-1", ["10.244.2.2", "10.244.2.3"])?, send("kubia-3", ["10.244.1.2", "10.244.1.3"])?];
    for mut sender in senders {
        ensure!(sender.wait()?.success(), "a sender has failed");
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT)?;
    ensure!(child.wait()?.success(), "a capture that is interrupted has not failed");
    let mut total = String::new();
    said.read_to_string(&mut total)?;
    // "N packets taken, N frames seen, N dropped by the kernel"
    let counts: Vec<u64> = total.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [taken, seen, dropped] = counts[..] else { anyhow::bail!("{total}") };
    // What a bridge says of itself may come between the last look at the sockets and that at their counts.
    ensure!(taken > 1000 && (taken..taken + 50).contains(&(seen - dropped)), "{total}");
    let packets = tshark(&path, &["frame.time_epoch", "frame.interface_name"])?;
    ensure!(packets.len() as u64 == taken, "{} packets in the file: {total}", packets.len());
    // Equal numbers of digits, so the order of texts is that of times.
    let disorder = packets.windows(2).find(|pair| pair[0][0] > pair[1][0]);
    ensure!(disorder.is_none(), "{disorder:?}");
    Ok(())
}
