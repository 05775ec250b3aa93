//! As much of a text as fits where it is going.

/// The beginning of `text`, at most `bytes` long, cut between two characters.
pub(super) fn excerpt(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(["", "a", "aä", "aäb"].map(|text| excerpt(text, 3)), ["", "a", "aä", "aä"]);
        assert_eq!(["ä", "aä"].map(|text| excerpt(text, 1)), ["", "a"]);
    }
}
