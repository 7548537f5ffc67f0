//! Expressions as the kernel dumps them, read back into [`Expr`].

use super::attr;
use super::expr::{Base, Ct, Expr, Fib, Meta, Op, Reg, Verdict};
use crate::error::Cause;
use crate::wire;

/// The attributes of one nest by their number; absent ones are empty.
struct Fields<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Result<Fields<'a>, Cause> {
        let mut all = Vec::with_capacity(6);
        wire::attributes(bytes, |kind, value| all.push((kind, value)))?;
        Ok(Fields(all))
    }

    fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.0.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value)
    }

    fn u32(&self, kind: u16) -> Option<u32> {
        self.get(kind).and_then(attr::to_u32)
    }

    fn number(&self, kind: u16) -> u32 {
        self.u32(kind).unwrap_or(0)
    }

    fn u64(&self, kind: u16) -> u64 {
        self.get(kind).and_then(attr::to_u64).unwrap_or(0)
    }

    fn reg(&self, kind: u16) -> Option<Reg> {
        self.u32(kind).map(Reg)
    }

    fn text(&self, kind: u16) -> String {
        self.get(kind).map(wire::to_text).unwrap_or_default()
    }

    /// NFTA_DATA_VALUE within an attribute.
    fn value(&self, kind: u16) -> Result<Vec<u8>, Cause> {
        let mut found = Vec::new();
        wire::attributes(self.get(kind).unwrap_or(&[]), |kind, value| {
            if kind == 1 {
                found = value.to_vec();
            }
        })?;
        Ok(found)
    }
}

/// The list in NFTA_RULE_EXPRESSIONS.
pub(crate) fn expressions(bytes: &[u8]) -> Result<Vec<Expr>, Cause> {
    let mut elements = Vec::new();
    wire::attributes(bytes, |kind, value| {
        if kind == 1 {
            elements.push(value);
        }
    })?;
    elements.into_iter().map(expression).collect()
}

/// One NFTA_LIST_ELEM.
pub(crate) fn expression(bytes: &[u8]) -> Result<Expr, Cause> {
    let outer = Fields::of(bytes)?;
    let name = outer.text(1);
    let data = outer.get(2).unwrap_or(&[]);
    let f = Fields::of(data)?;
    let absent = || wire::malformed(format_args!("expression {name:?} without a register"));
    let need = |kind| f.reg(kind).ok_or_else(absent);
    Ok(match name.as_str() {
        "meta" => match f.reg(3) {
            Some(sreg) => Expr::MetaSet { key: Meta::from_number(f.number(2)), sreg },
            None => Expr::Meta { key: Meta::from_number(f.number(2)), dreg: need(1)? },
        },
        "ct" => match f.reg(4) {
            Some(sreg) => Expr::CtSet { key: Ct::from_number(f.number(2)), sreg },
            None => Expr::Ct {
                key: Ct::from_number(f.number(2)),
                dreg: need(1)?,
                direction: f.get(3).and_then(wire::to_u8),
            },
        },
        // With a source register it writes to the packet, which this crate does not.
        "payload" if f.get(5).is_none() => Expr::Payload {
            base: Base::from_number(f.number(2)),
            offset: f.number(3),
            len: f.number(4),
            dreg: need(1)?,
        },
        "cmp" => Expr::Cmp { sreg: need(1)?, op: Op::from_number(f.number(2)), data: f.value(3)? },
        "range" => Expr::Range {
            sreg: need(1)?,
            op: Op::from_number(f.number(2)),
            from: f.value(3)?,
            to: f.value(4)?,
        },
        // Operation 0 is mask and xor; the others shift.
        "bitwise" if f.number(6) == 0 => {
            Expr::Bitwise { sreg: need(1)?, dreg: need(2)?, mask: f.value(4)?, xor: f.value(5)? }
        }
        "immediate" if f.number(1) == 0 => {
            let mut verdict = Ok(Verdict::Continue);
            wire::attributes(f.get(2).unwrap_or(&[]), |kind, value| {
                if kind == 2 {
                    verdict = Verdict::read(value);
                }
            })?;
            Expr::Verdict(verdict?)
        }
        "immediate" => Expr::Immediate { dreg: need(1)?, data: f.value(2)? },
        "lookup" => Expr::Lookup {
            set: f.text(1),
            sreg: need(2)?,
            dreg: f.reg(3).filter(|reg| reg.0 != 0),
            to_verdict: f.u32(3) == Some(0),
            invert: f.number(5) & 1 != 0,
        },
        "nat" => {
            // The kernel dumps two more flags, which say that address and port are given (NF_NAT_RANGE_MAP_IPS,
            // NF_NAT_RANGE_PROTO_SPECIFIED).
            let (family, addr, port, flags) = (f.number(2), f.reg(3), f.reg(5), f.number(7) & !3);
            match f.number(1) {
                0 => Expr::Snat { family, addr, port, flags },
                _ => Expr::Dnat { family, addr, port, flags },
            }
        }
        "masq" => Expr::Masquerade { flags: f.number(1) },
        "redir" => Expr::Redirect { port: f.reg(1), flags: f.number(3) },
        "fib" => Expr::Fib { result: Fib::from_number(f.number(2)), flags: f.number(3), dreg: need(1)? },
        "numgen" => Expr::Numgen {
            dreg: need(1)?,
            modulus: f.number(2),
            random: f.number(3) == 1,
            offset: f.number(4),
        },
        // Operation 2 deletes; the others may carry data, a time of their own or expressions.
        "dynset" if f.number(3) < 2 && [5, 7, 10].iter().all(|&kind| f.get(kind).is_none()) => {
            Expr::Dynset { set: f.text(1), key: need(4)?, update: f.number(3) == 1 }
        }
        "counter" => Expr::Counter { packets: f.u64(2), bytes: f.u64(1) },
        "limit" if f.number(4) == 0 && f.number(5) == 0 => {
            Expr::Limit { rate: f.u64(1), unit: f.u64(2), burst: f.number(3) }
        }
        "reject" => Expr::Reject { kind: f.number(1), code: f.get(2).and_then(wire::to_u8).unwrap_or(0) },
        "match" | "target" => {
            let (kind, revision) = (f.text(1), f.number(2));
            let info = f.get(3).unwrap_or(&[]).to_vec();
            if name == "match" {
                Expr::Match { name: kind, revision, info }
            } else {
                Expr::Target { name: kind, revision, info }
            }
        }
        _ => Expr::Other { name, data: data.to_vec() },
    })
}
