//! Every package that this workspace is built from has a licence that the project accepts.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use podnet_tests::licence::{ACCEPTED, satisfied};
use serde_json::Value;

/// The platform that cargo builds for here.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc -vV names no host")?.to_owned())
}

/// `cargo metadata` of the workspace, from the lock file alone, without the packages of other platforms.
fn metadata() -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &host()?])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("start cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("decode cargo metadata")
}

#[test]
fn each_dependency_has_an_accepted_licence() -> Result<()> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    ensure!(packages.len() > 20, "only {} packages", packages.len());
    let mut refused = Vec::new();
    for package in packages {
        let name = format!(
            "{} {}",
            package["name"].as_str().unwrap_or("?"),
            package["version"].as_str().unwrap_or("?")
        );
        match package["license"].as_str() {
            None => refused.push(format!("{name}: no licence expression")),
            Some(expression) => match satisfied(expression, &ACCEPTED) {
                Ok(true) => {}
                Ok(false) => refused.push(format!("{name}: {expression}")),
                Err(error) => refused.push(format!("{name}: {error}")),
            },
        }
    }
    println!("{} packages, {} with a licence that is not accepted", packages.len(), refused.len());
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}
