//! `firewall` with firewalld: a real bus (Debian's dbus-daemon), and behind it a stand-in for firewalld that
//! keeps the sources of zones and answers with firewalld's own words.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use podnet_tests::world::Call;
use podnet_tests::{Side, World};
use serde_json::{Value, json};

use super::same;

const BUS: &str = r#"<busconfig><type>system</type><listen>unix:path=@DIR@/bus</listen><auth>EXTERNAL</auth>
    <policy context="default"><allow own="*"/><allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/></policy></busconfig>"#;

/// Sources are kept as `ZONE SOURCE` lines in the file named by the first argument.
const FIREWALLD: &str = r#"
import sys, dbus, dbus.service
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

ZONE = 'org.fedoraproject.FirewallD1.zone'

class Refusal(dbus.DBusException):
    _dbus_error_name = 'org.fedoraproject.FirewallD1.Exception'

class Firewalld(dbus.service.Object):
    sources = {}

    def keep(self):
        with open(sys.argv[1], 'w') as file:
            file.writelines('%s %s\n' % (zone, source) for source, zone in sorted(self.sources.items()))

    @dbus.service.method(ZONE, in_signature='ss', out_signature='s')
    def addSource(self, zone, source):
        if zone == 'nosuch':
            raise Refusal('INVALID_ZONE: ' + zone)
        if source in self.sources:
            raise Refusal("ZONE_ALREADY_SET: '%s' already bound to '%s'" % (source, zone))
        self.sources[source] = zone
        self.keep()
        return zone

    @dbus.service.method(ZONE, in_signature='ss', out_signature='s')
    def removeSource(self, zone, source):
        if self.sources.get(source) != zone:
            raise Refusal('UNKNOWN_SOURCE: ' + source)
        del self.sources[source]
        self.keep()
        return zone

    @dbus.service.method(ZONE, in_signature='ss', out_signature='b')
    def querySource(self, zone, source):
        return self.sources.get(source) == zone

DBusGMainLoop(set_as_default=True)
bus = dbus.bus.BusConnection(sys.argv[2])
name = dbus.service.BusName('org.fedoraproject.FirewallD1', bus)
Firewalld(bus, '/org/fedoraproject/FirewallD1').keep()
print('ready', flush=True)
GLib.MainLoop().run()
"#;

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program and waits for its first line.
fn start(command: &mut Command) -> Result<Process> {
    let what = format!("{command:?}");
    let mut child = Process(command.stdout(Stdio::piped()).spawn().with_context(|| what.clone())?);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().context("stdout")?).read_line(&mut line)?;
    ensure!(!line.is_empty(), "{what} ended at once");
    Ok(child)
}

/// A node with a bus, and firewalld on it.
struct Node {
    firewalld: Option<Process>,
    _bus: Process,
    address: String,
    world: World,
}

impl Node {
    fn new() -> Result<Self> {
        let world = World::new(Side::Podnet, 1)?;
        let dir = world.dir();
        std::fs::write(dir.join("bus.conf"), world.fill(BUS))?;
        std::fs::write(dir.join("firewalld.py"), FIREWALLD)?;
        let address = format!("unix:path={}/bus", dir.display());
        let config = format!("--config-file={}", dir.join("bus.conf").display());
        let bus = start(Command::new("dbus-daemon").args(["--nofork", "--print-address", &config]))?;
        let script = [dir.join("firewalld.py"), dir.join("sources"), address.clone().into()];
        let service = start(Command::new("/usr/bin/python3").args(script))
            .context("the packages python3-dbus and python3-gi are needed")?;
        Ok(Node { firewalld: Some(service), _bus: bus, address, world })
    }

    /// The zones' sources.
    fn sources(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.world.dir().join("sources"))?)
    }

    fn call(&self, verb: &str, ips: &[&str], keys: &str) -> Call<'_> {
        let ips: Vec<Value> = ips.iter().map(|ip| json!({ "address": ip })).collect();
        let call = self.world.call("firewall", verb).config("1.0.0", &format!("{{{keys}}}"));
        call.prev(&json!({"cniVersion": "1.0.0", "ips": ips})).env("DBUS_SYSTEM_BUS_ADDRESS", &self.address)
    }

    fn rules(&self) -> Result<String> {
        super::run(&self.world.host, "nft", "-s list ruleset", "")
    }
}

const DUAL: [&str; 2] = ["10.1.2.3/24", "2001:db8::3/64"];
const SOURCES: &str = "trusted 10.1.2.3/32\ntrusted 2001:db8::3/128\n";

#[test]
fn addresses_are_put_in_the_zone_and_taken_out_again() -> Result<()> {
    let node = Node::new()?;
    let before = node.rules()?;
    // Named, and found by itself; another zone.
    for (keys, zone) in [
        (r#""backend":"firewalld""#, "trusted"),
        (r#""backend":"""#, "trusted"),
        (r#""backend":"firewalld","firewalldZone":"pods""#, "pods"),
    ] {
        let call = |verb| node.call(verb, &DUAL, keys).run();
        call("ADD")?.result()?;
        ensure!(node.sources()? == SOURCES.replace("trusted", zone), "{}", node.sources()?);
        ensure!(!node.rules()?.contains("CNI-FORWARD"), "two filters for one pod");
        call("CHECK")?.silent()?;
        call("ADD")?.result()?;
        call("DEL")?.silent()?;
        ensure!(node.sources()?.is_empty(), "{}", node.sources()?);
        same(&before, &node.rules()?)?;
        call("DEL")?.silent()?;
    }
    Ok(())
}

#[test]
fn check_honours_firewalls_answer() -> Result<()> {
    let node = Node::new()?;
    let keys = r#""backend":"firewalld""#;
    node.call("ADD", &DUAL, keys).run()?.result()?;
    node.call("CHECK", &DUAL, keys).run()?.silent()?;
    let other = node.call("CHECK", &["10.1.2.9/24"], keys).run()?.error()?;
    ensure!(other.msg == "failed to find the address 10.1.2.9/32 in trusted zone", "{other:?}");
    Ok(())
}

#[test]
fn a_late_del_leaves_the_source_to_the_addresss_new_owner() -> Result<()> {
    let node = Node::new()?;
    let keys = r#""backend":"firewalld""#;
    for id in ["old", "new"] {
        node.call("ADD", &DUAL, keys).container(id).run()?.result()?;
    }
    node.call("DEL", &DUAL, keys).container("old").run()?.silent()?;
    ensure!(node.sources()? == SOURCES, "{}", node.sources()?);
    node.call("DEL", &DUAL, keys).container("old").run()?.silent()?;
    ensure!(node.sources()? == SOURCES, "a second DEL took it: {}", node.sources()?);
    node.call("DEL", &[], keys).container("new").run()?.silent()?;
    ensure!(node.sources()?.is_empty(), "DEL without prevResult left {}", node.sources()?);
    Ok(())
}

#[test]
fn gc_takes_stale_sources_out() -> Result<()> {
    let node = Node::new()?;
    let keys = r#""backend":"firewalld""#;
    for (id, ip) in [("a", "10.1.2.3/24"), ("b", "10.1.2.4/24")] {
        node.call("ADD", &[ip], keys).container(id).run()?.result()?;
    }
    let gc = node.call("GC", &[], keys).stdin(
        r#"{"cniVersion":"1.1.0","name":"testnet","type":"firewall","backend":"firewalld",
            "cni.dev/valid-attachments":[{"containerID":"b","ifname":"eth0"}]}"#,
    );
    gc.run()?.silent()?;
    ensure!(node.sources()? == "trusted 10.1.2.4/32\n", "{}", node.sources()?);
    Ok(())
}

#[test]
fn del_succeeds_when_firewalld_has_gone_and_add_says_so() -> Result<()> {
    let mut node = Node::new()?;
    let keys = r#""backend":"firewalld""#;
    node.call("ADD", &DUAL, keys).run()?.result()?;
    node.firewalld = None;
    node.call("DEL", &DUAL, keys).run()?.silent()?;
    let error = node.call("ADD", &DUAL, keys).run()?.error()?;
    ensure!(error.msg.contains("firewalld does not run"), "{error:?}");
    // Without the name it is our own rules then.
    node.call("ADD", &DUAL, "").run()?.result()?;
    ensure!(node.rules()?.contains("CNI-FORWARD"));
    node.call("CHECK", &DUAL, "").run()?.silent()?;
    node.call("DEL", &DUAL, "").run()?.silent()?;
    ensure!(node.rules()?.is_empty(), "{}", node.rules()?);
    Ok(())
}

#[test]
fn a_refusal_is_told_in_firewallds_words_and_undone() -> Result<()> {
    let node = Node::new()?;
    let keys = r#""backend":"firewalld","firewalldZone":"nosuch""#;
    let error = node.call("ADD", &DUAL, keys).run()?.error()?;
    let expected = "failed to add the address 10.1.2.3/32 to nosuch zone: \
                    org.fedoraproject.FirewallD1.Exception: INVALID_ZONE: nosuch";
    ensure!(error.msg == expected, "{error:?}");
    ensure!(node.rules()?.is_empty() && node.sources()?.is_empty());
    Ok(())
}
