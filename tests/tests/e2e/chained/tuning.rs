//! `tuning`: sysctls and properties of the pod's interface, and what DEL and GC make of the file in between.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use podnet_tests::facts::Facts;
use podnet_tests::sealed::{read_only, sealed, tmpfs};
use podnet_tests::{Side, World};

use super::{call, world};

const ALL: &str = r#"{"dataDir":"@DATA@","mac":"02:00:00:00:00:0A","mtu":1400,"promisc":true,"allmulti":true,"txQLen":77,
    "sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1","net/core/somaxconn":"500","net.ipv4.ip_local_port_range":"20000 30000"}}"#;

fn pod_sysctl(world: &World, path: &str) -> Result<String> {
    let text = world.pods[0].run(|| fs::read_to_string(format!("/proc/sys/{path}")))??;
    Ok(text.trim_end().replace('\t', " "))
}

fn file(world: &World) -> std::path::PathBuf {
    world.data().join("c0_eth0.json")
}

/// What is left of the pod's interface and sysctls, without the file's directory.
fn pod(world: &World) -> Result<Facts> {
    Ok(world.snapshot()?.facts.filtered(|path| path.starts_with("pod0/") || path.ends_with(".json/content")))
}

#[test]
fn all_properties_are_set_and_told_and_checked_and_restored() -> Result<()> {
    let world = world(Side::Podnet)?;
    let before = pod(&world)?;
    let result = call(&world, "tuning", "ADD", ALL).run()?.result()?;
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:0a");
    assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:01", "the node's end is another");
    let facts = world.snapshot()?.facts;
    for (path, value) in [
        ("link/eth0/mtu", "1400"),
        ("link/eth0/txqlen", "77"),
        ("link/eth0/flag/PROMISC", "yes"),
        ("link/eth0/flag/ALLMULTI", "yes"),
        ("sysctl/net/ipv4/conf/eth0/arp_filter", "1"),
    ] {
        assert_eq!(facts.get(&format!("pod0/{path}")), Some(value), "{path}");
    }
    assert_eq!(world.snapshot()?.pods[0].macs["eth0"], "02:00:00:00:00:0a");
    assert_eq!(pod_sysctl(&world, "net/core/somaxconn")?, "500");
    assert_eq!(fs::metadata(file(&world))?.permissions().mode() & 0o777, 0o600);

    // Right after ADD: the kernel prints the range with a tab and the MAC in lower case.
    world.call("tuning", "CHECK").config("1.1.0", ALL).prev(&result).run()?.silent()?;

    for _ in 0..2 {
        world.call("tuning", "DEL").config("1.1.0", ALL).prev(&result).run()?.silent()?;
        ensure!(!file(&world).exists());
    }
    let changed: Vec<_> = before.changes(&pod(&world)?).into_iter().map(|change| change.path).collect();
    assert_eq!(changed, ["pod0/sysctl/net/ipv4/conf/eth0/arp_filter"], "sysctls go with the pod");
    Ok(())
}

#[test]
fn a_failed_add_puts_everything_back() -> Result<()> {
    let rest = ALL.strip_prefix('{').context("an object")?;
    for text in [
        ALL.replace("1400", "70000000"),
        ALL.replace("\"500\"", "\"many\""),
        format!(r#"{{"args":{{"cni":{{"sysctl":{{"net.no.such":"1"}}}}}},{rest}"#),
    ] {
        let world = world(Side::Podnet)?;
        world.pods[0].run(|| fs::write("/proc/sys/net/core/somaxconn", "300"))??;
        let before = pod(&world)?;
        call(&world, "tuning", "ADD", &text).run()?.error()?;
        let changes = before.changes(&pod(&world)?);
        ensure!(changes.is_empty(), "{text}: {changes:#?}");
        assert_eq!(pod_sysctl(&world, "net/core/somaxconn")?, "300");
        assert_eq!(pod_sysctl(&world, "net/ipv4/ip_local_port_range")?, "32768 60999");
        ensure!(!file(&world).exists(), "{text}");
    }
    Ok(())
}

#[test]
fn a_result_that_nobody_reads_is_undone() -> Result<()> {
    let world = world(Side::Podnet)?;
    let before = pod(&world)?;
    let outcome = call(&world, "tuning", "ADD", ALL).stdout(podnet_tests::process::Stdout::Full).run()?;
    ensure!(outcome.exit == Some(1), "{outcome:?}");
    let changes = before.changes(&pod(&world)?);
    ensure!(changes.is_empty(), "{changes:#?}");
    Ok(())
}

#[test]
fn sysctls_of_args_need_no_sysctls_in_the_configuration() -> Result<()> {
    let world = world(Side::Podnet)?;
    let text = r#"{"args":{"cni":{"sysctl":{"net.core.somaxconn":"444"}}}}"#;
    call(&world, "tuning", "ADD", text).run()?.result()?;
    assert_eq!(pod_sysctl(&world, "net/core/somaxconn")?, "444");
    Ok(())
}

#[test]
fn interfaces_with_dots_in_their_names_are_tuned() -> Result<()> {
    for key in [
        "net.ipv4.conf.IFNAME.arp_filter",
        "net/ipv4/conf/IFNAME/arp_filter",
        "net/ipv4/conf/eth0.5/arp_filter",
        "net.ipv4.conf.eth0/5.arp_filter",
        "net.ipv4.conf.eth0.5.arp_filter",
    ] {
        let world = World::new(Side::Podnet, 1)?;
        super::attach(&world, "eth0.5", 0)?;
        let text = format!(r#"{{"sysctl":{{"{key}":"1"}}}}"#);
        let previous = super::result(&world, "1.1.0", "eth0.5", 0);
        let run = |verb| {
            let call = world.call("tuning", verb).config("1.1.0", &text).prev(&previous);
            call.env("CNI_IFNAME", "eth0.5").run()
        };
        run("ADD")?.result().context(key)?;
        assert_eq!(pod_sysctl(&world, "net/ipv4/conf/eth0.5/arp_filter")?, "1", "{key}");
        run("CHECK")?.silent().context(key)?;
    }
    Ok(())
}

#[test]
fn the_file_goes_also_when_the_namespace_or_the_interface_is_gone() -> Result<()> {
    for how in ["empty", "missing", "plain file", "no interface"] {
        let world = world(Side::Podnet)?;
        call(&world, "tuning", "ADD", ALL).run()?.result()?;
        ensure!(file(&world).exists());
        fs::write(world.dir().join("file"), "")?;
        let del = call(&world, "tuning", "DEL", ALL);
        let del = match how {
            "empty" => del.env("CNI_NETNS", ""),
            "missing" => del.env("CNI_NETNS", "/nonexistent"),
            "plain file" => del.env("CNI_NETNS", world.dir().join("file")),
            _ => {
                world.pod_ip(0, &["link del eth0"])?;
                del
            }
        };
        for _ in 0..2 {
            del.run()?.silent().context(how)?;
            ensure!(!file(&world).exists(), "{how}");
        }
    }
    Ok(())
}

#[test]
fn del_does_not_mind_what_add_would_refuse() -> Result<()> {
    for (key, value) in [("mtu", "-1"), ("mac", "\"nonsense\""), ("sysctl", "{\"kernel.x\":\"1\"}")] {
        let world = world(Side::Podnet)?;
        let before = pod(&world)?;
        call(&world, "tuning", "ADD", r#"{"dataDir":"@DATA@","mtu":1400}"#).run()?.result()?;
        let del = call(&world, "tuning", "DEL", r#"{"dataDir":"@DATA@"}"#).with(key, value);
        del.env("CNI_ARGS", "no pairs").run()?.silent()?;
        ensure!(before.changes(&pod(&world)?).is_empty() && !file(&world).exists(), "{key}");
    }
    Ok(())
}

#[test]
fn either_side_restores_what_the_other_saved() -> Result<()> {
    for (first, second) in [(Side::Podnet, Side::Debian), (Side::Debian, Side::Podnet)] {
        let mut world = world(first)?;
        let before = pod(&world)?;
        // What Debian's version knows.
        let text =
            r#"{"dataDir":"@DATA@","mac":"02:00:00:00:00:0a","mtu":1400,"promisc":true,"allmulti":true}"#;
        let run = |world: &World, verb| {
            let previous = super::result(world, "1.0.0", "eth0", 0);
            world.call("tuning", verb).config("1.0.0", text).prev(&previous).run()
        };
        run(&world, "ADD")?.result()?;
        ensure!(file(&world).exists());
        world.switch(second)?;
        run(&world, "DEL")?.silent()?;
        ensure!(before.changes(&pod(&world)?).is_empty(), "{first:?} then {second:?}");
        ensure!(!file(&world).exists(), "{first:?} then {second:?}");
    }
    Ok(())
}

#[test]
fn two_tunings_in_a_chain_restore_what_was_before_the_first() -> Result<()> {
    let world = world(Side::Podnet)?;
    let before = pod(&world)?;
    let texts = [
        r#"{"dataDir":"@DATA@","mtu":1400}"#,
        r#"{"dataDir":"@DATA@","mtu":1300,"mac":"02:00:00:00:00:0a"}"#,
    ];
    for text in texts {
        call(&world, "tuning", "ADD", text).run()?.result()?;
    }
    for text in texts.iter().rev() {
        call(&world, "tuning", "DEL", text).run()?.silent()?;
    }
    let changes = before.changes(&pod(&world)?);
    ensure!(changes.is_empty(), "{changes:#?}");
    Ok(())
}

#[test]
fn gc_removes_the_stale_files_of_its_network_only() -> Result<()> {
    let world = world(Side::Podnet)?;
    let text = r#"{"dataDir":"@DATA@","mtu":1400}"#;
    for container in ["c0", "c1", "c_2"] {
        call(&world, "tuning", "ADD", text).container(container).run()?.result()?;
    }
    let other = String::from_utf8(call(&world, "tuning", "ADD", text).invocation().stdin)?;
    let other = other.replace(podnet_tests::world::NETWORK, "othernet");
    call(&world, "tuning", "ADD", text).container("c3").stdin(other).run()?.result()?;
    // What the reference writes names no network.
    fs::write(world.data().join("c4_eth0.json"), "{\n \"mtu\": 1500\n}")?;
    let files = || -> Result<Vec<String>> {
        let mut names: Vec<_> = fs::read_dir(world.data())?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    };
    let all = files()?;
    let gc = |valid: &str| {
        let call = world.call("tuning", "GC").config("1.1.0", text);
        let call = if valid.is_empty() { call } else { call.with("cni.dev/valid-attachments", valid) };
        call.env("CNI_CONTAINERID", "").env("CNI_NETNS", "").env("CNI_IFNAME", "").run()?.silent()
    };
    gc("")?;
    assert_eq!(files()?, all, "no list, nothing removed");
    gc(r#"[{"containerID":"c_2","ifname":"eth0"},{"containerID":"c0","ifname":"net1"}]"#)?;
    assert_eq!(files()?, ["c3_eth0.json", "c4_eth0.json", "c_2_eth0.json"]);
    for _ in 0..2 {
        gc("[]")?;
        assert_eq!(files()?, ["c3_eth0.json", "c4_eth0.json"]);
    }
    Ok(())
}

/// CHECK finds each thing that is spoiled, and minds nothing else.
#[test]
fn check_finds_each_change() -> Result<()> {
    for (spoil, words) in [
        ("link set eth0 address 02:00:00:00:00:0b", "02:00:00:00:00:0b"),
        ("link set eth0 mtu 1399", "1399"),
        ("link set eth0 promisc off", "promisc"),
        ("link set eth0 allmulticast off", "allmulti"),
        ("link set eth0 txqueuelen 5", "txQLen"),
    ] {
        let world = world(Side::Podnet)?;
        let result = call(&world, "tuning", "ADD", ALL).run()?.result()?;
        let check = world.call("tuning", "CHECK").config("1.1.0", ALL).prev(&result);
        check.run()?.silent()?;
        world.pod_ip(0, &[spoil])?;
        let error = check.run()?.error()?;
        ensure!(error.msg.contains(words), "{spoil}: {error:?}");
    }
    let world = world(Side::Podnet)?;
    let result = call(&world, "tuning", "ADD", ALL).run()?.result()?;
    world.pods[0].run(|| fs::write("/proc/sys/net/core/somaxconn", "300"))??;
    let error = world.call("tuning", "CHECK").config("1.1.0", ALL).prev(&result).run()?.error()?;
    ensure!(error.msg.contains("net/core/somaxconn is 500, current value is 300"), "{error:?}");
    Ok(())
}

#[test]
fn check_does_not_mind_an_interface_that_another_program_made_promiscuous() -> Result<()> {
    let world = world(Side::Podnet)?;
    world.pod_ip(0, &["link set eth0 promisc on"])?;
    call(&world, "tuning", "CHECK", r#"{"mtu":1500}"#).run()?.silent()
}

#[test]
fn without_prevresult_add_and_check_are_refused() -> Result<()> {
    let world = world(Side::Podnet)?;
    for verb in ["ADD", "CHECK"] {
        let error = world.call("tuning", verb).config("1.1.0", ALL).run()?.error()?;
        ensure!(error.msg.contains("Required prevResult missing"), "{error:?}");
    }
    assert_eq!(pod_sysctl(&world, "net/ipv4/ip_local_port_range")?, "32768 60999");
    Ok(())
}

#[test]
fn duplicate_sysctls_are_refused() -> Result<()> {
    let world = world(Side::Podnet)?;
    let text = r#"{"sysctl":{"net.core.somaxconn":"1","net.core.somaxconn":"2"}}"#;
    for verb in ["ADD", "CHECK"] {
        let error = call(&world, "tuning", verb, text).run()?.error()?;
        ensure!(error.msg.contains("duplicated sysctl keys are not allowed"), "{error:?}");
    }
    Ok(())
}

#[test]
fn the_administrators_list_decides_which_sysctls_are_set() -> Result<()> {
    sealed(|| {
        // Over all of /etc: a directory for a mount of its own would be made on the machine.
        tmpfs("/etc".as_ref(), "size=64k")?;
        fs::create_dir_all("/etc/cni/tuning")?;
        fs::write(
            "/etc/cni/tuning/allowlist.conf",
            "^net\\.core\\.somaxconn$\n\n ^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$ \n",
        )?;
        let world = world(Side::Podnet)?;
        let text = |key: &str| format!(r#"{{"sysctl":{{"{key}":"1"}}}}"#);
        for key in ["net.core.somaxconn", "net.ipv4.conf.IFNAME.arp_filter"] {
            call(&world, "tuning", "ADD", &text(key)).run()?.result()?;
            call(&world, "tuning", "STATUS", &text(key)).run()?.silent()?;
        }
        for key in ["net.core.somaxconn2", "net/core/somaxconn", "net.ipv4.conf.eth0.arp_filter"] {
            let error = call(&world, "tuning", "ADD", &text(key)).run()?.error()?;
            ensure!(error.msg.starts_with(&format!("Sysctl {key} is not allowed. Only")), "{error:?}");
            let error = call(&world, "tuning", "STATUS", &text(key)).run()?.error()?;
            ensure!(error.code == 50 && error.msg.contains(key), "{error:?}");
        }
        Ok(())
    })
}

/// Rootless: the list may be unreadable, which matters to who sets sysctls only.
#[test]
fn an_unreadable_list_matters_to_sysctls_only() -> Result<()> {
    sealed(|| {
        tmpfs("/etc".as_ref(), "size=64k")?;
        // A directory in its place is as unreadable to root as a forbidden file to others.
        fs::create_dir_all("/etc/cni/tuning/allowlist.conf")?;
        let world = world(Side::Podnet)?;
        call(&world, "tuning", "ADD", r#"{"dataDir":"@DATA@","mtu":1400}"#).run()?.result()?;
        let error =
            call(&world, "tuning", "ADD", r#"{"sysctl":{"net.core.somaxconn":"1"}}"#).run()?.error()?;
        ensure!(error.msg.contains("allowlist.conf"), "{error:?}");
        Ok(())
    })
}

#[test]
fn a_read_only_proc_sys_with_the_right_values_is_enough() -> Result<()> {
    sealed(|| {
        let world = world(Side::Podnet)?;
        world.pods[0].run(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 30000"))??;
        read_only("/proc/sys".as_ref())?;
        let text = |high| format!(r#"{{"sysctl":{{"net.ipv4.ip_local_port_range":"20000 {high}"}}}}"#);
        call(&world, "tuning", "ADD", &text(30000)).run()?.result()?;
        let error = call(&world, "tuning", "ADD", &text(30001)).run()?.error()?;
        ensure!(error.msg.contains("read-only file system"), "{error:?}");
        Ok(())
    })
}
