//! What happens in the lab, as Server-Sent Events (HTML, section 9.2): the changes that its supervisor hears of, and the
//! number of active faults when it changes.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;

use crate::control::{Client, Request};

/// How often the lab is asked.
const PACE: Duration = Duration::from_millis(250);
/// After so many turns without an event a line says that the connection is still there: only writing finds out that a
/// client has gone.
const QUIET_TURNS: u32 = 40;

/// Sends events until the client is gone. A lab that is not up yet is waited for.
pub(super) fn run(lab: &str, events: &Sender<String>) {
    let mut client: Option<Client> = None;
    let (mut seen, mut faults) = (0, None);
    let mut quiet = 0;
    if events.blocking_send(": the events of the lab follow\n\n".to_owned()).is_err() {
        return;
    }
    loop {
        if client.is_none() {
            client = Client::connect(lab).ok();
            // A lab that is made anew counts from the beginning.
            (seen, faults) = (0, None);
        }
        let told = client.as_mut().map(|client| client.ask(&Request::Changes { seen }, &mut |_, _| {}));
        let mut new: Vec<Value> = Vec::new();
        match told {
            Some(Ok(told)) => {
                new.extend(told["changes"].as_array().cloned().unwrap_or_default());
                seen = told["seen"].as_u64().unwrap_or(seen);
                let active = told["faults"].as_u64();
                if faults.is_some() && active != faults {
                    new.push(json!({ "what": "active faults", "faults": active }));
                }
                faults = active;
            }
            Some(Err(_)) => client = None,
            None => {}
        }
        quiet = if new.is_empty() { quiet + 1 } else { 0 };
        let lines = new.into_iter().map(|mut event| {
            event["schema"] = "podlab.event/1".into();
            format!("data: {event}\n\n")
        });
        let beat = (quiet >= QUIET_TURNS).then(|| ":\n\n".to_owned());
        for line in lines.chain(beat) {
            quiet = 0;
            if events.blocking_send(line).is_err() {
                return;
            }
        }
        std::thread::sleep(PACE);
        if events.is_closed() {
            return;
        }
    }
}
