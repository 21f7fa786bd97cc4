//! Numbers and quoted text as an operator types them.

/// What numbers of that many bits there are.
pub(super) fn limits(bits: u32, signed: bool) -> String {
    let all = u128::MAX >> (128 - bits.min(128));
    if signed {
        let largest = (all >> 1).cast_signed();
        format!("a number from {} to {largest}", -largest - 1)
    } else {
        format!("a number from 0 to {all}")
    }
}

/// A decimal or hexadecimal number that `bits` bits hold, as these bits (the rest is sign).
pub(super) fn in_range(text: &str, bits: u32, signed: bool) -> Option<u128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(hex) if !hex.starts_with(['+', '-']) => u128::from_str_radix(hex, 16).ok()?,
        Some(_) => return None,
        None if digits.starts_with(['+', '-']) => return None,
        None => digits.parse().ok()?,
    };
    let all = u128::MAX >> (128 - bits);
    let largest = match (signed, negative) {
        (true, false) => all >> 1,
        (true, true) => (all >> 1) + 1,
        (false, false) => all,
        (false, true) => 0,
    };
    (magnitude <= largest).then(|| {
        if negative {
            magnitude.wrapping_neg()
        } else {
            magnitude
        }
    })
}

/// What stands in quotes, the closing one included, as bytes.
pub(super) fn unquoted(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    loop {
        let mut buffer = [0; 4];
        match rest.next()? {
            '"' => return rest.as_str().is_empty().then_some(bytes),
            '\\' => bytes.push(match rest.next()? {
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                '0' => 0,
                'x' => {
                    let digits = rest.as_str().get(..2)?;
                    let byte = u8::from_str_radix(digits, 16).ok()?;
                    rest = rest.as_str()[2..].chars();
                    byte
                }
                c @ ('\\' | '"' | '\'') => c as u8,
                _ => return None,
            }),
            c => bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes()),
        }
    }
}
