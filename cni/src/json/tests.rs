//! How documents map to types: the rules of Go's encoding/json, one test each.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Json, field, from_slice};

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Net {
    name: String,
    is_gateway: bool,
    mtu: i64,
    scope: Option<u8>,
    ipam: Ipam,
    sysctl: BTreeMap<String, String>,
    routes: Option<Vec<Route>>,
    sizes: Vec<u32>,
    rate: f64,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Ipam {
    r#type: String,
    #[serde(rename = "kSubnet")]
    subnet: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Route {
    dst: String,
    gw: Option<String>,
}

fn net(text: &str) -> Net {
    from_slice(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    from_slice::<Net>(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn keys_match_in_any_case_and_by_simple_folding() {
    for key in ["isGateway", "ISGATEWAY", "isgateway", "IsGateway", "i\u{17f}Gateway"] {
        assert!(net(&format!("{{{key:?}:true}}")).is_gateway, "{key}");
    }
    for key in ["kSubnet", "KSUBNET", "\u{212a}\u{17f}ubnet", "ksubnet"] {
        assert_eq!(net(&format!("{{\"IPAM\":{{\"{key}\":\"x\"}}}}")).ipam.subnet, "x", "{key}");
    }
    for key in ["is_gateway", "isGateway ", "ısGateway", "is-gateway"] {
        assert!(!net(&format!("{{{key:?}:true}}")).is_gateway, "{key}");
    }
}

#[test]
fn the_later_spelling_wins_and_objects_are_merged() {
    assert_eq!(net(r#"{"name":"a","NAME":"b","Name":"c"}"#).name, "c");
    assert_eq!(net(r#"{"NAME":"b","name":"a"}"#).name, "a");
    let merged = net(r#"{"ipam":{"type":"a","ksubnet":"x"},"IPAM":{"TYPE":"b"}}"#).ipam;
    assert_eq!(merged, Ipam { r#type: "b".into(), subnet: "x".into() });
    assert_eq!(net(r#"{"sizes":[1,2,3],"Sizes":[4]}"#).sizes, [4]);
    let sysctl = net(r#"{"sysctl":{"a":"1","b":"1"},"SYSCTL":{"b":"2","B":"3"}}"#).sysctl;
    let expected = [("B", "3"), ("a", "1"), ("b", "2")];
    assert!(sysctl.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(expected));
}

#[test]
fn keys_of_maps_stay_as_written() {
    let map: BTreeMap<String, u8> =
        from_slice(r#"{"K":1,"k":2,"net.ipv4.conf.IFNAME/x":3}"#.as_bytes()).unwrap();
    assert_eq!(map.keys().collect::<Vec<_>>(), ["K", "k", "net.ipv4.conf.IFNAME/x"]);
}

#[test]
fn null_leaves_the_default_or_empties() {
    let text = r#"{"name":null,"isGateway":null,"mtu":null,"scope":null,"ipam":null,"sysctl":null,
        "routes":null,"sizes":null,"rate":null}"#;
    assert_eq!(net(text), Net::default());
    assert_eq!(net("null"), Net::default());
    assert_eq!(net(r#"{"name":"a","NAME":null}"#).name, "a");
    assert_eq!(net(r#"{"ipam":{"type":"a"},"ipam":null}"#).ipam.r#type, "a");
    assert_eq!(net(r#"{"scope":1,"scope":null}"#).scope, None);
    assert_eq!(net(r#"{"scope":null,"scope":1}"#).scope, Some(1));
    assert_eq!(net(r#"{"sizes":[1],"sizes":null}"#).sizes, [0; 0]);
    assert_eq!(net(r#"{"sysctl":{"a":"1"},"sysctl":null,"sysctl":{"b":"2"}}"#).sysctl.len(), 1);
    assert_eq!(
        net(r#"{"routes":[null,{"dst":"x","gw":null}]}"#).routes.unwrap(),
        [Route::default(), Route { dst: "x".into(), gw: None },]
    );
    assert_eq!(net(r#"{"sizes":[null,7]}"#).sizes, [0, 7]);
}

#[test]
fn absent_and_empty_lists_differ_in_options() {
    assert_eq!(net("{}").routes, None);
    assert_eq!(net(r#"{"routes":[]}"#).routes, Some(vec![]));
}

#[test]
fn unknown_keys_are_passed_over_whatever_they_hold() {
    assert_eq!(net(r#"{"future":{"deep":[1,{"x":null}]},"name":"n","":0}"#).name, "n");
}

#[test]
fn integers_must_be_written_as_integers_in_range() {
    assert_eq!(net(r#"{"mtu":-9223372036854775808}"#).mtu, i64::MIN);
    assert_eq!(net(r#"{"scope":255,"rate":1e2}"#).rate, 100.0);
    let table = [
        (r#"{"mtu":1500.0}"#, "number 1500.0"),
        (r#"{"mtu":1e3}"#, "number 1e3"),
        (r#"{"mtu":9223372036854775808}"#, "number 9223372036854775808"),
        (r#"{"mtu":"1500"}"#, "string \"1500\""),
        (r#"{"mtu":true}"#, "true"),
        (r#"{"mtu":[]}"#, "an array"),
    ];
    for (text, found) in table {
        let expected = format!(
            "key \"mtu\": expected an integer from -9223372036854775808 to 9223372036854775807, found {found}"
        );
        assert_eq!(error(text), expected);
    }
    assert_eq!(
        error(r#"{"scope":256}"#),
        "key \"scope\": expected an integer from 0 to 255, found number 256"
    );
    assert_eq!(error(r#"{"scope":-1}"#), "key \"scope\": expected an integer from 0 to 255, found number -1");
}

#[test]
fn a_mismatch_names_key_expectation_and_what_stood_there() {
    let table = [
        (r#"{"Name":5}"#, "key \"name\": expected a string, found number 5"),
        (r#"{"ISGATEWAY":"yes"}"#, "key \"isGateway\": expected true or false, found string \"yes\""),
        (r#"{"ipam":{"TYPE":{}}}"#, "key \"ipam.type\": expected a string, found an object"),
        (r#"{"ipam":[]}"#, "key \"ipam\": expected an object, found an array"),
        (r#"{"routes":[{},{"dst":1}]}"#, "key \"routes[1].dst\": expected a string, found number 1"),
        (r#"{"routes":{}}"#, "key \"routes\": expected an array, found an object"),
        (r#"{"sysctl":{"a.b":1}}"#, "key \"sysctl.a.b\": expected a string, found number 1"),
        (r#"{"rate":"x"}"#, "key \"rate\": expected a number, found string \"x\""),
        (r#"{"rate":1e999}"#, "key \"rate\": expected a number, found number 1e999"),
        // An earlier spelling must fit too.
        (r#"{"name":5,"name":"x"}"#, "key \"name\": expected a string, found number 5"),
        (r#"{"ipam":5,"ipam":{}}"#, "key \"ipam\": expected an object, found number 5"),
        ("[]", "expected an object, found an array"),
        ("\"x\"", "expected an object, found string \"x\""),
    ];
    for (text, expected) in table {
        assert_eq!(error(text), expected, "{text}");
    }
    let long = format!("{{\"mtu\":\"{}\"}}", "x".repeat(1000));
    assert!(error(&long).len() < 200);
}

#[test]
fn required_keys_are_named_when_missing() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Strict {
        subnet: String,
    }
    assert_eq!(from_slice::<Strict>(b"{}").unwrap_err().to_string(), "key \"subnet\": missing");
    assert_eq!(from_slice::<Vec<Strict>>(b"[{}]").unwrap_err().key(), Some("[0].subnet"));
}

#[test]
fn any_value_and_enums_are_read() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Bridge,
        Private,
    }
    assert_eq!(from_slice::<Vec<Mode>>(br#"["private","bridge"]"#), Ok(vec![Mode::Private, Mode::Bridge]));
    assert!(from_slice::<Mode>(br#""Bridge""#).is_err());
    let any: serde_json::Value =
        from_slice(br#"{"a":[1,-1,1.5,"x",null,true],"a":{"b":18446744073709551615}}"#).unwrap();
    assert_eq!(any, serde_json::json!({"a": {"b": u64::MAX}}));
}

#[test]
fn field_finds_the_last_spelling() {
    let find = |text: &str| field(&Json::parse(text.as_bytes()).unwrap(), "prevResult").cloned();
    assert_eq!(find(r#"{"prevResult":1,"PREVRESULT":2,"x":3}"#), Some(Json::Number("2".into())));
    assert_eq!(find(r#"{"prevResult":1,"prevresult":null}"#), None);
    assert_eq!(find("{}"), None);
    assert_eq!(find("[]"), None);
}
