//! `podlab serve` and `podlab export`, at the level of bytes: who is let in, what is answered, what the files hold.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::contract::judge;
use super::http::{DEADLINE, Server};
use super::{Lab, podlab, text};

/// What it is, the status that it gets, the line of the request, and its headers.
type Case<'c> = (&'c str, u16, &'c str, &'c [(&'c str, &'c str)]);

#[test]
fn nobody_is_let_in_but_the_page_with_the_token() -> Result<()> {
    let server = Server::start(&["--name", "e2e-serve-none"])?;
    ensure!(server.token.len() >= 32, "{}", server.token);
    let (host, other_port) = (server.host(), format!("127.0.0.1:{}", server.port ^ 1));
    let by_name = format!("localhost:{}", server.port);
    let own_origin = format!("http://{host}");
    let tls_origin = format!("https://{host}");
    let mut wrong = server.token.clone();
    wrong.replace_range(..1, if wrong.starts_with('0') { "1" } else { "0" });
    let (h, t) = (("Host", host.as_str()), ("X-Podlab-Token", server.token.as_str()));
    let query = format!("GET /api/walks?token={}", server.token);
    let cases: &[Case<'_>] = &[
        ("all right", 200, "GET /api/walks", &[h, t]),
        ("by name", 200, "GET /api/walks", &[("Host", &by_name), t]),
        ("own origin", 200, "GET /api/walks", &[h, t, ("Origin", &own_origin)]),
        ("foreign host", 403, "GET /api/walks", &[("Host", "evil.example"), t]),
        (
            "foreign host with the port",
            403,
            "GET /api/walks",
            &[("Host", &format!("evil.example:{}", server.port)), t],
        ),
        ("other port", 403, "GET /api/walks", &[("Host", &other_port), t]),
        ("two hosts", 403, "GET /api/walks", &[h, ("Host", "evil.example"), t]),
        ("no host", 403, "GET /api/walks", &[t]),
        ("proxy's host", 403, &format!("GET http://evil.example:{}/api/walks", server.port), &[h, t]),
        ("foreign origin", 403, "GET /api/walks", &[h, t, ("Origin", "http://evil.example")]),
        ("no origin", 403, "GET /api/walks", &[h, t, ("Origin", "null")]),
        ("origin by TLS", 403, "GET /api/walks", &[h, t, ("Origin", &tls_origin)]),
        ("no token", 403, "GET /api/walks", &[h]),
        ("no token for the page", 403, "GET /", &[h]),
        ("wrong token", 403, "GET /api/walks", &[h, ("X-Podlab-Token", &wrong)]),
        ("half a token", 403, "GET /api/walks", &[h, ("X-Podlab-Token", &server.token[..32])]),
        ("empty token", 403, "GET /api/walks", &[h, ("X-Podlab-Token", "")]),
        ("token in the address", 403, &query, &[h]),
        ("trace by GET", 403, "GET /api/trace", &[h, t]),
        ("verify by GET", 403, "GET /api/verify", &[h, t]),
        ("break by GET", 403, "GET /api/break?fault=masq-all", &[h, t]),
        ("heal by GET", 403, "GET /api/heal?all=true", &[h, t]),
        ("lesson by GET", 403, "GET /api/lessons/bridge/start", &[h, t]),
        ("page by POST", 403, "POST /", &[h, t]),
        ("foreign preflight", 403, "OPTIONS /api/break", &[h, ("Origin", "http://evil.example")]),
        ("HEAD", 403, "HEAD /api/walks", &[h, t]),
        ("nothing there", 404, "GET /etc/passwd", &[h, t]),
        ("a way up", 404, "GET /api/walks/../../../../etc/passwd", &[h, t]),
        ("a hidden way up", 404, "GET /api/walks/%2e%2e%2f%2e%2e%2fetc%2fpasswd", &[h, t]),
        ("no such walk", 404, "GET /api/walks/nothing", &[h, t]),
        ("no packets yet", 404, "GET /api/trace.pcapng", &[h, t]),
        ("no such lesson", 404, "GET /api/lessons/nothing?lang=ko", &[h, t]),
        ("a language that is not there", 400, "GET /api/lessons?lang=xx", &[h, t]),
        ("no lab", 409, "GET /api/lab", &[h, t]),
    ];
    for (what, status, line, headers) in cases {
        let answer = server.raw(line, headers, "")?;
        assert_eq!(answer.status, *status, "{what}: {}", String::from_utf8_lossy(&answer.body));
        // Every answer says what may be done with it, the refusals too.
        let policy = answer.header("content-security-policy").unwrap_or_default();
        ensure!(
            policy.starts_with("default-src 'none'; script-src ") && !policy.contains("unsafe"),
            "{what}: {policy}"
        );
        for part in ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "connect-src 'self'"]
        {
            ensure!(policy.contains(part), "{what}: {policy}");
        }
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{what}");
        }
        ensure!(answer.header("access-control-allow-origin").is_none(), "{what}");
        if *status != 200 && *what != "HEAD" {
            ensure!(answer.json()?["error"].as_str().is_some_and(|it| it.len() > 10), "{what}");
        }
        ensure!(!String::from_utf8_lossy(&answer.body).contains(&server.token), "{what} tells the token");
    }
    let page = server.raw(&format!("GET /?token={}", server.token), &[h], "")?;
    assert_eq!(page.status, 200);
    Ok(())
}

#[test]
fn large_slow_and_broken_requests_do_no_harm() -> Result<()> {
    let server = Server::start(&["--name", "e2e-serve-none"])?;
    let large = server.post("/api/trace", &json!({ "from": "x".repeat(100_000), "to": "y" }))?;
    assert_eq!(large.status, 400, "{}", String::from_utf8_lossy(&large.body));
    let head =
        format!("GET / HTTP/1.1\r\nHost: {}\r\nX-Large: {}\r\n\r\n", server.host(), "x".repeat(100_000));
    // The server may have closed before all of it was sent.
    if let Ok(answer) = server.send(head.as_bytes()) {
        ensure!(answer.status >= 400, "{}", answer.head);
    }
    for nonsense in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        let mut stream = server.connect()?;
        stream.write_all(nonsense)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        // A reset is an answer too.
        let _ = kernel::uninterrupted(|| stream.read_to_end(&mut answer));
        ensure!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{answer:?}");
    }
    // Some say half a head, some half a body, and wait; the others are answered meanwhile.
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut stream = server.connect()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: ")?;
        waiting.push(stream);
        let mut stream = server.connect()?;
        let (host, token) = (server.host(), &server.token);
        let head = format!(
            "POST /api/trace HTTP/1.1\r\nHost: {host}\r\nX-Podlab-Token: {token}\r\nContent-Length: 99\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes())?;
        waiting.push(stream);
    }
    assert_eq!(server.get("/api/walks")?.status, 200);
    // And they do not wait for ever.
    for mut stream in waiting {
        let mut rest = Vec::new();
        kernel::uninterrupted(|| stream.read_to_end(&mut rest)).context("the server keeps a slow client")?;
    }
    assert_eq!(server.get("/api/walks")?.status, 200);
    Ok(())
}

/// The document that a page begins with.
fn boot(page: &str) -> Result<Value> {
    let start = "<script type=\"application/json\" id=\"podlab-boot\">";
    let text =
        page.split_once(start).and_then(|(_, rest)| rest.split_once("</script>")).context("no document")?;
    Ok(serde_json::from_str(text.0)?)
}

#[test]
fn recorded_walks_open_without_a_lab_and_without_root() -> Result<()> {
    // An ordinary user's copy, as the directory of this build may be closed to others.
    let dir = tempfile::tempdir()?;
    let copy = dir.path().join("podlab");
    std::fs::copy(podnet_tests::plugins::podlab()?, &copy)?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::clone(&open))?;
    std::fs::set_permissions(&copy, open)?;
    let mut program = Command::new("setpriv");
    program.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).args([
        "serve",
        "--name",
        "e2e-serve-none",
    ]);
    let server = Server::run(program)?;
    let page = server.raw(&format!("GET /?token={}", server.token), &[("Host", &server.host())], "")?;
    let page = String::from_utf8(page.body)?;
    let boot = boot(&page)?;
    assert_eq!((&boot["live"], &boot["name"]), (&json!(false), &json!("e2e-serve-none")));
    ensure!(
        page.contains("<caption>") && page.contains("<th scope=\"row\">"),
        "no table for readers without scripts"
    );
    let walks = boot["walks"].as_array().context("no walks")?;
    ensure!(walks.len() >= 6, "{walks:?}");
    assert_eq!(server.get("/api/walks")?.json()?["walks"], boot["walks"]);
    for walk in walks {
        let id = walk["id"].as_str().context("no id")?;
        ensure!(walk["title"]["en"].is_string() && walk["title"]["ko"].is_string(), "{walk}");
        let document = server.get(&format!("/api/walks/{id}"))?.json()?;
        assert_eq!(judge(&document)?, "", "{id}");
    }
    let faults = server.get("/api/faults")?.json()?;
    assert_eq!(judge(&faults)?, "");
    ensure!(faults["faults"].as_array().is_some_and(|all| all.len() >= 20));
    assert_eq!(server.post("/api/break", &json!({ "fault": "masq-all" }))?.status, 409);
    Ok(())
}

#[test]
fn a_live_lab_is_broken_seen_and_healed_through_the_page() -> Result<()> {
    let lab = Lab::up("serve-live", &["--nodes", "2", "--pods", "2"])?;
    let server = Server::start(&["--name", &lab.name])?;
    let mut events = server.connect()?;
    let line = format!("GET /api/events?token={} HTTP/1.1\r\nHost: {}\r\n\r\n", server.token, server.host());
    events.write_all(line.as_bytes())?;
    let page = server.raw(&format!("GET /?token={}", server.token), &[("Host", &server.host())], "")?;
    let boot = boot(&String::from_utf8(page.body)?)?;
    assert_eq!(
        (&boot["live"], &boot["name"], &boot["mode"]),
        (&json!(true), &json!(lab.name), &json!("routed"))
    );

    let document = server.get("/api/lab")?.json()?;
    assert_eq!(judge(&document)?, "");
    assert_eq!(document["pods"].as_array().map(Vec::len), Some(4));
    let picture = server.get("/api/picture.svg?show=kubia-1%2Ckubia-3")?;
    assert_eq!(picture.header("content-type"), Some("image/svg+xml"));
    let drawn = super::graph::read(&picture.body)?;
    assert_eq!(drawn["ats"].as_array().map(Vec::len), document["links"].as_array().map(Vec::len));
    assert_eq!(server.get("/api/picture.svg?show=nobody")?.status, 400);

    let walk = server.post(
        "/api/trace",
        &json!({ "from": "kubia-1", "to": "kubia-3", "protocol": "icmp", "hooks": true }),
    )?;
    let walk = walk.json()?;
    assert_eq!(judge(&walk)?, "");
    assert_eq!(
        (&walk["trace"]["ruling"], &walk["again"]),
        (&json!("PASS"), &json!("podlab trace kubia-1 kubia-3 --proto icmp --hooks"))
    );
    let packets = server.get("/api/trace.pcapng")?;
    assert_eq!(packets.body.get(..4), Some(&[0x0a, 0x0d, 0x0d, 0x0a][..]), "no section header block");
    for wrong in [
        json!({ "from": "kubia-1" }),
        json!({ "from": "kubia-1", "to": "kubia-9" }),
        json!({ "from": "kubia-1", "to": "kubia-3", "x": 1 }),
    ] {
        let refused = server.post("/api/trace", &wrong)?;
        ensure!(refused.status == 400 && refused.json()?["error"].is_string(), "{wrong}: {}", refused.status);
    }

    let verify = |wanted: &Value| -> Result<Value> {
        let report = server.post("/api/verify", wanted)?.json()?;
        assert_eq!(judge(&report)?, "");
        Ok(report["failed"].clone())
    };
    let cross = json!({ "checks": ["cross-node"] });
    assert_eq!(verify(&cross)?, json!(0));
    assert_eq!(server.post("/api/verify", &json!({ "checks": ["nothing"] }))?.status, 400);
    let broken = server.post("/api/break", &json!({ "fault": "route-missing", "on": "node1 node2" }))?;
    assert_eq!(broken.status, 200, "{}", String::from_utf8_lossy(&broken.body));
    let broken = broken.json()?;
    assert_eq!(judge(&broken)?, "");
    assert_eq!(broken["broken"]["target"], "node1 node2");
    ensure!(verify(&cross)?.as_u64() > Some(0), "what is broken is not seen");
    let active = server.get("/api/faults")?.json()?;
    assert_eq!(active["active"][0]["fault"], "route-missing");
    let matrix = server.get("/api/heatmap.svg")?;
    ensure!(String::from_utf8_lossy(&matrix.body).contains("<path class=\"fail\""), "{}", matrix.status);
    let healed = server.post("/api/heal", &json!({ "id": broken["broken"]["number"] }))?.json()?;
    assert_eq!(healed["healed"].as_array().map(Vec::len), Some(1));
    assert_eq!(verify(&cross)?, json!(0));
    let sampled = server.get("/api/heatmap.svg?sample=4")?;
    ensure!(String::from_utf8_lossy(&sampled.body).contains("4 passed, 0 failed"), "{}", sampled.status);
    for wrong in [json!({}), json!({ "id": 1, "all": true }), json!({ "id": "nothing" })] {
        assert_eq!(server.post("/api/heal", &wrong)?.status, 400, "{wrong}");
    }

    let wanted =
        ["route 10.244.2.0/24 via 192.0.2.12 was deleted", "route 10.244.2.0/24 via 192.0.2.12 was added"];
    let seen = events_until(events, &wanted)?;
    for event in &seen {
        assert_eq!(judge(event)?, "", "{event}");
    }
    Ok(())
}

/// What the page's buttons of a lesson do: its lab comes up broken and is what the page shows, the check is red until it is solved.
#[test]
fn a_lesson_is_taken_through_the_page() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let lab = Lab { name: format!("e2e-serve-lesson-{}", std::process::id()) };
    let state = dir.path().join("lessons.json");
    let state = state.to_str().context("path")?;
    let server =
        Server::start(&["--name", "e2e-serve-none", "--lesson-state", state, "--lesson-lab", &lab.name])?;
    let said = |answer: super::http::Answer| -> Result<Value> {
        let document = answer.json()?;
        assert_eq!((answer.status, judge(&document)?.as_str()), (200, ""), "{document}");
        Ok(document)
    };
    let titles = |lang: &str| -> Result<Vec<String>> {
        let all = said(server.get(&format!("/api/lessons?lang={lang}"))?)?;
        let all = all["lessons"].as_array().context("no lessons")?.clone();
        Ok(all.iter().filter_map(|it| it["title"].as_str()).map(str::to_owned).collect())
    };
    let (english, korean) = (titles("en")?, titles("ko")?);
    assert_eq!((english.len(), korean.len()), (12, 12));
    ensure!(english.iter().zip(&korean).all(|(here, there)| here != there), "{english:?} {korean:?}");
    let shown = said(server.get("/api/lessons/7?lang=ko")?)?;
    assert_eq!((&shown["id"], &shown["lang"]), (&json!("no-nat"), &json!("ko")));

    assert_eq!(server.get("/api/lab")?.status, 409, "there is no lab yet");
    let post = |verb: &str| said(server.post(&format!("/api/lessons/no-nat/{verb}?lang=en"), &json!({}))?);
    let step = post("start")?;
    assert_eq!((&step["state"], &step["lab"]), (&json!("broken"), &json!(lab.name)));
    assert_eq!(said(server.get("/api/lab")?)?["name"], lab.name);
    assert_eq!(post("check")?["passed"], false);
    assert_eq!(post("hint")?["hint"]["number"], 1);
    post("solve")?;
    assert_eq!(post("check")?["passed"], true);
    Ok(())
}

/// Reads events until all that is wanted was among them.
fn events_until(stream: TcpStream, wanted: &[&str]) -> Result<Vec<Value>> {
    let (start, mut seen) = (Instant::now(), Vec::<Value>::new());
    let mut lines = BufReader::new(stream);
    while !wanted.iter().all(|what| seen.iter().any(|event| event["what"] == *what)) {
        ensure!(start.elapsed() < DEADLINE, "{wanted:?} is not among {seen:?}");
        let mut line = String::new();
        kernel::uninterrupted(|| lines.read_line(&mut line))?;
        if let Some(text) = line.trim().strip_prefix("data: ") {
            seen.push(serde_json::from_str(text)?);
        }
    }
    Ok(seen)
}

#[test]
fn a_walk_becomes_one_file_that_asks_for_nothing() -> Result<()> {
    let lab = Lab::up("export", &["--nodes", "3", "--pods", "10", "--mode", "vxlan"])?;
    let dir = tempfile::tempdir()?;
    let (html, walk) = (dir.path().join("walk.html"), dir.path().join("walk.json"));
    let (html_path, walk_path) = (html.to_str().context("path")?, walk.to_str().context("path")?);
    let args = [
        "kubia-1",
        "kubia-11:8080",
        "--hooks",
        "--title",
        "A <walk>",
        "--html",
        html_path,
        "--walk",
        walk_path,
    ];
    let output = lab.podlab("export", &args)?;
    ensure!(output.status.success(), "{}", text(&output));
    let none = lab.podlab("export", &["kubia-1", "kubia-11"])?;
    assert_eq!(none.status.code(), Some(2), "{}", text(&none));
    let page = std::fs::read_to_string(&html)?;
    ensure!(page.len() <= 1_500_000, "{} bytes", page.len());
    let boot = boot(&page)?;
    assert_eq!((&boot["live"], &boot["file"]), (&json!(false), &json!(true)));
    let document: Value = serde_json::from_slice(&std::fs::read(&walk)?)?;
    assert_eq!(boot["walk"], document);
    assert_eq!(judge(&document)?, "");
    assert_eq!(document["title"], "A <walk>");
    for part in ["lab", "trace"] {
        assert_eq!(judge(&document[part])?, "", "{part}");
    }
    // A table row for every hop, and a policy that lets nothing be fetched.
    let walks = document["trace"]["walks"].as_array().context("no walks")?;
    let hops: usize = walks.iter().filter_map(|walk| walk["hops"].as_array()).map(Vec::len).sum();
    assert_eq!(page.matches("<th scope=\"row\">").count(), hops);
    ensure!(
        page.contains("content=\"default-src 'none'; ") && page.contains("connect-src 'none'"),
        "no policy"
    );
    // A namespace is a name, not an address to fetch from.
    let outside = page.replace("http://www.w3.org/", "");
    ensure!(
        !outside.contains(" src=") && !outside.contains("<link") && !outside.contains("@import"),
        "something is fetched"
    );
    lab.podlab("down", &["-q"])?;
    // The packets in it are those that were seen.
    let packets = dir.path().join("walk.pcapng");
    let decode = format!(
        "import base64, json; open({:?}, 'wb').write(base64.b64decode(json.load(open({walk_path:?}))['pcapng']))",
        packets.display()
    );
    ensure!(Command::new("/usr/bin/python3").args(["-c", &decode]).status()?.success());
    let bytes = std::fs::read(&packets)?;
    ensure!(
        bytes.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a])
            && bytes.windows(11).any(|it| it == b"node1/cni0\0" || it == b"kubia-1/eth")
    );

    let server = Server::start(&["--name", "e2e-serve-none", "--from", walk_path])?;
    let first = server.get("/api/walks")?.json()?["walks"][0].clone();
    assert_eq!((&first["id"], &first["title"]["ko"]), (&json!("1-walk"), &json!("A <walk>")));
    assert_eq!(server.get("/api/walks/1-walk")?.json()?, document);
    std::fs::write(&walk, "{}")?;
    let refused = podlab(&["serve", "--from", walk_path])?;
    ensure!(
        refused.status.code() == Some(2) && text(&refused).contains("no document of podlab export --walk"),
        "{}",
        text(&refused)
    );
    Ok(())
}
