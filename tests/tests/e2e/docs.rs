//! The pages in docs/plugins: one for each plugin, and each example in them is accepted by the plugin as it stands there:
//! STATUS, ADD, CHECK and DEL in a world of its own, whose /run and /var/lib nobody else sees. What cannot be had on the
//! machine (a device that the kernel lacks, a DHCP daemon) must be said by the plugin, and not that the configuration is
//! wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use podnet_tests::plugins::podnet;
use podnet_tests::sealed;
use podnet_tests::world::Call;
use podnet_tests::{Outcome, Side, World};
use serde_json::{Value, json};

use crate::policy;

/// A page: the plugin's name and the text.
struct Page {
    name: String,
    text: String,
}

fn pages() -> Result<Vec<Page>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plugins");
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .with_context(|| format!("read {}", dir.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|ext| ext == "md"));
    files.sort();
    let read = |file: PathBuf| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Page { name, text: fs::read_to_string(&file)? })
    };
    files.into_iter().map(read).collect()
}

/// The plugins that `podnet list` shows, each with its kind.
fn plugins() -> Result<BTreeMap<String, String>> {
    let output = Command::new(podnet()?).arg("list").output()?;
    let text = String::from_utf8(output.stdout)?;
    let words = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some((words.next()?, words.next()?))
    };
    Ok(text.lines().filter_map(words).collect())
}

/// The ```json blocks of a page.
fn examples(page: &Page) -> Result<Vec<Value>> {
    let blocks = page.text.split("```json\n").skip(1);
    blocks
        .map(|block| {
            let (body, _) = block.split_once("```").context("a block without an end")?;
            serde_json::from_str(body)
                .with_context(|| format!("{}: an example that is no JSON: {body}", page.name))
        })
        .collect()
}

/// The plugins of an example in the order of their calls: a conflist's, with what libcni adds, or the single one.
fn chain(example: &Value) -> Result<Vec<Value>> {
    let text = |key: &str| example[key].as_str().with_context(|| format!("{example}: {key} is missing"));
    let (version, name) = (text("cniVersion")?, text("name")?);
    let Some(list) = example.get("plugins") else { return Ok(vec![example.clone()]) };
    let mut plugins = list.as_array().context("plugins is no list")?.clone();
    for plugin in &mut plugins {
        plugin["cniVersion"] = version.into();
        plugin["name"] = name.into();
    }
    Ok(plugins)
}

/// The links that examples name (`master`, `device`) stand on the node, which has a default route over its eth0.
fn furnish(world: &World, chain: &[Value]) -> Result<()> {
    let mut links = vec!["eth0"];
    for plugin in chain {
        links.extend(["master", "device"].iter().filter_map(|key| plugin[*key].as_str()));
    }
    links.sort_unstable();
    links.dedup();
    for (n, link) in links.iter().enumerate() {
        world.host_ip(&[
            &format!("link add {link} type veth peer name far{n}"),
            &format!("link set far{n} up"),
            &format!("link set {link} up"),
        ])?;
    }
    world.host_ip(&["addr add 192.0.2.2/24 dev eth0", "route add default via 192.0.2.1"])?;
    if chain.iter().any(|plugin| plugin["type"] == "podnet-policy") {
        policy::make_table(world)?;
    }
    Ok(())
}

fn call<'w>(world: &'w World, plugin: &Value, verb: &str, previous: Option<&Value>) -> Result<Call<'w>> {
    let mut plugin = plugin.clone();
    // STATUS came with 1.1.0.
    if verb == "STATUS" {
        plugin["cniVersion"] = "1.1.0".into();
    }
    if let Some(previous) = previous {
        plugin["prevResult"] = previous.clone();
    }
    let name = plugin["type"].as_str().context("type is missing")?;
    Ok(world.call(name, verb).stdin(plugin.to_string()))
}

/// Whether the plugin says that the machine lacks something, and not that the configuration is wrong.
fn lacks(outcome: &Outcome, plugin: &Value) -> Result<bool> {
    if outcome.exit == Some(0) {
        return Ok(false);
    }
    let error = outcome.error()?;
    let daemon = plugin["ipam"]["type"] == "dhcp" || plugin["type"] == "dhcp";
    ensure!(
        error.code == 50 || error.msg.contains("kernel lacks") || daemon && ![2, 6, 7].contains(&error.code),
        "{plugin}: {error:?}"
    );
    Ok(true)
}

/// Runs an example.
fn run(example: &Value, kinds: &BTreeMap<String, String>) -> Result<()> {
    let mut chain = chain(example)?;
    let first = chain[0]["type"].as_str().unwrap_or_default();
    if !matches!(kinds.get(first).map(String::as_str), Some("interface" | "ipam") | None) {
        // A plugin that is chained only comes after one that makes the link.
        let mut before = json!({"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}});
        before["cniVersion"] = example["cniVersion"].clone();
        before["name"] = example["name"].clone();
        chain.insert(0, before);
    }
    let world = World::new(Side::Podnet, 1)?;
    furnish(&world, &chain)?;
    for plugin in &chain {
        lacks(&call(&world, plugin, "STATUS", None)?.run()?, plugin).context("STATUS")?;
    }
    let mut previous = None;
    for plugin in &chain {
        let outcome = call(&world, plugin, "ADD", previous.as_ref())?.run()?;
        if lacks(&outcome, plugin).context("ADD")? {
            return Ok(());
        }
        let result = outcome.result()?;
        if plugin["type"] == "podnet-policy" {
            policy::arm(&world, &result)?;
        }
        previous = Some(result);
    }
    if example["cniVersion"].as_str() >= Some("0.4.0") {
        for plugin in &chain {
            call(&world, plugin, "CHECK", previous.as_ref())?.run()?.silent().context("CHECK")?;
        }
    }
    for plugin in chain.iter().rev() {
        call(&world, plugin, "DEL", previous.as_ref())?.run()?.silent().context("DEL")?;
    }
    Ok(())
}

/// The keys that the page's plugin reads in an example, where it is a plugin of its own or another's `ipam`.
fn keys(example: &Value, name: &str) -> Result<Vec<String>> {
    let shared =
        ["cniVersion", "name", "type", "plugins", "prevResult", "capabilities", "runtimeConfig", "args"];
    let mut keys = Vec::new();
    for plugin in chain(example)? {
        for place in [&plugin, &plugin["ipam"]] {
            if place["type"] == name {
                keys.extend(place.as_object().into_iter().flatten().map(|(key, _)| key.clone()));
            }
        }
    }
    ensure!(!keys.is_empty(), "{example} is no example of {name}");
    keys.retain(|key| !shared.contains(&key.as_str()));
    Ok(keys)
}

#[test]
fn every_plugin_has_a_page_and_every_page_a_plugin() -> Result<()> {
    let pages: Vec<String> = pages()?.into_iter().map(|page| page.name).collect();
    let plugins: Vec<String> = plugins()?.into_keys().collect();
    let without: Vec<_> = plugins.iter().filter(|name| !pages.contains(name)).collect();
    ensure!(without.is_empty(), "no page in docs/plugins: {without:?}");
    let strays: Vec<_> = pages.iter().filter(|name| !plugins.contains(name)).collect();
    ensure!(strays.is_empty(), "pages of no plugin: {strays:?}");
    Ok(())
}

#[test]
fn every_page_has_its_parts_and_tells_of_the_keys_it_uses() -> Result<()> {
    for page in pages()? {
        let name = &page.name;
        ensure!(
            page.text.starts_with(&format!("# {name}\n")),
            "{name}: the heading is not the plugin's name"
        );
        for part in ["\n## Keys", "\n## What it ", "\n## Errors", "](../differences.md"] {
            ensure!(page.text.contains(part), "{name}: {part:?} is missing");
        }
        let examples = examples(&page)?;
        ensure!(!examples.is_empty(), "{name}: no example");
        for example in examples {
            for key in keys(&example, name)? {
                ensure!(page.text.contains(&format!("`{key}`")), "{name}: the key {key} is not explained");
            }
        }
    }
    Ok(())
}

#[test]
fn every_example_is_accepted() -> Result<()> {
    let kinds = plugins()?;
    let mut ran = 0;
    for page in pages()? {
        for example in examples(&page)? {
            let sealed = sealed::sealed(|| {
                // Reservations, leases, backups: nothing of the machine's own is read or written.
                for dir in ["/run", "/var/lib"] {
                    sealed::tmpfs(Path::new(dir), "size=16m")?;
                }
                run(&example, &kinds)
            });
            sealed.with_context(|| format!("docs/plugins/{}.md: {example}", page.name))?;
            ran += 1;
        }
    }
    ensure!(ran >= 6, "only {ran} examples");
    Ok(())
}

/// The negative control: examples with a mistake are not accepted.
#[test]
fn an_example_with_a_mistake_is_found() -> Result<()> {
    let kinds = plugins()?;
    let ptp = json!({"cniVersion": "1.0.0", "name": "n", "type": "ptp"});
    for (key, value) in [
        ("mtu", json!("1400")),
        ("ipam", json!({"type": "static", "addresses": [{"address": "10.0.0.1/8"}]})),
    ] {
        let mut wrong = ptp.clone();
        wrong[key] = value;
        if run(&wrong, &kinds).is_ok() {
            bail!("{wrong} is accepted");
        }
    }
    ensure!(keys(&ptp, "tap").is_err(), "an example of another plugin is accepted");
    run(&ptp, &kinds)
}
