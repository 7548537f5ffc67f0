//! The walks of a trace as tables of HTML: to be read without scripts, by screen readers too (WCAG 2.2, 1.3.1).

use serde_json::Value;

use crate::suites::xml as escape;

const HEAD: [&str; 8] = ["#", "Where", "Direction", "Source", "Destination", "TTL", "Changed", "Why"];

/// A table for each packet of the document of `podlab trace`, and the verdict below.
pub fn table(trace: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut out = String::new();
    for walk in trace["walks"].as_array().into_iter().flatten() {
        let caption = format!(
            "{}, {} {} to {}",
            text(&walk["packet"]),
            text(&walk["way"]),
            text(&trace["source"]),
            text(&trace["target"])
        );
        out.push_str(&format!(
            "<table class=\"hops\">\n<caption>{}</caption>\n<thead><tr>",
            escape(&caption)
        ));
        HEAD.iter().for_each(|head| out.push_str(&format!("<th scope=\"col\">{head}</th>")));
        out.push_str("</tr></thead>\n<tbody>\n");
        for hop in walk["hops"].as_array().into_iter().flatten() {
            let changes = hop["changed"].as_array().into_iter().flatten();
            let changed: Vec<String> = changes
                .map(|change| {
                    format!(
                        "{}: {} to {}",
                        text(&change["field"]),
                        text(&change["from"]),
                        text(&change["to"])
                    )
                })
                .collect();
            let cells = [
                format!("{}/{}", text(&hop["space"]), text(&hop["interface"])),
                text(&hop["direction"]),
                text(&hop["source"]),
                text(&hop["target"]),
                text(&hop["ttl"]),
                changed.join("; "),
                text(&hop["why"]),
            ];
            out.push_str(&format!("<tr><th scope=\"row\">{}</th>", escape(&text(&hop["number"]))));
            cells.iter().for_each(|cell| out.push_str(&format!("<td>{}</td>", escape(cell))));
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n");
    }
    out + &format!(
        "<p class=\"verdict\">{}: {}</p>\n",
        escape(&text(&trace["ruling"])),
        escape(&text(&trace["verdict"]))
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_hop_is_a_row_and_no_text_is_markup() {
        let hop = json!({
            "number": 1, "space": "kubia-1", "interface": "eth0", "direction": "out", "source": "10.244.1.2:40000",
            "target": "10.244.2.2:8080", "ttl": 64, "why": "<b>",
            "changed": [{ "field": "TTL", "from": "64", "to": "63" }],
        });
        let walk = json!({ "packet": "SYN", "way": "request", "hops": [hop.clone(), hop] });
        let trace = json!({ "source": "kubia-1", "target": "<i>", "ruling": "PASS", "verdict": "no NAT", "walks": [walk] });
        let html = table(&trace);
        assert_eq!(
            (html.matches("<th scope=\"row\">").count(), html.matches("<th scope=\"col\">").count()),
            (2, 8)
        );
        assert!(html.contains("<caption>SYN, request kubia-1 to &lt;i&gt;</caption>"), "{html}");
        assert!(
            html.contains("<td>TTL: 64 to 63</td><td>&lt;b&gt;</td>") && html.contains("PASS: no NAT"),
            "{html}"
        );
    }
}
