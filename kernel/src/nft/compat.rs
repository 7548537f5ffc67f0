//! Matches and targets of xtables as iptables-nft stores them, understood as far as finding one's own rules needs.

use super::dump::RuleInfo;
use super::expr::Expr;
use crate::wire;

/// `XT_MAX_COMMENT_LEN` (linux/netfilter/xt_comment.h)
const COMMENT_LEN: usize = 256;

/// The comment of a rule that iptables-nft made: of its match `comment`, or where newer ones write it, in user data.
pub fn comment(rule: &RuleInfo) -> Option<String> {
    let of_match = rule.expressions.iter().find_map(|e| match e {
        Expr::Match { name, info, .. } if name == "comment" => {
            Some(wire::to_text(&info[..info.len().min(COMMENT_LEN)]))
        }
        _ => None,
    });
    of_match.or_else(|| rule.userdata.text().map(str::to_owned))
}

/// The match `comment` (`struct xt_comment_info`).
pub fn comment_match(text: &str) -> Expr {
    let mut info = vec![0; COMMENT_LEN];
    let len = text.len().min(COMMENT_LEN - 1);
    info[..len].copy_from_slice(&text.as_bytes()[..len]);
    Expr::Match { name: "comment".into(), revision: 0, info }
}
