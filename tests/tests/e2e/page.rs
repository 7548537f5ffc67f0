//! The packet-walk page (`lab/web`): its own tests, one group each, in Node.js and headless Chromium. They need what
//! `scripts/test` installs: Node.js, Chromium, fonts for Korean, and the packages of `lab/web/package-lock.json`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use podnet_tests::plugins;

/// Runs a group of `lab/web/test/run.mjs`; what it prints is the error.
fn group(name: &str) -> Result<()> {
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/web");
    ensure!(
        web.join("node_modules/vite").is_dir(),
        "the page's packages are not there · try: npm ci --prefix lab/web"
    );
    let output = Command::new("node")
        .args(["test/run.mjs", name])
        .current_dir(&web)
        .env("PODLAB", plugins::podlab()?)
        .stdin(Stdio::null())
        .output()
        .context("start node · try: the packages nodejs and npm")?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "group {name} of the page's tests:\n{said}");
    println!("{said}");
    Ok(())
}

#[test]
fn logic_is_right_without_a_browser() -> Result<()> {
    group("unit")
}

#[test]
fn committed_file_is_what_the_sources_make() -> Result<()> {
    group("build")
}

#[test]
fn group_1_the_page_shows_what_the_trace_says() -> Result<()> {
    group("1")
}

#[test]
fn group_2_keys_lead_to_the_end_and_back() -> Result<()> {
    group("2")
}

#[test]
fn group_3_nothing_moves_for_who_wants_no_motion() -> Result<()> {
    group("3")
}

#[test]
fn group_4_axe_finds_nothing_serious() -> Result<()> {
    group("4")
}

#[test]
fn group_5_no_request_leaves_the_origin() -> Result<()> {
    group("5")
}

#[test]
fn group_6_the_same_step_looks_the_same() -> Result<()> {
    group("6")
}

#[test]
fn group_7_two_languages_fit_at_twice_the_size() -> Result<()> {
    group("7")
}

#[test]
fn group_8_size_and_work_are_within_their_budget() -> Result<()> {
    group("8")
}

#[test]
fn group_9_break_is_red_and_heal_is_green_in_a_live_lab() -> Result<()> {
    group("9")
}

#[test]
fn group_10_nobody_else_may_ask_the_server() -> Result<()> {
    group("10")
}
