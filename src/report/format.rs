//! Figures as people read them.

use crate::train::metrics::MeanStd;

/// A score in 0..=1 as a percentage with two decimals: 0.8199 -> "81.99".
pub fn percent(score: f64) -> String {
    format!("{:.2}", 100.0 * score)
}

/// A count with separated thousands: 1234567 -> "1,234,567".
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A large figure with three digits and a suffix: 54321 -> "54.3k", 2.5e9 -> "2.50G".
pub fn short(number: f64) -> String {
    let scales = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (scaled, suffix) = scales
        .iter()
        .find(|(scale, _)| number.abs() >= 0.9995 * scale)
        .map_or((number, ""), |(scale, suffix)| (number / scale, *suffix));
    let digits = scaled.abs();
    let decimals = match () {
        () if suffix.is_empty() && scaled.fract() == 0.0 => 0,
        () if digits < 9.995 => 2,
        () if digits < 99.95 => 1,
        () => 0,
    };
    format!("{scaled:.decimals$}{suffix}")
}

/// Bytes in binary units: 3221225472 -> "3.00 GiB".
pub fn bytes(number: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut scaled, mut unit) = (number as f64, 0);
    while scaled >= 1023.95 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{number} B"),
        _ if scaled < 9.995 => format!("{scaled:.2} {}", units[unit]),
        _ if scaled < 99.95 => format!("{scaled:.1} {}", units[unit]),
        _ => format!("{scaled:.0} {}", units[unit]),
    }
}

/// A duration: 0.0042 -> "4.2 ms", 12.34 -> "12.3 s", 75 -> "1 min 15 s", 4000 -> "1 h 07 min".
pub fn duration(seconds: f64) -> String {
    if seconds < 0.9995 {
        let milliseconds = 1000.0 * seconds;
        return if milliseconds < 9.95 {
            format!("{milliseconds:.1} ms")
        } else {
            format!("{milliseconds:.0} ms")
        };
    }
    if seconds < 59.95 {
        return if seconds < 9.995 {
            format!("{seconds:.2} s")
        } else {
            format!("{seconds:.1} s")
        };
    }
    let whole = seconds.round() as u64;
    match whole {
        0..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..86_400 => {
            let minutes = (seconds / 60.0).round() as u64;
            format!("{} h {:02} min", minutes / 60, minutes % 60)
        }
        _ => {
            let hours = (seconds / 3600.0).round() as u64;
            format!("{} d {:02} h", hours / 24, hours % 24)
        }
    }
}

/// A power of ten: 2.74e18 -> "2.74 × 10¹⁸".
pub fn scientific(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return format!("{number}");
    }
    let text = format!("{number:.2e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let raised: String = exponent.chars().map(superscript).collect();
    format!("{mantissa} × 10{raised}")
}

/// A metric's name as it is written in papers.
pub fn metric_name(metric: &str) -> &str {
    match metric {
        "micro_f1" => "micro-F1",
        "macro_f1" => "macro-F1",
        other => other,
    }
}

/// "81.99" or "81.99 ± 0.42".
pub fn mean_std(value: &MeanStd) -> String {
    match value.std {
        Some(std) => format!("{} ± {}", percent(value.mean), percent(std)),
        None => percent(value.mean),
    }
}

fn superscript(digit: char) -> char {
    match digit {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '0' | '4'..='9' => char::from_u32(0x2070 + digit as u32 - '0' as u32).unwrap_or(digit),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_and_scaled_for_readers() {
        assert_eq!(percent(0.81994), "81.99");
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 7.0, 0.25, 999.0, 999.6, 54_321.0, 2.5e9].map(short),
            ["0", "7", "0.25", "999", "1.00k", "54.3k", "2.50G"]
        );
        assert_eq!(
            [512, 1024, 3 << 30, 150 << 20].map(bytes),
            ["512 B", "1.00 KiB", "3.00 GiB", "150 MiB"]
        );
        assert_eq!(scientific(2.7391e18), "2.74 × 10¹⁸");
        assert_eq!(scientific(5e-7), "5.00 × 10⁻⁷");
    }

    #[test]
    fn durations_never_show_sixty_seconds_or_minutes() {
        let shown = [0.0042, 0.9999, 12.34, 59.96, 75.0, 3599.6, 4000.0, 7199.0, 200_000.0].map(duration);
        let expected = [
            "4.2 ms",
            "1.00 s",
            "12.3 s",
            "1 min 00 s",
            "1 min 15 s",
            "1 h 00 min",
            "1 h 07 min",
            "2 h 00 min",
            "2 d 08 h",
        ];
        assert_eq!(shown, expected);
    }
}
