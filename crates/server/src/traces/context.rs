//! Which trace a request is part of: W3C's header `traceparent`, or a trace of its own.

use axum::http::HeaderMap;

use crate::random;

/// A span's place in a trace.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: u128,
    pub(super) span: u64,
    /// The span that asked for it.
    pub(super) parent: Option<u64>,
}

impl Context {
    /// Of a request with these headers; `None` where who asks wants it not to be traced. A header that is not as
    /// it must be is as good as none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Context> {
        let mut given = headers.get_all("traceparent").iter();
        let parent = match (given.next(), given.next()) {
            (Some(only), None) => only.to_str().ok().and_then(read),
            _ => None,
        };
        let (trace, parent) = match parent {
            Some((_, _, false)) => return None,
            Some((trace, parent, true)) => (trace, Some(parent)),
            None => {
                let half = || u128::from(random::number());
                (half() << 64 | half(), None)
            }
        };
        Some(Context {
            // All zeros would say that there is none.
            trace: trace.max(1),
            span: random::number().max(1),
            parent,
        })
    }
}

/// Trace, span, and whether it is sampled, of `00-TRACE-SPAN-FLAGS`; later versions may say more after that.
fn read(text: &str) -> Option<(u128, u64, bool)> {
    let mut parts = text.splitn(5, '-');
    let mut hex = |len: usize| {
        let part = parts.next().filter(|part| part.len() == len)?;
        let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let digits = part.bytes().all(digit).then_some(part)?;
        u128::from_str_radix(digits, 16).ok()
    };
    let version = hex(2).filter(|version| *version != 0xff)?;
    let trace = hex(32).filter(|trace| *trace != 0)?;
    let span = hex(16).filter(|span| *span != 0)?;
    let flags = hex(2)?;
    if version == 0 && parts.next().is_some() {
        return None;
    }
    Some((trace, u64::try_from(span).ok()?, flags & 1 == 1))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn headers_are_read_as_the_recommendation_has_them() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let good = format!("00-{trace}-b7ad6b7169203331-01");
        let read = |text: &str| read(text).map(|(_, span, sampled)| (span, sampled));
        assert_eq!(read(&good), Some((0xb7ad_6b71_6920_3331, true)));
        let unsampled = format!("00-{trace}-b7ad6b7169203331-00");
        assert_eq!(read(&unsampled), Some((0xb7ad_6b71_6920_3331, false)));
        assert!(read(&format!("cc-{trace}-b7ad6b7169203331-01-what-comes")).is_some());
        for broken in [
            "",
            "00",
            &format!("ff-{trace}-b7ad6b7169203331-01"),
            &format!("00-{trace}-b7ad6b7169203331-01-more"),
            &format!("00-{trace}-0000000000000000-01"),
            &format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            &format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()),
            &format!("00-{trace}-b7ad6b71692033-01"),
            &format!("00-+{}-b7ad6b7169203331-01", &trace[1..]),
        ] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_request_goes_on_with_its_trace_or_begins_one() {
        let mut headers = HeaderMap::new();
        let own = Context::of(&headers).expect("it is traced");
        assert_eq!(own.parent, None);
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert("traceparent", HeaderValue::from_static(text));
        let found = Context::of(&headers).expect("it is traced");
        assert_eq!(found.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(found.parent, Some(0xb7ad_6b71_6920_3331));
        assert_ne!(found.trace, own.trace);
        // Two of them say nothing.
        headers.append("traceparent", HeaderValue::from_static(text));
        assert_eq!(Context::of(&headers).and_then(|c| c.parent), None);
        let unwanted = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        headers.insert("traceparent", HeaderValue::from_static(unwanted));
        assert_eq!(Context::of(&headers), None);
    }
}
