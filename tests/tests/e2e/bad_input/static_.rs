//! Keys of `static`: `facts/upstream.md` 2.11.

use super::{Bad, conf};

pub(super) fn cases() -> Vec<Bad> {
    let fixed =
        |name: &str, rest: &str| conf("static", name, format!(r#"{{"ipam":{{"type":"static",{rest}}}}}"#));
    let mut cases = vec![
        conf("static", "no ipam", "{}").says(7, "IPAM config missing 'ipam' key").same_words(),
        fixed(
            "two addresses of a family with version 0.2.0",
            r#""addresses":[{"address":"10.1.2.3/24"},{"address":"10.1.2.4/24"}]"#,
        )
        .version("0.2.0")
        .says(7, "CNI version 0.2.0 does not support more than 1 address per family")
        .same_words(),
        fixed("CHECK without prevResult", r#""addresses":[{"address":"10.1.2.3/24"}]"#)
            .verb("CHECK")
            .says(7, "Required prevResult missing")
            .same_words(),
        conf(
            "static",
            "CHECK with another gateway",
            r#"{"prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24","gateway":"10.1.2.9"}]},
                "ipam":{"type":"static","addresses":[{"address":"10.1.2.3/24","gateway":"10.1.2.1"}]}}"#,
        )
        .verb("CHECK")
        .says(999, "static: Failed to match addr"),
    ];
    for address in ["10.1.2.3", "nonsense", "10.1.2.3/33", "10.1.2.300/24", "2001:db8::1", ""] {
        cases.push(
            fixed(&format!("address {address:?}"), &format!(r#""addresses":[{{"address":"{address}"}}]"#))
                .says(7, "the 'address' field is expected to be in CIDR notation")
                .same_words(),
        );
    }
    for (name, rest, says) in [
        ("addresses is a text", r#""addresses":"10.1.2.3/24""#, "addresses"),
        ("addresses holds a text", r#""addresses":["10.1.2.3/24"]"#, "addresses"),
        ("address is a number", r#""addresses":[{"address":5}]"#, "address"),
        (
            "gateway is nonsense",
            r#""addresses":[{"address":"10.1.2.3/24","gateway":"nonsense"}]"#,
            "nonsense",
        ),
        ("gateway is a number", r#""addresses":[{"address":"10.1.2.3/24","gateway":5}]"#, "gateway"),
        ("routes is an object", r#""routes":{}"#, "routes"),
        ("a route is nonsense", r#""routes":[{"dst":"nonsense"}]"#, "nonsense"),
        ("dns is a text", r#""dns":"10.1.2.1""#, "dns"),
    ] {
        let code = if name == "gateway is nonsense" { 7 } else { 6 };
        cases.push(fixed(name, rest).says(code, says).other_words());
    }
    cases
}
