//! Text with a form of its own: times, quantities, base64. Each function says `None` where the text is as
//! upstream would print it again, else what upstream would print.

use crate::quantity::Quantity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};

type Read = Result<Option<String>, String>;

/// `metav1.Time`: whole seconds in UTC.
pub(crate) fn time(text: &str) -> Read {
    let b = text.as_bytes();
    let canonical = b.len() == 20 && b.last() == Some(&b'Z');
    let t = parse_time(text)?;
    Ok(if canonical { None } else { Some(seconds(t)) })
}

/// `metav1.MicroTime`: with six digits of a fraction, no more and no less.
pub(crate) fn micro_time(text: &str) -> Read {
    let t = parse_time(text)?;
    let fraction = text.get(19..).unwrap_or_default().bytes().skip(1).take_while(u8::is_ascii_digit).count();
    if text.as_bytes().get(19) != Some(&b'.') || fraction != 6 {
        let rest = text.get(19..).unwrap_or_default();
        return Err(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse {rest:?} as \".000000\""
        ));
    }
    let printed = micros(t);
    Ok(if printed == text { None } else { Some(printed) })
}

/// As `metav1.Time` prints it: seconds, cut off.
pub(crate) fn seconds(t: Timestamp) -> String {
    let whole = Timestamp::from_second(t.as_second() - i64::from(t.subsec_nanosecond() < 0)).unwrap_or(t);
    format!("{whole:.0}")
}

/// As `metav1.MicroTime` prints it.
pub(crate) fn micros(t: Timestamp) -> String {
    let nanos = t.subsec_nanosecond();
    let down = nanos.rem_euclid(1000);
    let t = t.checked_sub(SignedDuration::from_nanos(down.into())).unwrap_or(t);
    format!("{t:.6}")
}

/// 0000-01-01T00:00:00Z: an earlier year has no four digits, so that what is written could not be read again.
const FIRST: Timestamp = Timestamp::constant(-62_167_219_200, 0);

/// RFC 3339, as Go reads it.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let refuse = || {
        format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\"")
    };
    let b = text.as_bytes();
    // jiff reads more forms than RFC 3339 has
    let zone = match b.get(19..).unwrap_or_default() {
        [.., b'Z'] => 1,
        [.., b'+' | b'-', _, _, b':', _, _] => 6,
        _ => return Err(refuse()),
    };
    let digits = |i: usize| b.get(i).is_some_and(u8::is_ascii_digit);
    let shape = b.get(4) == Some(&b'-')
        && b.get(10) == Some(&b'T')
        && b.get(13) == Some(&b':')
        && digits(0)
        && digits(18);
    let fraction = b.get(19..b.len() - zone).unwrap_or_default();
    let fraction_ok = match fraction {
        [] => true,
        [b'.', rest @ ..] => !rest.is_empty() && rest.len() <= 9 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !shape || !fraction_ok {
        return Err(refuse());
    }
    text.parse().ok().filter(|t| *t >= FIRST).ok_or_else(refuse)
}

/// Seconds and nanoseconds, as protobuf has them.
pub(crate) fn from_parts(seconds: i64, nanos: i32) -> Option<Timestamp> {
    Timestamp::new(seconds, 0).ok()?.checked_add(SignedDuration::from_nanos(nanos.into())).ok()
}

/// Base64 with padding; Go skips line breaks.
pub(crate) fn base64(text: &str) -> Read {
    match STANDARD.decode(text) {
        Ok(_) => Ok(None),
        Err(e) => {
            let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
            let at = match e {
                base64::DecodeError::InvalidByte(i, _) | base64::DecodeError::InvalidLastSymbol(i, _) => i,
                _ => text.len(),
            };
            let fault = format!("illegal base64 data at input byte {at}");
            if clean.len() < text.len() && STANDARD.decode(&clean).is_ok() {
                Ok(Some(clean))
            } else {
                Err(fault)
            }
        }
    }
}

/// `resource.Quantity`, in its canonical form.
pub(crate) fn quantity(text: &str) -> Read {
    let canonical = text.trim().parse::<Quantity>().map_err(|e| e.to_string())?.to_string();
    Ok(if canonical == text { None } else { Some(canonical) })
}
