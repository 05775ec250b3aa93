//! A small font for heat maps: the classic 5×7 dot matrix, drawn with rounded corners.
//!
//! In: a character. Out: how much of a point is covered. Printable ASCII that labels need; the rest is a blank.

/// Columns of a character with the gap behind it.
pub(super) const ADVANCE: f32 = 6.0;
/// Rows of a character, the descender included.
pub(super) const HEIGHT: f32 = 8.0;

/// The columns of `character`, left to right, the top row in the lowest bit.
fn columns(character: char) -> [u8; 5] {
    let u64_columns: u64 = match character {
        '0' => 0x3e_51_49_45_3e,
        '1' => 0x00_42_7f_40_00,
        '2' => 0x42_61_51_49_46,
        '3' => 0x21_41_45_4b_31,
        '4' => 0x18_14_12_7f_10,
        '5' => 0x27_45_45_45_39,
        '6' => 0x3c_4a_49_49_30,
        '7' => 0x01_71_09_05_03,
        '8' => 0x36_49_49_49_36,
        '9' => 0x06_49_49_29_1e,
        'A' => 0x7e_11_11_11_7e,
        'B' => 0x7f_49_49_49_36,
        'C' => 0x3e_41_41_41_22,
        'D' => 0x7f_41_41_22_1c,
        'E' => 0x7f_49_49_49_41,
        'F' => 0x7f_09_09_09_01,
        'G' => 0x3e_41_49_49_7a,
        'H' => 0x7f_08_08_08_7f,
        'I' => 0x00_41_7f_41_00,
        'J' => 0x20_40_41_3f_01,
        'K' => 0x7f_08_14_22_41,
        'L' => 0x7f_40_40_40_40,
        'M' => 0x7f_02_0c_02_7f,
        'N' => 0x7f_04_08_10_7f,
        'O' => 0x3e_41_41_41_3e,
        'P' => 0x7f_09_09_09_06,
        'Q' => 0x3e_41_51_21_5e,
        'R' => 0x7f_09_19_29_46,
        'S' => 0x46_49_49_49_31,
        'T' => 0x01_01_7f_01_01,
        'U' => 0x3f_40_40_40_3f,
        'V' => 0x1f_20_40_20_1f,
        'W' => 0x3f_40_38_40_3f,
        'X' => 0x63_14_08_14_63,
        'Y' => 0x07_08_70_08_07,
        'Z' => 0x61_51_49_45_43,
        'a' => 0x20_54_54_54_78,
        'b' => 0x7f_48_44_44_38,
        'c' => 0x38_44_44_44_20,
        'd' => 0x38_44_44_48_7f,
        'e' => 0x38_54_54_54_18,
        'f' => 0x08_7e_09_01_02,
        'g' => 0x18_a4_a4_a4_7c,
        'h' => 0x7f_08_04_04_78,
        'i' => 0x00_44_7d_40_00,
        'j' => 0x40_80_84_7d_00,
        'k' => 0x7f_10_28_44_00,
        'l' => 0x00_41_7f_40_00,
        'm' => 0x7c_04_18_04_78,
        'n' => 0x7c_08_04_04_78,
        'o' => 0x38_44_44_44_38,
        'p' => 0xfc_24_24_24_18,
        'q' => 0x18_24_24_28_fc,
        'r' => 0x7c_08_04_04_08,
        's' => 0x48_54_54_54_20,
        't' => 0x04_3f_44_40_20,
        'u' => 0x3c_40_40_20_7c,
        'v' => 0x1c_20_40_20_1c,
        'w' => 0x3c_40_30_40_3c,
        'x' => 0x44_28_10_28_44,
        'y' => 0x1c_a0_a0_a0_7c,
        'z' => 0x44_64_54_4c_44,
        '.' => 0x00_60_60_00_00,
        ',' => 0x00_a0_60_00_00,
        ':' => 0x00_36_36_00_00,
        '-' => 0x08_08_08_08_08,
        '+' => 0x08_08_3e_08_08,
        '/' => 0x20_10_08_04_02,
        '_' => 0x80_80_80_80_80,
        '%' => 0x23_13_08_64_62,
        _ => 0,
    };
    let [_, _, _, columns @ ..] = u64_columns.to_be_bytes();
    columns
}

/// How much of the point (`x`, `y`), in dots from the character's upper left corner, is covered; 0 to 1. `sharpness` is
/// how many pixels a dot has.
pub(super) fn coverage(character: char, x: f32, y: f32, sharpness: f32) -> f32 {
    let columns = columns(character);
    let dot = |column: i32, row: i32| {
        let set =
            (0..5).contains(&column) && (0..8).contains(&row) && columns[column as usize] >> row & 1 == 1;
        f32::from(u8::from(set))
    };
    let (x, y) = (x - 0.5, y - 0.5);
    let (column, row) = (x.floor(), y.floor());
    let (right, down) = (x - column, y - row);
    let (column, row) = (column as i32, row as i32);
    let upper = dot(column, row) * (1.0 - right) + dot(column + 1, row) * right;
    let lower = dot(column, row + 1) * (1.0 - right) + dot(column + 1, row + 1) * right;
    let between = upper * (1.0 - down) + lower * down;
    ((between - 0.46) * sharpness.max(1.0) * 1.4 + 0.5).clamp(0.0, 1.0)
}
